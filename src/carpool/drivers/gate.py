"""The gate: its types and the choice of the strongest one this machine allows.

The contract is in `gate_contract` (its names are repeated here), the two gates are in `bpf_gate`
and `nft_gate`.
"""

from typing import Literal

from carpool.base.errors import DriverError
from carpool.drivers.bpf_gate import BpfGate
from carpool.drivers.gate_contract import (
    SLOTS,
    Gate,
    GateGroup,
    GateKind,
    LeaseExpiredError,
)
from carpool.drivers.nft_gate import NftGate

__all__ = [
    "SLOTS",
    "Gate",
    "GateGroup",
    "GateKind",
    "LeaseExpiredError",
    "choose_gate",
]


def choose_gate(wanted: Literal["auto", "bpf", "nft"]) -> tuple[Gate, str]:
    """Return a gate that holds nothing yet, and why it is not the BPF gate ("" if none was missed).

    Call it in the process that will hold the gate, not before a fork.
    Raises DriverError when the wanted gate, or with "auto" both, are refused.
    """
    if wanted == "nft":
        return NftGate(), ""
    try:
        return BpfGate(), ""
    except DriverError as exc:
        if wanted == "bpf":
            raise
        refusal = exc
    try:
        return NftGate(), str(refusal)
    except DriverError as exc:
        both = f"BPF: {refusal}; nft: {exc}"
        raise DriverError("make a gate", both, capability=exc.capability) from exc
