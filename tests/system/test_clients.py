"""Every client that PROTOCOL.md names calls every method that its own limits allow."""

import os
import pwd
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.clients import NAMES, Ask, Clients
from support.daemon import Daemon, short_directory
from support.languages import PROTOCOL
from support.raw import Seed, connect

from pki2fad.crypto import rsakeys
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import batch

pytestmark = pytest.mark.slow  # clients are installed from their registries

_METHODS, _ERRORS = PROTOCOL.split("## Methods")[1].split("## Limits")[0].split("## Errors")
METHODS, ERRORS = (set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)) for part in (_METHODS, _ERRORS))
MANY = 800  # whose list has more than 64 KiB, and comes in several parts
UPLOAD = "0123456789abcdef" * 2


class Caller:
    """What asks with one client, and remembers which methods it asked."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.asked: set[str] = set()

    def call(self, method: str, **arguments: object) -> Any:
        """The result."""
        self.asked.add(method)
        error, result = self.ask(method, **arguments)
        assert error is None, (method, error)
        return result

    def refusal(self, method: str, **arguments: object) -> str:
        """The code of the refusal."""
        self.asked.add(method)
        error, result = self.ask(method, **arguments)
        assert (bool(error), result) == (True, None), (method, result)
        return str(error[0])


@pytest.fixture(params=NAMES)
def caller(request: pytest.FixtureRequest, clients: Clients, daemon: Daemon) -> Iterator[Caller]:
    """One client, and a daemon that lets it do everything."""
    daemon.configure(f'[[access]]\nrole = "enroll"\nwho = [{os.getuid()}]\n')
    daemon.start()
    with clients.asking(request.param, daemon.socket) as ask:
        yield Caller(ask)


@pytest.fixture(scope="module")
def crowded(host_key: PrivateKey) -> Iterator[Daemon]:
    """A daemon with many accounts."""
    with short_directory() as path:
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(host_key))
        with connect(daemon.start().socket) as peer:
            for number in range(0, MANY, 200):
                names = [f"account-{each:050}" for each in range(number, number + 200)]
                peer.call("load_batch", batch=batch_of(names, host_key))
        yield daemon
        daemon.close()


def batch_of(names: list[str], key: PrivateKey) -> bytes:
    with MasterKey() as master:
        seeds = [batch.Unsealed(name, Parameters(), bytearray(os.urandom(32))) for name in names]
        return batch.pack(seeds, master.wrap(key.public_key()), master)


def test_a_client_calls_every_method(
    caller: Caller, daemon: Daemon, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    status = caller.call("status")
    assert (status["pid"], status["ready"], status.get("unavailable_until")) == (daemon.pid, True, None)
    ask_for_codes(caller, host_key)
    follow_a_slow_prover(caller, host_key)
    enrol(caller)
    loaded = caller.call("load_batch", batch=batch_of(["batched"], host_key))
    assert loaded == {"accounts": 1, "changed": ["batched"]}
    assert caller.call("lock") == {"locked": True}
    assert caller.refusal("generate", account="one") == "locked"
    assert caller.call("unlock") == {"locked": False}
    assert abs(caller.call("clock_accept")["time"] - time.time()) < 60
    back_up_and_restore(caller, host_key)
    rotate(caller, host_key, other_key)
    assert caller.call("remove", account="one") == {"account": "one"}
    assert caller.call("metrics")["requests"]["remove"] == {"ok": 1}
    assert caller.asked <= METHODS
    for method in METHODS - caller.asked:  # whatever else there is
        error, _ = caller.ask(method)
        assert error is None or error[0] in ERRORS - {"unknown_method", "internal"}


def test_text_that_comes_as_bin_is_logged_like_any_other(daemon: Daemon, host_key: PrivateKey) -> None:
    seed = Seed()
    with connect(daemon.start().socket) as peer:
        peer.call("load", sealed=seed.sealed(host_key))
        arguments = {b"account": b"default", b"code": b"00000000", b"origin": b"2001:db8::1"}
        assert peer.exchange([b"verify", [arguments]]) == (None, {"valid": False})
    assert daemon.stop() == 0
    (line,) = [line for line in daemon.log().splitlines() if "verify" in line]
    assert "account=default origin=2001:db8::1 valid=False reason=wrong" in line


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"msgpack-rpc-node"}))  # it takes one read at a time
def test_a_client_reads_a_list_that_comes_in_several_parts(
    name: str, clients: Clients, crowded: Daemon
) -> None:
    with clients.asking(name, crowded.socket) as ask:
        error, accounts = ask("accounts")
    assert error is None
    assert [entry["account"] for entry in accounts] == [f"account-{each:050}" for each in range(MANY)]


def ask_for_codes(caller: Caller, key: PrivateKey) -> None:
    seed = Seed("SHA256", 8, 60)
    load = {"account": "one", "sealed": seed.sealed(key), **seed.parameters, "replace": False}
    assert caller.call("load", **load) == {"account": "one", "changed": True, "authenticators": 1}
    assert caller.call("load", **load) == {"account": "one", "changed": False, "authenticators": 1}
    assert caller.refusal("load", account="one", sealed=Seed().sealed(key)) == "account_exists"
    made = caller.call("generate", account="one")
    assert made["code"] == seed.code(made["step"])
    for valid in (True, False):
        assert caller.call("verify", account="one", code=made["code"]) == {"valid": valid}
    assert caller.refusal("verify", account="one", code="12345") == "bad_request"
    assert caller.refusal("generate", account="nobody") == "no_such_account"
    assert caller.call("throttled", account="one")["refusals"] == []
    assert caller.call("unthrottle", account="one")["account"] == "one"
    (listed,) = caller.call("accounts")
    assert listed["drift"] in ([0], [-1])  # a new step may have begun in between
    expected = {"account": "one", **seed.parameters, "last_used": made["step"] * 60, "offset": 0}
    assert expected.items() <= listed.items()


def follow_a_slow_prover(caller: Caller, key: PrivateKey) -> None:
    seed = Seed("SHA1", 8, 120)
    caller.call("load", account="slow", sealed=seed.sealed(key), **seed.parameters)
    step = int(time.time()) // 120
    codes = {"first": seed.code(step - 6), "second": seed.code(step - 5)}
    offset = caller.call("resync", account="slow", **codes)["offset"]
    assert offset in (-5, -6)
    assert ("slow", offset) in [(entry["account"], entry["offset"]) for entry in caller.call("accounts")]


def enrol(caller: Caller) -> None:
    enrolled, seed = caller.call("enroll"), Seed()
    assert enrolled["account"] == pwd.getpwuid(os.getuid()).pw_name
    seed.hex = enrolled["seed"]
    assert caller.call("enroll_confirm", code=seed.code()) == {"valid": True}


def back_up_and_restore(caller: Caller, key: PrivateKey) -> None:
    made = caller.call("backup", to=rsakeys.public_pem(key.public_key()))
    assert made["accounts"] == 4
    data, half = made["backup"], len(made["backup"]) // 2
    assert caller.call("restore", upload=UPLOAD, offset=0, part=data[:half]) == {"received": half}
    restored = caller.call("restore", upload=UPLOAD, offset=half, part=data[half:], last=True)
    assert restored["accounts"] == 4


def rotate(caller: Caller, old: PrivateKey, new: PrivateKey) -> None:
    before, after = (rsakeys.fingerprint(key.public_key()) for key in (old, new))
    assert caller.call("rotate", private=rsakeys.private_pem(new)) == {"fingerprint": after}
    recipients = caller.call("recipients")
    assert {one["fingerprint"]: one["current"] for one in recipients} == {after: True, before: False}
    assert caller.call("rotate_finish", fingerprint=after) == {"dropped": [before]}
