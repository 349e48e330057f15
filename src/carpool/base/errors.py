"""Every error of ours: whose fault it is, and for undecodable packets the exact reason.

Rules (STYLE 16-19): bytes from outside raise DecodeError and are counted; an operator's or our own
mistake is a LocalError; a driver turns OSError into DriverError at the border, so that nothing
above `drivers` sees an errno.
"""

from enum import StrEnum


class CarpoolError(Exception):
    """Anything carpool raises on purpose."""


class LocalError(CarpoolError):
    """The operator or this program is wrong: a bad order, a broken promise."""


class PeerError(CarpoolError):
    """Another machine is wrong."""


class DriverError(LocalError):
    """The kernel refused what was attempted; the text names both."""

    def __init__(self, attempted: str, reason: str, *, capability: str | None = None) -> None:
        """Say what was attempted, why it failed and which capability would have allowed it."""
        hint = f" (needs {capability})" if capability else ""
        super().__init__(f"{attempted}: {reason}{hint}")
        self.attempted = attempted
        self.reason = reason
        self.capability = capability


class Reject(StrEnum):
    """Why bytes from the wire were not accepted. Each has its own counter."""

    INTERFACE = "interface"  # arrived where no group lives
    LENGTH = "length"
    IP_HEADER = "ip-header"
    IP_CHECKSUM = "ip-checksum"
    FRAGMENT = "fragment"
    TTL = "ttl"
    PROTOCOL = "protocol"
    CHECKSUM = "checksum"
    VERSION = "version"
    VRRP = "vrrp"  # a VRRP advertisement: another protocol on the same number
    TYPE = "type"
    VHID = "vhid"
    HMAC = "hmac"
    LOOP = "loop"  # our own advertisement came back
    SOURCE = "source"
    ARP_FORMAT = "arp-format"
    NDP_FORMAT = "ndp-format"
    PEER_MAGIC = "peer-magic"
    PEER_VERSION = "peer-version"
    PEER_TYPE = "peer-type"
    PEER_LENGTH = "peer-length"
    PEER_FORMAT = "peer-format"
    PEER_KEY = "peer-key"  # an unknown key id
    PEER_MAC = "peer-mac"  # authentication failed
    PEER_SEQUENCE = "peer-sequence"  # replayed or out of order


class DecodeError(PeerError):
    """Bytes that are not what they claim to be."""

    def __init__(self, reason: Reject, detail: str = "") -> None:
        """Carry the reason (a counter's name) and a detail for a person."""
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
