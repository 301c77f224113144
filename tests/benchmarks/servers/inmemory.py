"""The installed daemon with a store that keeps nothing: inmemory.py PKI2FAD [OPTION]...

What it answers faster than the daemon is the price of the record.
"""

import sys
from collections.abc import Sequence

from pki2fad import __main__
from pki2fad.daemon import service
from pki2fad.rules.changes import Change
from pki2fad.rules.outcomes import KEPT, Settle
from pki2fad.state.store import Store


class Forgetful(Store):
    """Reads the state as it is, and keeps no change of it."""

    def keep(self, changes: Sequence[Change], settle: Settle) -> None:
        settle([(index, KEPT) for index in range(len(changes))])


if __name__ == "__main__":
    vars(service)["Store"] = Forgetful
    sys.exit(__main__.main(sys.argv[2:]))
