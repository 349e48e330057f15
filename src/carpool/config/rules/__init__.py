"""The rules across fields, by subject; each is a function from Parts to findings."""
