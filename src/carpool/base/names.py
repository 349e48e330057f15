"""Names that must not be mixed up: types for the checker, plain strings at run time."""

from typing import NewType

NodeName = NewType("NodeName", str)
"""A machine that runs carpoold: the key below `[node]`."""

GroupName = NewType("GroupName", str)
"""Addresses that move together: the key below `[hot]`."""

InterfaceName = NewType("InterfaceName", str)
"""A network interface as the kernel names it, at most 15 bytes."""

Address = NewType("Address", str)
"""An IP address in its canonical text form, without prefix length."""
