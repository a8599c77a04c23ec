"""Selects records: by attributes, by globs, and by a condition in the language of `when:`."""
