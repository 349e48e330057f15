"""Bytes to frozen dataclasses and back; one protocol a file."""
