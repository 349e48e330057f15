"""High availability for ordinary servers: one program, one file, proven beforehand."""

__version__ = "0.1.0"
