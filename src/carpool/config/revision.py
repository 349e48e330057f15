"""The revision: a short name for what a configuration says, the same on every node that agrees.

Nodes send it over the peer link, so that `status` can say that two nodes have different files.
The order of tables and the spelling of values do not count.
"""

import hashlib
from typing import Final

from carpool.config.model import Config
from carpool.config.render import canonical

REVISION_LENGTH: Final = 12  # hex digits; 48 bits tell the files of one site apart


def revision(config: Config) -> str:
    """Return the revision of `config`: the first 12 hex digits of blake2b of its canonical text."""
    return hashlib.blake2b(canonical(config).encode()).hexdigest()[:REVISION_LENGTH]
