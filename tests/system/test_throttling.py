"""Throttling by a real daemon: who has to wait, what survives, what the log says, and old state files."""

import asyncio
import contextlib
import grp
import os
import pwd
import time
from datetime import datetime
from typing import Any

import pytest
from support.daemon import Daemon, as_user, code_of, wait_until
from support.logins import NEVER
from support.peers import require_root
from support.raw import REQUEST, RawPeer, Seal, connect, connect_as

from pki2fad.client import AsyncClient

A = b"seed A of the throttling tests.."
B = b"seed B of the throttling tests.."
UID = 4242
INVALID = (None, {"valid": False})
VALID = (None, {"valid": True})


@pytest.fixture
def served(daemon: Daemon, seal: Seal) -> Daemon:
    """A daemon with two accounts, not started, that others can reach."""
    daemon.root.chmod(0o755)
    daemon.deliver("default", seal(A))
    daemon.deliver("other", seal(B))
    return daemon


def grant(daemon: Daemon, *rules: "tuple[str, str | int]") -> None:
    entries = [f'[[access]]\nrole = "{role}"\nwho = [{who!r}]\n' for role, who in rules]
    daemon.configure("\n".join(entries))


def verify(peer: RawPeer, code: str = NEVER, **more: str) -> tuple[Any, Any]:
    return peer.exchange(["verify", [{"code": code, **more}]])


def is_throttled(answer: tuple[Any, Any]) -> bool:
    """True if it is a refusal for now, that says for how long."""
    error, result = answer
    if error is None:
        return False
    code, text, retry_after = error
    assert (code, result) == ("throttled", None)
    assert text.startswith("throttled: ")
    assert type(retry_after) is int
    assert 1 <= retry_after <= 60
    return True


def code_now(peer: RawPeer, seed: bytes = A) -> str:
    """The current code of `default`, for root."""
    return code_of(seed, peer.call("generate")["step"])


def verdicts(daemon: Daemon, count: int) -> list[str]:
    """The lines of the log about verdicts, when there are so many: some are written after the answer."""

    def lines() -> list[str]:
        return [line for line in daemon.log().splitlines() if "verify uid=" in line]

    wait_until(lambda: len(lines()) >= count, f"no {count} verdicts are logged")
    assert len(lines()) == count
    return lines()


# Who has to wait


def test_after_four_wrong_codes_also_a_right_one_is_throttled_and_told_for_how_long(served: Daemon) -> None:
    served.start()
    with connect(served.socket) as peer:
        assert [verify(peer) for _ in range(4)] == [INVALID] * 4
        assert is_throttled(verify(peer))
        assert is_throttled(verify(peer, code_now(peer)))


def test_pki2factl_ends_with_5_and_says_when_to_try_again(served: Daemon) -> None:
    served.start()
    for _ in range(4):
        assert served.ctl("verify", NEVER).returncode == 1
    done = served.ctl("verify", NEVER)
    assert (done.returncode, done.stdout) == (5, "")
    (error,) = done.stderr.splitlines()
    assert error.startswith("pki2factl: error: throttled: ")
    until = datetime.fromisoformat(error.rpartition(" at ")[2])
    assert 0 < until.timestamp() - time.time() <= 61  # it is a whole second, rounded up


def test_over_many_connections_at_once_no_more_is_let_by(served: Daemon) -> None:
    served.start()
    with contextlib.ExitStack() as open_peers:
        peers = [open_peers.enter_context(connect(served.socket)) for _ in range(50)]
        for peer in peers:
            peer.send(*([REQUEST, number, "verify", [{"code": NEVER}]] for number in range(4)))
        answers = [tuple(peer.receive()[2:]) for peer in peers for _ in range(4)]
    assert answers.count(INVALID) == 4
    assert sum(map(is_throttled, answers)) == 196


def test_another_account_is_not_affected(served: Daemon) -> None:
    served.start()
    with connect(served.socket) as peer:
        while not is_throttled(verify(peer)):
            pass
        assert verify(peer, account="other") == INVALID
        assert (
            verify(peer, code_of(B, peer.call("generate", account="other")["step"]), account="other") == VALID
        )


def test_a_right_code_lets_its_caller_begin_anew(served: Daemon) -> None:
    served.start()
    with connect(served.socket) as peer:
        for _ in range(3):
            assert verify(peer) == INVALID
        assert verify(peer, code_now(peer)) == VALID
        assert [verify(peer) for _ in range(4)] == [INVALID] * 4
        assert is_throttled(verify(peer))


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("account", ["default", "other"])
def test_failures_are_counted_over_restarts(served: Daemon, how: str, account: str) -> None:
    for _ in range(4):
        served.start()
        with connect(served.socket) as peer:
            assert verify(peer, account=account) == INVALID
            getattr(served, how)()  # as soon as the answer is there
    served.start()
    with connect(served.socket) as peer:
        assert is_throttled(verify(peer, account=account))


def test_a_relay_has_a_budget_for_each_origin(served: Daemon) -> None:
    require_root()
    grant(served, ("verify", UID), ("relay", UID))
    served.start()
    (peer,) = connect_as(UID, served.socket)
    with peer:
        while not is_throttled(verify(peer, origin="192.0.2.1")):
            pass
        assert verify(peer, origin="192.0.2.2") == INVALID
        assert verify(peer) == INVALID
        assert is_throttled(verify(peer, origin="192.0.2.1"))


def test_the_clients_and_the_command_name_an_origin_and_the_log_shows_it(served: Daemon) -> None:
    served.start()
    with served.client() as client:
        assert not client.verify(NEVER, origin="192.0.2.1")
    assert served.ctl("verify", NEVER, "--origin", "2001:db8::1\n").stdout == "invalid\n"

    async def ask() -> bool:
        async with AsyncClient(str(served.socket)) as client:
            return await client.verify(NEVER, origin="192.0.2.3")

    assert not asyncio.run(ask())
    lines = verdicts(served, 3)
    for line, origin in zip(lines, ("192.0.2.1", r'"2001:db8::1\n"', "192.0.2.3"), strict=True):
        assert f" origin={origin} valid=False reason=wrong" in line


def test_who_is_no_relay_names_no_origin(served: Daemon) -> None:
    require_root()
    grant(served, ("verify", UID))
    served.start()
    (peer,) = connect_as(UID, served.socket)
    with peer:
        error = peer.refusal("verify", code=NEVER, origin="192.0.2.1")
        assert error[0] == "forbidden"
        assert "relay" in error[1]


def test_uids_that_are_no_users_share_a_budget(served: Daemon) -> None:
    group = next(group for group in grp.getgrall() if group.gr_gid not in (0, 65534))
    users = {user.pw_uid for user in pwd.getpwall()}
    one, *others = [uid for uid in range(400_000, 400_100) if uid not in users][:4]
    user = next(uid for uid in users if uid not in (0, 65534))
    grant(served, ("verify", f"@{group.gr_name}"), ("verify", UID))
    served.start()

    def exit_code(uid: int) -> int:
        return served.ctl("verify", NEVER, command=as_user(uid, groups=[group.gr_gid])).returncode

    assert [exit_code(uid) for uid in (one, *others)] == [1] * 4
    assert [exit_code(uid) for uid in (one, others[-1] + 1)] == [5, 5]
    assert [exit_code(uid) for uid in (user, UID)] == [1, 1]  # whom the system or the configuration names


def test_to_whom_may_only_verify_everything_wrong_looks_the_same(served: Daemon) -> None:
    require_root()
    grant(served, ("verify", UID))
    served.start()

    def bytes_of(account: str, code: str) -> bytes:
        peer.send([REQUEST, 1, "verify", [{"account": account, "code": code}]])
        return peer.receive_bytes()

    (peer,) = connect_as(UID, served.socket)
    with peer:
        answers = {
            bytes_of(account, code) for account in ("default", "missing") for code in ("000000", NEVER)
        }
        assert len(answers) == 1
        while not is_throttled(verify(peer, account="missing")):
            pass
        while not is_throttled(verify(peer)):
            pass
        assert bytes_of("default", NEVER)[:60] == bytes_of("missing", NEVER)[:60]


# The log


def test_only_the_log_tells_why_a_code_was_not_valid(served: Daemon) -> None:
    served.stderr.touch()
    status = served.stderr.stat()
    served.start(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")  # for lines to begin with priorities
    with connect(served.socket) as peer:
        step = peer.call("generate")["step"]
        code = code_of(A, step)
        answers = [
            verify(peer, one) for one in (code, code, code_of(A, step - 6), code_of(A, step + 6), NEVER)
        ]
        assert answers == [VALID, *[INVALID] * 4]
    lines = [f"{line[:3]} {line.split(' valid=')[1]}" for line in verdicts(served, 5)]
    assert sorted(lines) == [
        "<4> False reason=replayed",
        "<6> False reason=stale steps=+6",
        "<6> False reason=stale steps=-6",
        "<6> False reason=wrong",
        "<6> True",
    ]


def test_at_most_five_codes_a_second_are_looked_up_for_the_log(served: Daemon) -> None:
    served.configure("[throttle]\nenabled = false\n")
    served.start()
    count = 300
    with connect(served.socket) as peer:
        stale = code_of(A, peer.call("generate")["step"] - 6)
        begun = time.monotonic()
        peer.send(*([REQUEST, number, "verify", [{"code": stale}]] for number in range(count)))
        assert [tuple(peer.receive()[2:]) for _ in range(count)] == [INVALID] * count
        reasons = [line.rpartition("valid=False ")[2].split()[0] for line in verdicts(served, count)]
        seconds = int(time.monotonic()) - int(begun) + 1
        assert set(reasons) == {"reason=stale", "reason=wrong"}
        assert 5 <= reasons.count("reason=stale") <= 5 * seconds

        def more_are_found() -> bool:
            assert verify(peer, stale) == INVALID
            return served.log().count("reason=stale") > 5

        wait_until(more_are_found, "no code is looked up in the next second")


def test_who_is_throttled_is_in_the_log(served: Daemon) -> None:
    served.start()
    with connect(served.socket) as peer:
        while not is_throttled(verify(peer)):
            pass
    (line,) = [line for line in served.log().splitlines() if "code=throttled" in line]
    assert f"refused uid={os.geteuid()} method=verify pid={os.getpid()} account=default" in line
    assert NEVER not in served.log()


def test_a_lock_right_behind_a_wrong_code_fails_nothing_and_shows_no_code(served: Daemon) -> None:
    served.start()
    with connect(served.socket) as peer:
        peer.send([REQUEST, 1, "verify", [{"code": NEVER}]], [REQUEST, 2, "lock", []])
        assert [tuple(peer.receive()[2:]) for _ in range(2)] == [INVALID, (None, {"locked": True})]
    assert served.stop() == 0
    assert "loop_failed" not in served.log()
    assert NEVER not in served.log()
    assert len(verdicts(served, 1)) == 1


# Settings and old files


def test_throttling_can_be_switched_off_and_on_and_status_and_log_say_so(served: Daemon) -> None:
    served.configure("[throttle]\nenabled = false\n")
    served.start()
    assert served.log().count("not_throttled") == 1
    with connect(served.socket) as peer:
        assert peer.call("status")["throttling"] is False
        assert [verify(peer) for _ in range(100)] == [INVALID] * 100
        served.configure("")
        served.reload()
        assert served.log().count("not_throttled") == 1
        assert peer.call("status")["throttling"] is True
        assert [verify(peer) for _ in range(4)] == [INVALID] * 4
        assert is_throttled(verify(peer))
