"""Wires hands to brain: processes, privileges, reload, state on disk."""
