"""What survives a restart, and SIGKILL: accounts, watermarks and the minute log."""

import base64
import contextlib

import msgpack
import pytest
from support.daemon import Daemon, code_of
from support.raw import REQUEST, Seal, connect

A = b"seed A of the restart tests....."
B = b"seed B of the restart tests....."


def load(daemon: Daemon, sealed: bytes, *options: str) -> None:
    done = daemon.ctl("load", *options, input=base64.b64encode(sealed).decode())
    assert done.returncode == 0, done.stderr


def verify(daemon: Daemon, code: str) -> str:
    return daemon.ctl("verify", code).stdout.strip()


def current(daemon: Daemon, seed: bytes) -> str:
    """The current code of `default`, which is made from this seed."""
    with daemon.client() as client:
        return code_of(seed, client.generate().step)


def end(daemon: Daemon, how: str) -> None:
    if how == "stop":
        assert daemon.stop() == 0
    else:
        daemon.kill()


both = pytest.mark.parametrize("how", ["stop", "kill"])


@both
def test_accounts_survive_with_all_that_they_are(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.start()
    load(daemon, seal(A))
    load(daemon, seal(B), "--account=other", "--algorithm=SHA512", "--digits=8", "--period=60")
    assert verify(daemon, current(daemon, A)) == "valid"
    before = daemon.ctl("accounts", "--json").stdout
    end(daemon, how)
    daemon.start()
    assert daemon.ctl("accounts", "--json").stdout == before
    with daemon.client() as client:
        code = client.generate()
    assert code.code == code_of(A, code.step)


@both
def test_a_code_is_accepted_once_across_restarts(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.start()
    load(daemon, seal(A), "--period=120")
    code = current(daemon, A)
    assert verify(daemon, code) == "valid"
    for _ in range(2):
        end(daemon, how)
        daemon.start()
        assert verify(daemon, code) == "invalid"


@both
def test_a_code_that_nobody_used_is_good_after_a_restart(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.start()
    load(daemon, seal(A), "--period=120")
    code = current(daemon, A)
    end(daemon, how)
    daemon.start()
    assert verify(daemon, code) == "valid"


@both
def test_a_removed_account_stays_away(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.start()
    load(daemon, seal(A))
    assert daemon.ctl("remove", "default").returncode == 0
    end(daemon, how)
    daemon.start()
    assert daemon.ctl("accounts").stdout == ""


@pytest.mark.parametrize("how", ["stop", "kill", None])
def test_remove_and_load_makes_no_code_good_twice(daemon: Daemon, seal: Seal, how: str | None) -> None:
    daemon.start()
    load(daemon, seal(A), "--period=120")
    code = current(daemon, A)
    assert verify(daemon, code) == "valid"
    assert daemon.ctl("remove", "default").returncode == 0
    if how:
        end(daemon, how)
        daemon.start()
    load(daemon, seal(A), "--period=120")
    assert verify(daemon, code) == "invalid"


@pytest.mark.parametrize("how", ["stop", "kill", None])
def test_a_to_b_to_a_makes_no_code_good_twice(daemon: Daemon, seal: Seal, how: str | None) -> None:
    daemon.start()
    load(daemon, seal(A), "--period=120")
    code = current(daemon, A)
    assert verify(daemon, code) == "valid"
    load(daemon, seal(B), "--period=120", "--replace")
    assert verify(daemon, current(daemon, B)) == "valid"
    if how:
        end(daemon, how)
        daemon.start()
    load(daemon, seal(A), "--period=120", "--replace")
    assert verify(daemon, code) == "invalid"


def test_a_code_of_the_seed_is_spent_under_another_name_too(daemon: Daemon, seal: Seal) -> None:
    daemon.start()
    load(daemon, seal(A), "--period=120")
    code = current(daemon, A)
    assert verify(daemon, code) == "valid"
    assert daemon.ctl("remove", "default").returncode == 0
    load(daemon, seal(A), "--period=120", "--account=renamed")
    assert daemon.ctl("verify", code, "--account=renamed").stdout == "invalid\n"


@both
def test_the_minute_log_goes_on_where_it_was(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.deliver("default", seal(A))
    daemon.start()
    assert daemon.ctl("generate").returncode == 0  # by now the first line is written
    before = daemon.codes_log.read_text()
    assert "2FA Code" in before
    end(daemon, how)
    daemon.start()
    assert daemon.ctl("generate").returncode == 0
    after = daemon.codes_log.read_text()
    assert after.startswith(before)
    minutes = [line[:16] for line in after.splitlines()]
    assert len(set(minutes)) == len(minutes)


def test_a_code_that_many_connections_bring_at_once_is_accepted_once(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("default", seal(A))
    daemon.start()
    code = current(daemon, A)
    request = msgpack.packb([REQUEST, 1, "verify", [{"code": code}]])
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(connect(daemon.socket)) for _ in range(200)]
        for peer in peers:
            peer.send_bytes(request[:-1])
        for peer in peers:  # the last byte of each, one right after the other
            peer.send_bytes(request[-1:])
        verdicts = [peer.receive()[3]["valid"] for peer in peers]
    assert verdicts.count(True) == 1
