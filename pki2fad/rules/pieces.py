"""Long work in pieces. Other requests have their turn between them."""

from collections.abc import Generator, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

# Long work, with a `yield` after each piece. What a `yield` gives back, `changes.Work` says.
Pieces = Generator[None, Any, T]

# Names that are sorted in one go.
_SORTED = 2048

# Accounts to seal, open or look up in one piece: a millisecond or two.
PIECE = 128


def in_pieces(items: Iterable[T], size: int = PIECE) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def sorted_names(names: Iterable[str]) -> Pieces[Iterator[str]]:
    """The names in order."""
    runs = []
    for some in in_pieces(names, _SORTED):
        runs.append(sorted(some))
        yield
    return merge(*runs)


def let_go(items: list[Any]) -> Pieces[None]:
    """Empty a long list piece by piece: its memory is not freed all at once at the end."""
    while items:
        del items[-PIECE:]
        yield


def finish(pieces: Pieces[T]) -> T:
    """Do all of it at once, where nobody waits. Returns its result."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # it is a T
