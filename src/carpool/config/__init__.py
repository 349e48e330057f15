"""The operator's file: TOML text to a frozen model and back. It opens no file."""
