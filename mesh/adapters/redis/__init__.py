"""The board on Redis 7 or later. The only package that imports redis."""
