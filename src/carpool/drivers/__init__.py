"""The hands: the only package that touches the machine."""
