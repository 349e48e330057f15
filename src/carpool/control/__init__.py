"""The control socket's language: versioned JSON lines."""
