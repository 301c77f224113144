"""Restoring a backup: collects its parts as they arrive, and plans the changes."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from pki2fad.errors import BadRequest, Unavailable
from pki2fad.rules import otp
from pki2fad.rules.account import MOST, Account
from pki2fad.rules.authenticator import UNKNOWN, Authenticator, kept
from pki2fad.rules.changes import Edit, Edits, in_the_way, take_up_watermarks
from pki2fad.rules.clock import Interval, Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.transfer import backup
from pki2fad.transfer.content import Content, Record
from pki2fad.wire import messages

_UPLOAD = re.compile(r"[0-9a-f]{32}", re.ASCII)

# Seconds by which the clocks of two hosts may differ, and codes may be spent ahead of them after a restart.
_AHEAD = 600


# Each `verify` looks at all of these intervals. Accepting a clock that was ahead adds one.
_MOST_SPENT = 1000

# Seconds without another part after which an upload is dropped: clients send them without a pause.
_ABANDONED = 30.0


class Upload:
    """A backup that arrives in parts. There is one at a time, since it may be large."""

    def __init__(self) -> None:
        self._name = ""
        self._data = bytearray()
        self._latest = 0.0  # when its last part came, CLOCK_BOOTTIME
        self._being_restored = False

    def drop(self) -> None:
        """Drop the parts that have arrived."""
        self._name, self._data = "", bytearray()

    def add(self, name: str, offset: int, part: bytes, reading: Reading) -> int:
        """Take the next part of the upload `name`. A part at offset 0 begins an upload.

        Returns how many bytes have arrived. Raises `BadRequest`, and `Unavailable` while another upload is
        being sent or restored.
        """
        if _UPLOAD.fullmatch(name) is None:
            raise BadRequest("the name of an upload is 32 hex digits")
        if len(part) > messages.PART_LIMIT:
            raise BadRequest(f"a part has at most {messages.PART_LIMIT} bytes")
        if offset == 0:
            self._begin(name, reading)
        self._require_current(name)
        if offset != len(self._data) or offset + len(part) > backup.LIMIT:
            self.drop()
            raise BadRequest("this is not the next part, or the backup is too large; begin again")
        self._data += part
        self._latest = reading.boot
        return len(self._data)

    def take(self, name: str) -> bytearray:
        """The whole upload `name`, to be restored. No other upload can begin until `end`.

        Raises `BadRequest` if it has been dropped.
        """
        self._require_current(name)
        data = self._data
        self.drop()
        self._being_restored = True
        return data

    def end(self) -> None:
        """End the restore, whatever its outcome."""
        self._being_restored = False

    def _require_current(self, name: str) -> None:
        if name != self._name:
            raise BadRequest("another upload has begun, or the daemon was locked; begin again")

    def _begin(self, name: str, reading: Reading) -> None:
        if self._being_restored:
            raise Unavailable("a backup is being restored; try again", 1)
        left = self._latest + _ABANDONED - reading.boot
        if self._name not in {"", name} and left > 0:
            raise Unavailable("another backup is being sent; try again", math.ceil(left))
        self._name, self._data = name, bytearray()


class Plan:
    """Plans the changes by a backup, at a reading of the clocks. They lower no watermark.

    `lost` are the labels of HOTP authenticators that need a `resync`, with the names of their accounts.
    """

    def __init__(self, content: Content, keyring: Keyring, watch: Watch, reading: Reading) -> None:
        self.lost: list[tuple[str, str]] = []
        self._content = content
        self._keyring = keyring
        self._watch = watch
        self._reading = reading

    def edits(self, opened: Sequence[Account], *, replace: bool) -> Pieces[Edits]:
        """All edits. `opened` are the backup's authenticators, made by `SealedSeeds.of_entry`.

        Hold the accounts meanwhile (see `Holds.held`). Raises `AccountExists` if authenticators have other
        seeds or parameters and `replace` is false, and `BadRequest` if an account would have too many.
        """
        edits: list[Edit] = []
        others: list[str] = []
        periods: set[int] = set()
        restored = zip(self._content.records, opened, strict=True)
        for some in in_pieces(map(_listed, groupby(restored, lambda one: one[0].name))):
            for authenticators in some:
                periods.update(record.parameters.period for record, _ in authenticators)
                edit, is_other = self._edit(authenticators)
                if edit is not None:
                    edits.append(edit)
                if is_other:
                    others.append(authenticators[0][0].name)
            yield
        if others and not replace:
            raise in_the_way(others)
        yield from take_up_watermarks(edits)
        return Edits(edits, self._burnt(periods - {0}), self._spent())

    def _spent(self) -> tuple[Interval, ...]:
        """The backup's intervals in which codes may have been used, without those known here."""
        known = {*self._watch.spent}
        wall = self._reading.wall
        spent = {one for one in self._content.spent if one[1] > wall} - known
        if len(known | spent) > _MOST_SPENT:
            raise BadRequest(f"there would be more than {_MOST_SPENT} times at which the clock was ahead")
        return tuple(sorted(spent))

    def _edit(self, restored: Sequence[tuple[Record, Account]]) -> tuple[Edit | None, bool]:
        """The edit for an account, None if nothing changes; and whether one of its seeds is another one."""
        name, wall = restored[0][0].name, self._reading.wall
        known = self._keyring.accounts.get(name)
        current = known and known.settled(wall)
        put, is_other = current, False
        for record, one in restored:
            self._take_up(record, one)
            old = None if put is None else _counterpart(put, one)
            if put is None or old is None or not old.is_like(one):
                is_other |= old is not None
                self._begin(record, one)
                # Another seed gives a guesser no new budget.
                put = one if put is None else put.with_authenticator(one)
            elif one.last_step > old.last_step:
                put = put.replaced(old, old.changed(last_step=one.last_step))
        if put is None or put is current:
            return None, False
        if len(put.authenticators) > MOST:
            raise BadRequest(
                f"account {name!r} would have {len(put.authenticators)} authenticators, and {MOST} are the"
                f" most; remove one with: pki2factl remove {name} --label LABEL"
            )
        return Edit(name, self._watch.believed(wall), put, self._keyring.ended(known, put)), is_other

    def _take_up(self, record: Record, one: Account) -> None:
        """Let its watermark be as high as that of the seed here, and in the backup."""
        self._keyring.take_up(one)
        if record.offset > 0:  # its prover's codes are beyond what the floors cover
            period = record.parameters.period
            end = otp.window_end(max(self._reading.wall, self._content.created), period) // period - 1
            one.raise_to(end + record.offset)

    def _begin(self, record: Record, one: Account) -> None:
        """Have it begin as the backup knows it. Which counters were used since then is not known."""
        if one.is_hotp:
            one.take_up(one.last_step, UNKNOWN, 0)
            self.lost.append((one.name, one.label))
        else:
            one.take_up(one.last_step, kept(record.drift + one.drift), record.offset)

    def _burnt(self, periods: Iterable[int]) -> dict[int, int]:
        """The floors of the backup's periods, as after a crash of the machine.

        The backup does not have the codes that its host accepted later. If it is of a time after now, one of
        the two clocks is wrong, and codes up to that time may have been used.
        """
        wall = max(self._reading.wall, self._content.created)
        floors = self._content.floors
        return {period: max(floors.get(period, 0), otp.window_end(wall, period)) for period in periods}


def _listed(group: tuple[str, Iterable[tuple[Record, Account]]]) -> list[tuple[Record, Account]]:
    return list(group[1])


def _counterpart(account: Account, one: Account) -> Authenticator | None:
    """The authenticator that has the same seed and parameters, whatever its label is, or else the label."""
    same = next((other for other in account.authenticators if other.is_like(one)), None)
    return same or account.authenticator(one.label)


def check_time(content: Content, reading: Reading) -> None:
    """Raise `BadRequest` for a backup of a time after now."""
    latest = max([content.created, *content.floors.values()])
    if latest > reading.wall + _AHEAD:
        raise BadRequest(
            f"the backup is of {latest - reading.wall:.0f} s later than now: the clock here is wrong, or the"
            " clock of its host was; codes up to then may have been used there"
        )
