"""Who holds a shared address: pure decisions, CARP's rules."""
