"""Restoring a backup: collects its parts as they arrive, and plans the changes."""

import math
import re
from collections.abc import Iterable, Sequence

from pki2fad.errors import BadRequest, Unavailable
from pki2fad.rules import otp
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import kept
from pki2fad.rules.changes import Edit, Edits, in_the_way, take_up_watermarks
from pki2fad.rules.clock import Interval, Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.transfer import backup
from pki2fad.transfer.backup import Content, Record
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
    """Plans the changes by a backup, at a reading of the clocks. They lower no watermark."""

    def __init__(self, content: Content, keyring: Keyring, watch: Watch, reading: Reading) -> None:
        self._content = content
        self._keyring = keyring
        self._watch = watch
        self._reading = reading

    def edits(self, opened: Sequence[Account], *, replace: bool) -> Pieces[Edits]:
        """All edits. `opened` are the backup's accounts, made by `Keyring.sealed_elsewhere`.

        Hold the accounts meanwhile (see `Keyring.held`). Raises `AccountExists` if accounts have other
        seeds or parameters and `replace` is false.
        """
        edits: list[Edit] = []
        others: list[str] = []
        periods: set[int] = set()
        for some in in_pieces(zip(self._content.records, opened, strict=True)):
            for record, account in some:
                periods.add(record.parameters.period)
                edit, is_other = self._edit(record, account)
                if edit is not None:
                    edits.append(edit)
                if is_other:
                    others.append(record.name)
            yield
        if others and not replace:
            raise in_the_way(others)
        yield from take_up_watermarks(edits)
        return Edits(edits, self._burnt(periods), self._spent())

    def _spent(self) -> tuple[Interval, ...]:
        """The backup's intervals in which codes may have been used, without those known here."""
        known = {*self._watch.spent}
        wall = self._reading.wall
        spent = {one for one in self._content.spent if one[1] > wall} - known
        if len(known | spent) > _MOST_SPENT:
            raise BadRequest(f"there would be more than {_MOST_SPENT} times at which the clock was ahead")
        return tuple(sorted(spent))

    def _edit(self, record: Record, account: Account) -> tuple[Edit | None, bool]:
        """The edit for a record, None if nothing changes; and whether the account has another seed."""
        wall = self._reading.wall
        self._keyring.take_up(account)
        account.raise_to(record.last_step)
        if record.offset > 0:  # its prover's codes are beyond what the floors cover
            period = record.parameters.period
            end = otp.window_end(max(wall, self._content.created), period) // period - 1
            account.raise_to(end + record.offset)
        known = self._keyring.accounts.get(record.name)
        current = known and known.settled(wall)
        old = current and current.authenticator(account.label)
        is_other = current is not None and (old is None or not old.is_like(account))
        put = account
        if current is None or old is None or is_other:
            account.take_up(account.last_step, kept(record.drift + account.drift), record.offset)
            if current is not None:  # another seed gives a guesser no new budget
                put = current.with_authenticator(account)
        elif account.last_step > old.last_step:
            put = current.replaced(old, old.changed(last_step=account.last_step))
        else:
            return None, False
        gone = self._keyring.ended(known, put)
        return Edit(record.name, self._watch.believed(wall), put, gone), is_other

    def _burnt(self, periods: Iterable[int]) -> dict[int, int]:
        """The floors of the backup's periods, as after a crash of the machine.

        The backup does not have the codes that its host accepted later. If it is of a time after now, one of
        the two clocks is wrong, and codes up to that time may have been used.
        """
        wall = max(self._reading.wall, self._content.created)
        floors = self._content.floors
        return {period: max(floors.get(period, 0), otp.window_end(wall, period)) for period in periods}


def check_time(content: Content, reading: Reading) -> None:
    """Raise `BadRequest` for a backup of a time after now."""
    latest = max([content.created, *content.floors.values()])
    if latest > reading.wall + _AHEAD:
        raise BadRequest(
            f"the backup is of {latest - reading.wall:.0f} s later than now: the clock here is wrong, or the"
            " clock of its host was; codes up to then may have been used there"
        )
