"""The content of a backup: authenticators and what they have spent, as JSON and back.

It is read in pieces, since it may be long, and with care, since anybody may have sealed it.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from pki2fad.rules import otp
from pki2fad.rules.authenticator import DRIFTS
from pki2fad.rules.clock import Interval
from pki2fad.rules.otp import TOTP
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.transfer import entry
from pki2fad.transfer.entry import Entry, Order

_END_OF_TIME = 2**40  # seconds; no clock gets there
_LAST_MADE = 253_402_300_799  # the last second of the year 9999: later times have no date

# The most characters of an account with white space around it, and of the text before and after all accounts.
_LONGEST_RECORD = 4096
_LONGEST_START = 4096
_LONGEST_REST = 64 * 1024

_ACCOUNTS = re.compile(rb'"accounts"\s*:\s*\[')
_SPACE = re.compile(r"[ \t\r\n]*")
_read = json.JSONDecoder().raw_decode
_dumps = partial(json.dumps, separators=(",", ":"))

_FIELDS_1 = frozenset({"last_step", "offset", "drift"})
_FIELDS = {1: entry.FIELDS[1] | _FIELDS_1, 2: entry.FIELDS[2] | _FIELDS_1 | {"made"}}


@dataclass(frozen=True, slots=True)
class Record(Entry):
    """An authenticator in a backup. Raises `ValueError` or `TypeError` for impossible values."""

    offset: int = 0
    drift: bytes = b""
    made: int = 0  # Unix time; 0 if it is unknown, as in version 1

    def __post_init__(self) -> None:
        Entry.__post_init__(self)  # not by `super()`, which does not find a class that has slots added
        _require(abs(self.offset) <= otp.MAX_OFFSET and len(self.drift) <= DRIFTS)
        _require(0 <= self.made <= _LAST_MADE)
        _require(self.parameters.kind == TOTP or not (self.offset or self.drift))


class Content(NamedTuple):
    """The content of a backup."""

    created: int  # Unix time
    records: list[Record]  # those of an account one after the other
    floors: Mapping[int, int]  # Unix times before which codes may have been used, by period
    spent: Sequence[Interval]  # in which codes may have been used, when the clock was ahead
    version: int = 1


def start(content: Content) -> bytes:
    """The text before the first record."""
    return f'{{"created":{content.created},"accounts":['.encode()


def middle(records: Sequence[Record]) -> bytes:
    """The text of some records; a comma goes between two of these texts."""
    return ",".join([_dumps(_to_json(record)) for record in records]).encode()


def end(content: Content) -> bytes:
    """The text behind the last record."""
    return f'],"floors":{_dumps([*content.floors.items()])},"spent":{_dumps(content.spent)}}}'.encode()


def read(texts: list[bytes], version: int) -> Pieces[Content]:
    """The content that is in these texts, one after the other. Raises `ValueError` and the like."""
    _require(bool(texts))
    first = texts.pop(0)
    begin = _ACCOUNTS.search(first)
    _require(begin is not None and begin.end() <= _LONGEST_START)
    assert begin is not None
    texts.reverse()  # the next is taken from the end
    reader = _Records(first[begin.end() :], texts)
    records: list[Record] = []
    order = Order()
    for some in in_pieces(reader):
        for fields in some:
            record = _record(fields, version)
            order.add(record)
            records.append(record)
        yield
    data = json.loads(first[: begin.end()] + reader.rest())
    floors = {_whole_time(period): _whole_time(floor) for period, floor in data["floors"]}
    spent = [(_time(since), _time(until)) for since, until in data["spent"]]
    return Content(_whole_time(data["created"]), records, floors, spent, version)


class _Records:
    """Reads the elements of a JSON list from a text in parts; `rest` is the text after them."""

    def __init__(self, text: bytes, more: list[bytes]) -> None:
        self._text = str(text, "ascii")
        self._more = more  # the next part last
        self._at = 0  # up to here it was read

    def __iter__(self) -> Iterator[Any]:
        if self._next() == "]":
            return
        while True:
            value, end = _read(self._text, self._at)
            _require(end - self._at <= _LONGEST_RECORD)
            self._at = end
            yield value
            following = self._next()
            if following == "]":
                return
            _require(following == ",")
            self._at += 1
            self._next()

    def rest(self) -> bytes:
        """The text after the elements, from the end of the list on."""
        size = len(self._text) - self._at + sum(map(len, self._more))
        _require(size <= _LONGEST_REST)
        return b"".join([self._text[self._at :].encode(), *self._more])

    def _next(self) -> str:
        """The next character that is no white space; the text has the whole element after it."""
        if len(self._text) - self._at < _LONGEST_RECORD and self._more:
            self._text = self._text[self._at :] + str(self._more.pop(), "ascii")
            self._at = 0
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it always matches
        return self._text[self._at : self._at + 1]


def _to_json(record: Record) -> dict[str, Any]:
    return {
        **entry.to_json(record),
        "last_step": record.last_step,
        "offset": record.offset,
        "drift": base64.b64encode(record.drift).decode(),
        **({"made": record.made} if record.version > 1 else {}),
    }


def _record(fields: Any, version: int) -> Record:
    _require(type(fields) is dict and fields.keys() == _FIELDS[version])
    name, of, sealed, label = entry.from_json(fields, version)
    last_step, offset = _number(fields["last_step"]), _number(fields["offset"])
    drift = base64.b64decode(fields["drift"], validate=True)
    made = _number(fields["made"]) if version > 1 else 0
    return Record(name, of, sealed, last_step, label, version, offset, drift, made)


def _number(value: Any) -> int:
    _require(type(value) is int)
    return int(value)


def _whole_time(value: Any) -> int:
    _require(type(value) is int and abs(value) < _END_OF_TIME)
    return int(value)


def _time(value: Any) -> float:
    _require(type(value) is float and 0 <= value < _END_OF_TIME)
    return float(value)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("not what a backup holds")
