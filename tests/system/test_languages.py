"""The clients that PROTOCOL.md prints, and one that was made for another program: neovim's, from npm."""

import base64
import json
import threading
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.clients import Clients
from support.daemon import PATIENCE, Daemon
from support.languages import Programs, answering, block, run
from support.raw import RESPONSE, Listener, RawPeer, Seed, connect

from pki2fad.crypto.rsakeys import PrivateKey

pytestmark = pytest.mark.slow  # clients in other languages

LABELS = ("node", "c", "shell")
VERIFIERS = ("c", "shell")  # the programs that only verify
REFUSED = {"node": 1, "c": 2, "shell": 2}  # their exit codes
NO_ANSWER = {"node": 3, "c": 2, "checked c": 2, "shell": 2}

VALID = msgpack.packb([RESPONSE, 1, None, {"valid": True}])
REFUSAL = msgpack.packb([RESPONSE, 1, ["unavailable", "unavailable: the state cannot be written", 30], None])
RESULT = b"\x94\x01\x01\xc0"  # what goes before it
ERROR = b"\x94\x01\x01"

HOSTILE = {
    "nothing": b"",
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "the byte that is never used": b"\xc1",
    "a request": msgpack.packb([0, 1, "verify", []]),
    "another msgid": msgpack.packb([RESPONSE, 2, None, {"valid": True}]),
    "a notification": msgpack.packb([2, "verify", []]),
    "a giant array": RESULT + b"\xdd\xff\xff\xff\xff",
    "a giant map": RESULT + b"\xdf\xff\xff\xff\xff",
    "a giant string": RESULT + b"\xdb\xff\xff\xff\xff" + b"x" * 5000,
    "giant arrays in each other": RESULT + b"\xdd\xff\xff\xff\xff" * 10_000,
    "arrays in each other": RESULT + b"\x91" * 200_000,
    "an error without its end": ERROR + b"\x92\xbf" + b"x" * 31 + b"\xd9\xff" + b"x" * 254,
    "an error of giants": ERROR + b"\x92\xdb\xff\xff\xff\xff",
    **{f"{size} bytes of a result": VALID[:size] for size in range(1, len(VALID), 3)},
    **{f"{size} bytes of a refusal": REFUSAL[:size] for size in range(4, len(REFUSAL) - 4, 7)},
}


@pytest.fixture
def seed(lasting: Daemon, host_key: PrivateKey) -> Seed:
    """A new seed, loaded as the account `default`."""
    return loaded(lasting, host_key, "default")


def loaded(daemon: Daemon, key: PrivateKey, account: str) -> Seed:
    seed = Seed()
    with connect(daemon.socket) as peer:
        peer.call("load", account=account, sealed=seed.sealed(key), replace=True)
    return seed


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("programs"))


def verify(label: str, code: str, account: str) -> list[str]:
    """The arguments for that."""
    return ["verify", f"code={code}", f"account={account}"] if label == "node" else [code, account]


def result(command: list[str], path: object, *arguments: str) -> Any:
    """The result that it prints."""
    done = run(command, path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("label", LABELS)
def test_a_client_has_fewer_than_40_lines(label: str) -> None:
    assert len(block(label).splitlines()) < 40


def test_node_reads_every_form_of_what_results_are_made_of(programs: Programs, short_path: Path) -> None:
    binary = [bytes(size) for size in (0, 2**8 - 1, 2**8, 2**16 - 1, 2**16)]
    numbers = [-128, -33, -32, -1, 0, 127, 128, 2**8 - 1, 2**8, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**53]
    texts = [size * "x" for size in (0, 31, 32, 255, 256, 2**16 - 1, 2**16)] + ["äöü€"]
    arrays = [[True] * size for size in (0, 15, 16, 2**16 - 1, 2**16)]
    maps = [{str(key): key for key in range(size)} for size in (0, 15, 16, 2**16 - 1, 2**16)]
    expected = [None, False, True, numbers, texts, arrays, maps, binary]
    shown = [*expected[:-1], [base64.b64encode(each).decode() for each in binary]]
    longest = b"\xdd\0\0\0\4\xcf" + bytes(7) + b"\1\xce\0\0\0\1\xc0\xdf\0\0\0\1\xdb\0\0\0\1a\xda\0\1b"
    answers = [msgpack.packb([RESPONSE, 1, None, expected]), longest]
    with answering(short_path / "socket", answers, []) as server:
        assert result(programs["node"], server.path, "status") == shown
        assert result(programs["node"], server.path, "status") == {"a": "b"}


@pytest.mark.parametrize("label", VERIFIERS)
def test_a_code_is_valid_once(label: str, programs: Programs, lasting: Daemon, seed: Seed) -> None:
    code = seed.code()
    for expected in (0, 1):
        done = run(programs[label], lasting.socket, code)
        assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")


@pytest.mark.parametrize("label", VERIFIERS)
def test_an_account_can_be_named(
    label: str, programs: Programs, lasting: Daemon, seed: Seed, host_key: PrivateKey
) -> None:
    other = loaded(lasting, host_key, "other")
    assert run(programs[label], lasting.socket, other.code(), "other").returncode == 0
    assert run(programs[label], lasting.socket, seed.code(), "default").returncode == 0


@pytest.mark.parametrize("label", LABELS)
def test_a_refusal_is_told(label: str, programs: Programs, lasting: Daemon, seed: Seed) -> None:
    done = run(programs[label], lasting.socket, *verify(label, seed.code(), "nobody"))
    assert (done.returncode, done.stdout) == (REFUSED[label], "")
    assert "no_such_account: there is no account 'nobody'\n" in done.stderr


@pytest.mark.parametrize("label", LABELS)
def test_without_a_daemon_there_is_no_answer(label: str, programs: Programs, short_path: Path) -> None:
    done = run(programs[label], short_path / "socket", *verify(label, "123456", "default"))
    assert (done.returncode, done.stdout) == (NO_ANSWER[label], "")
    assert str(short_path / "socket") in done.stderr


@pytest.mark.parametrize("label", LABELS)
def test_a_daemon_that_hangs_is_given_up(label: str, programs: Programs, short_path: Path) -> None:
    left = threading.Event()

    def hang(peer: RawPeer, _number: int) -> None:
        peer.receive()
        assert left.wait(PATIENCE)

    with Listener(short_path / "socket", hang) as server:
        done = run(programs[label], server.path, *verify(label, "123456", "default"))
        left.set()
    assert (done.returncode, done.stdout) == (NO_ANSWER[label], "")
    assert "no answer" in done.stderr or "no whole answer" in done.stderr


@pytest.mark.parametrize("label", LABELS)
def test_an_empty_variable_names_no_socket(label: str, programs: Programs) -> None:
    # What a C program connects to that has an empty text there, in the place of the usual path: a name
    # in the abstract space, which anybody may take.
    abstract = "\0run/pki2fad/socket".ljust(108, "\0")
    requests: list[Any] = []
    with answering(abstract, [VALID], requests):
        done = run(programs[label], "", *verify(label, "123456", "default"))
    assert done.returncode != 0
    assert requests == []


@pytest.mark.parametrize("label", LABELS)
def test_what_cannot_be_meant_is_not_sent(label: str, programs: Programs, short_path: Path) -> None:
    requests: list[Any] = []
    with answering(short_path / "socket", [VALID] * 2, requests) as server:
        for arguments in ([], ["verify", "code"] if label == "node" else ["1" * 256]):
            done = run(programs[label], server.path, *arguments)
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr
    assert requests == []


@pytest.mark.parametrize("label", [*LABELS, "bash"])
def test_arguments_arrive_as_they_are(label: str, programs: Programs, short_path: Path) -> None:
    codes = ["", "1", "%s%n", "\\061\\0", "$(id) `id` ${HOME} *", "-e", "'\"\n\t", "ä€", "1" * 255]
    requests: list[Any] = []
    with answering(short_path / "socket", [VALID] * len(codes), requests) as server:
        for code in codes:
            assert run(programs[label], server.path, *verify(label, code, "a b")).returncode == 0
    assert requests == [[0, 1, "verify", [{"code": code, "account": "a b"}]] for code in codes]


@pytest.mark.parametrize("label", ["node", "checked c", "shell"])
def test_what_is_no_answer_is_not_taken_for_one(label: str, programs: Programs, short_path: Path) -> None:
    taken = {}
    with answering(short_path / "socket", list(HOSTILE.values()), []) as server:
        for name in HOSTILE:
            done = run(programs[label], server.path, *verify(label, "123456", "default"))
            if (done.returncode, done.stdout) != (NO_ANSWER[label], ""):
                taken[name] = done
    assert taken == {}


@pytest.mark.parametrize("label", ["checked c", "shell"])
def test_no_other_result_is_taken_for_a_verdict(label: str, programs: Programs, short_path: Path) -> None:
    others = [
        {"valid": None},
        {"valid": 1},
        {"valid": "yes"},
        {"found": True},
        {"valid": True, "late": True},
        True,
    ]
    answers = [msgpack.packb([RESPONSE, 1, None, other]) for other in others]
    with answering(short_path / "socket", answers, []) as server:
        assert [run(programs[label], server.path, "123456").returncode for _ in answers] == [2] * len(others)


def test_what_neovims_client_asks_first_does_not_end_its_connection(
    clients: Clients, lasting: Daemon, short_path: Path
) -> None:
    passed: list[Any] = []

    def pass_on(client: RawPeer, _number: int) -> None:
        with connect(lasting.socket) as daemon:
            for request in client.messages():
                daemon.send(request)
                passed.append((request, daemon.receive()))
                client.send(passed[-1][1])

    path = short_path / "socket"
    with Listener(path, pass_on), clients.asking("neovim", path) as ask:
        answer = ask("status")
    (first, refused), (second, answered) = passed
    assert (first[2:], refused[2][0], refused[3]) == (["nvim_get_api_info", []], "unknown_method", None)
    assert (second[2:], answered[2]) == (["status", [{}]], None)
    assert answer == (None, answered[3])


@pytest.mark.usefixtures("seed")
def test_the_program_with_neovims_client_prints_what_it_says(clients: Clients, lasting: Daemon) -> None:
    done = run(clients.printed("neovim"), lasting.socket)
    assert (done.stdout, done.stderr) == ("true\nfalse\n", "")
