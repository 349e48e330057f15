"""Which gate a process gets, and what it is told: carpool.drivers.gate.choose_gate."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab

TRY = """
from carpool.base.errors import DriverError
from carpool.drivers.gate import choose_gate
for wanted in ("auto", "bpf", "nft"):
    try:
        gate, reason = choose_gate(wanted)
        print(wanted, gate.kind, reason)
        gate.remove()
    except DriverError as refusal:
        print(wanted, "refused:", refusal)
"""


def choices(*command):
    """Return what choose_gate answers in a process started by `command`."""
    done = subprocess.run(
        [*command, sys.executable, "-c", TRY],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.bpf
def test_with_all_rights_it_is_bpf():
    """As root, "auto" is the BPF gate and there is nothing to explain."""
    answers = choices("unshare", "-n")
    assert answers == {"auto": "bpf ", "bpf": "bpf ", "nft": "nft "}


def test_without_bpf_it_is_nft_and_says_why():
    """In a user namespace BPF is refused: "auto" falls back, "bpf" names the capability."""
    answers = choices("unshare", "-Urn")
    assert answers["auto"].startswith("nft make the BPF map")
    assert "CAP_BPF" in answers["auto"]
    assert answers["bpf"].startswith("refused:")
    assert "CAP_BPF" in answers["bpf"]
    assert answers["nft"] == "nft "


def test_without_any_right_both_refusals_are_told():
    """With no capability at all, the error names what each gate would have needed."""
    answers = choices(
        "unshare", "-Urn", "--", "setpriv", "--bounding-set", "-all", "--inh-caps=-all"
    )
    assert "BPF: " in answers["auto"]
    assert "nft: " in answers["auto"]
    assert "CAP_NET_ADMIN" in answers["nft"]
