"""Which accounts are about to change: nothing else may change them meanwhile, nor spend their codes."""

import contextlib
from collections.abc import Container, Iterator

from pki2fad.errors import Unavailable


class Holds:
    """The names that are held, for an edit or for work about many accounts."""

    def __init__(self) -> None:
        self._held: Container[str] = ()
        self._edited: set[str] = set()  # whose edit is on its way to the store

    @contextlib.contextmanager
    def held(self, names: Container[str]) -> Iterator[None]:
        """Verify nothing for these accounts in the block: their watermarks stay as they are."""
        self._held = names
        try:
            yield
        finally:
            self._held = ()

    def require_free(self, name: str) -> None:
        """Raise `Unavailable` if the account is about to change."""
        if name in self._held or name in self._edited:
            raise Unavailable("the account is being changed; try again", 1)

    def hold(self, name: str) -> None:
        """Let nothing else change an account until `let_go`. Raises `Unavailable` if something does."""
        self.require_free(name)
        self._edited.add(name)

    def let_go(self, name: str) -> None:
        """Its edit is over."""
        self._edited.discard(name)
