"""What brings a backup back: its parts as they arrive, and what it changes."""

import re
from typing import TYPE_CHECKING

from pki2fad import backup, otp, wire
from pki2fad.account import kept
from pki2fad.backup import Content
from pki2fad.changes import Edit, Edits, in_the_way, take_up_watermarks
from pki2fad.clock import Reading, Watch
from pki2fad.errors import BadRequest
from pki2fad.keyring import Keyring

if TYPE_CHECKING:
    from pki2fad.envelope import MasterKey

_UPLOAD = re.compile(r"[0-9a-f]{32}", re.ASCII)

# Seconds by which the clocks of two hosts may differ, with what is spent ahead of each after a restart.
_AHEAD = 600


class Upload:
    """A backup that arrives in parts: one at a time, since each may be large."""

    def __init__(self) -> None:
        self._name = ""
        self._data = bytearray()

    def drop(self) -> None:
        """Let go of what has arrived."""
        self._name, self._data = "", bytearray()

    def add(self, name: str, offset: int, part: bytes) -> int:
        """Take the next part of the upload `name`; one at offset 0 begins another upload.

        Returns how many bytes there are now. Raises `BadRequest`.
        """
        if _UPLOAD.fullmatch(name) is None:
            raise BadRequest("an upload is named by 32 hex digits")
        if len(part) > wire.PART_LIMIT:
            raise BadRequest(f"a part is at most {wire.PART_LIMIT} bytes long")
        if offset == 0:
            self._name, self._data = name, bytearray()
        if name != self._name:
            raise BadRequest("another upload has begun meanwhile, or the daemon was locked: begin again")
        if offset != len(self._data) or offset + len(part) > backup.LIMIT:
            self.drop()
            raise BadRequest("this is not the next part, or the whole is too large: begin again")
        self._data += part
        return len(self._data)

    def take(self) -> bytes:
        """All that has arrived; nothing is kept."""
        data = bytes(self._data)
        self.drop()
        return data


def plan(
    content: Content, master: "MasterKey", keyring: Keyring, watch: Watch, reading: Reading, *, replace: bool
) -> Edits:
    """What a backup under this master key changes: no watermark is lower for it.

    Raises `BadSeal`, `BadRequest` for a backup of later than now, and `AccountExists` if accounts have other
    seeds or parameters and `replace` is false.
    """
    latest = max([content.created, *content.floors.values()])
    if latest > reading.wall + _AHEAD:
        raise BadRequest(
            f"the backup is of {latest - reading.wall:.0f} s later than it is now: the clock here is wrong,"
            " or that of the host it is from was; codes up to then may have been used there"
        )
    wall = watch.believed(reading.wall)
    edits, others = [], []
    for record in content.records:
        account = keyring.sealed_elsewhere(record.name, record.sealed, record.parameters, master)
        account.last_step = max(account.last_step, record.last_step)
        if record.offset > 0:  # its prover's codes are beyond what the floors cover
            period = record.parameters.period
            end = otp.window_end(max(reading.wall, content.created), period) // period - 1
            account.last_step = max(account.last_step, end + record.offset)
        known = keyring.accounts.get(record.name)
        current = known and known.settled(reading.wall)
        gone = None if known is current else known
        if current is None:
            account.offset, account.drift = record.offset, kept(record.drift + account.drift)
        elif not current.is_like(account):
            account.offset, account.drift = record.offset, kept(record.drift + account.drift)
            account.tally = current.tally  # another seed gives who guesses no new budget
            gone = known
            others.append(record.name)
        elif account.last_step > current.last_step:
            account = current.moved(current.offset, account.last_step)
        else:
            continue
        edits.append(Edit(record.name, wall, account, gone and keyring.leaving(gone)))
    if others and not replace:
        raise in_the_way(others)
    take_up_watermarks(edits)
    return Edits(
        tuple(edits),
        _burnt(content, reading),
        tuple(one for one in content.spent if one not in watch.spent and one[1] > reading.wall),
    )


def _burnt(content: Content, reading: Reading) -> dict[int, int]:
    """The floors of the backup's periods, as after a crash of the machine.

    Whatever was accepted where the backup is from, after it was made, is not in it. A backup that is of
    later than now tells that one of the two clocks is wrong, and codes up to then may have been used.
    """
    wall = max(reading.wall, content.created)
    return {
        period: max(content.floors.get(period, 0), otp.window_end(wall, period))
        for period in {record.parameters.period for record in content.records}
    }
