"""A backup arrives in parts, one upload at a time, and bounded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import ROOT
from support.sites import Site

from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, BadSeal, Locked, Unavailable
from pki2fad.rules.changes import Work
from pki2fad.transfer import backup
from pki2fad.wire import messages
from pki2fad.wire.messages import Request


@pytest.fixture
def site(tmp_path: Path, host_key: PrivateKey) -> Iterator[Site]:
    """Where parts are sent to."""
    with Site(tmp_path / "state.db", host_key) as site:
        yield site


UPLOAD, ANOTHER = "0" * 32, "f" * 32


def part(site: Site, offset: int, data: bytes, upload: str = UPLOAD, **more: object) -> object:
    return site.call("restore", upload=upload, offset=offset, part=data, **more)


def last_part(site: Site, data: bytes) -> Work:
    """Send a backup's only part; returns the work that is to restore it."""
    arguments = {"upload": UPLOAD, "offset": 0, "part": data, "last": True}
    work = site.agent.handle(Request(1, "restore", arguments), ROOT, site.reading).work
    assert work is not None
    return work


def test_parts_come_in_order_and_begin_at_the_start(site: Site) -> None:
    assert part(site, 0, b"abc") == {"received": 3}
    with pytest.raises(BadRequest, match="next part"):
        part(site, 4, b"d")
    with pytest.raises(BadRequest, match="begin again"):
        part(site, 3, b"d")
    assert part(site, 0, b"ab") == {"received": 2}
    assert part(site, 2, b"c") == {"received": 3}
    with pytest.raises(BadSeal, match="not a backup"):
        part(site, 3, b"", last=True)
    with pytest.raises(BadRequest):  # it is gone
        part(site, 3, b"", last=True)


def test_a_second_upload_waits_for_the_first(site: Site) -> None:
    part(site, 0, b"abc")
    with pytest.raises(Unavailable, match="another backup is being sent; try again") as refused:
        part(site, 0, b"x", ANOTHER)
    assert refused.value.retry_after == 30
    with pytest.raises(BadRequest):
        part(site, 3, b"d", ANOTHER)
    assert part(site, 3, b"d") == {"received": 4}  # a stray part of somebody else takes nothing away


def test_an_upload_that_was_abandoned_makes_room_for_another(site: Site) -> None:
    part(site, 0, b"abc")
    site.wait(29)
    assert part(site, 3, b"d") == {"received": 4}
    site.wait(30)
    assert part(site, 0, b"x", ANOTHER) == {"received": 1}
    with pytest.raises(BadRequest):
        part(site, 4, b"e")


def test_the_same_upload_may_begin_again(site: Site) -> None:
    part(site, 0, b"abc")
    assert part(site, 0, b"ab") == {"received": 2}


def test_no_upload_begins_while_one_is_restored(site: Site) -> None:
    work = last_part(site, site.backup())
    with pytest.raises(Unavailable, match="another backup is being sent; try again"):
        part(site, 0, b"x", ANOTHER)
    next(work)
    with pytest.raises(Unavailable, match="a backup is being restored; try again"):
        part(site, 0, b"x", ANOTHER)
    work.close()
    assert part(site, 0, b"x", ANOTHER) == {"received": 1}


def test_a_restore_that_is_not_begun_keeps_no_other_upload_waiting_for_good(site: Site) -> None:
    last_part(site, site.backup()).close()  # its client was gone
    site.wait(30)
    assert part(site, 0, b"x", ANOTHER) == {"received": 1}


def test_a_restore_that_waited_until_another_upload_began_is_refused(site: Site) -> None:
    work = last_part(site, site.backup())
    site.wait(30)
    part(site, 0, b"x", ANOTHER)
    with pytest.raises(BadRequest, match="another upload has begun"):
        next(work)


@pytest.mark.parametrize("name", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 31 + "\n"])
def test_an_upload_has_a_name_of_32_hex_digits(site: Site, name: str) -> None:
    with pytest.raises(BadRequest, match="32 hex digits"):
        part(site, 0, b"", name)


def test_a_part_and_the_whole_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequest, match="at most"):
        part(site, 0, bytes(messages.PART_LIMIT + 1))
    monkeypatch.setattr(backup, "LIMIT", 2 * messages.PART_LIMIT)
    part(site, 0, bytes(messages.PART_LIMIT))
    part(site, messages.PART_LIMIT, bytes(messages.PART_LIMIT))
    with pytest.raises(BadRequest, match="too large"):
        part(site, 2 * messages.PART_LIMIT, b"x")


def test_a_lock_drops_what_was_uploaded(site: Site) -> None:
    part(site, 0, b"abc")
    site.agent.lock()
    with pytest.raises(Locked):
        part(site, 3, b"d")
    with pytest.raises(BadRequest, match="the daemon was locked"):
        site.agent._admin.upload.take(UPLOAD)
