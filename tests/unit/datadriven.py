"""The reader of transcripts: comment, command, `----`, answer, and an empty line between two.

After cockroachdb/datadriven, as etcd-io/raft uses it. Run with REWRITE=1 to write the answers down
anew, then read the difference.
"""

import os
from collections.abc import Callable
from pathlib import Path

MARK = "----"


def check(path: Path, answer: Callable[[str], list[str]]) -> None:
    """Play a transcript: every command's answer is what the file says, or is written into it.

    answer: gets one command line and returns the lines that it brings about. A block may have
    several commands; their answers follow upon each other.
    """
    said, wanted = [], path.read_text()
    for block in wanted.strip("\n").split("\n\n"):
        head, _, _ = block.partition(f"\n{MARK}")
        lines = head.split("\n")
        told = [line for one in lines if not one.startswith("#") for line in answer(one)]
        if all(line.startswith("#") for line in lines):
            said.append(head)
        else:
            said.append("\n".join([*lines, MARK, *told]))
    text = "\n\n".join(said) + "\n"
    if os.environ.get("REWRITE") == "1":
        path.write_text(text)
    assert text == path.read_text()
