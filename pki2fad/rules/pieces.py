"""Long work in pieces, between which others have their turn."""

from collections.abc import Generator, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

# What takes long, a piece after each `yield`; it is sent what comes between (see `changes.Work`).
Pieces = Generator[None, Any, T]

# Names that are sorted in one go.
_SORTED = 2048

# Accounts of which something is sealed, opened or looked up in one piece: a millisecond or two.
PIECE = 128


def in_pieces(items: Iterable[T], size: int = PIECE) -> Iterator[list[T]]:
    """The items, some at a time."""
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
    """Empty a long list: what is in it is given back piece by piece, and not at the end of a work."""
    while items:
        del items[-PIECE:]
        yield


def finish(pieces: Pieces[T]) -> T:
    """Do all of it at once, where nobody waits. Returns what it comes to."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # it is a T
