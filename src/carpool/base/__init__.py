"""The vocabulary: time, names, addresses, errors, journal, counters. It imports nothing of ours."""
