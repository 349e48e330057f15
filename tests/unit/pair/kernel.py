"""What the kernel of a simulated machine holds for one group: the gate, and its judgement.

The same contract as `carpool.drivers.gate_contract`, with the clock of the world. `opened` is told
of every change, so that the world can look for a second owner at the only instants at which one can
appear: a gate shuts by itself, but it opens only here.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class KernelGate:
    """Deadlines and the permit of one group on one machine."""

    opened: Callable[[], None]
    permit: bool = False
    serve_until: int = 0
    advertise_until: int = 0

    def is_open(self, now: int) -> bool:
        """Return whether the machine answers for the addresses."""
        return self.permit and now < self.serve_until

    def lets_advertise(self, now: int) -> bool:
        """Return whether an advertisement of ours gets out."""
        return self.permit and now < self.advertise_until

    def open(self, serve_until: int, advertise_until: int) -> None:
        """Set the deadlines, then permit."""
        self.serve_until = serve_until
        self.advertise_until = advertise_until
        self.permit = True
        self.opened()

    def renew(self, now: int, serve_until: int, advertise_until: int) -> str:
        """Move the deadlines of a lease that still runs; return why not."""
        if now >= self.serve_until:
            return "the lease has run out"
        self.serve_until = serve_until
        self.advertise_until = advertise_until
        self.opened()
        return ""

    def shut(self) -> None:
        """Stop serving."""
        self.permit = False
        self.serve_until = 0
        self.advertise_until = 0
