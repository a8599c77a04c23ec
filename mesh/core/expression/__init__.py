"""Conditions (`when`) and paths into payloads: parsing and evaluation."""
