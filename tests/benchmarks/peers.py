"""Servers that stand beside pki2fad: the C limits, and what users would pick instead."""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import accounts, plans
from benchmarks.generator import Failed, Load, Missing, Programs, pin, require
from benchmarks.plans import Asked, Exchange
from support.daemon import environment

SERVERS = Path(__file__).parent / "servers"

_PATIENCE = 60.0  # seconds for a server to answer


class Peer:
    """A server's process in a directory of its own.

    `command` gives its command line, for the path of its socket, and writes what it reads before.
    """

    def __init__(self, root: Path, command: Callable[["Peer"], Sequence[str]], **env: str) -> None:
        self.root = root
        self.address = str(root / "s")
        self._command = command
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections. Raises `Missing` and `Failed`."""
        self.root.mkdir()
        command = self._command(self)
        with (self.root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.root, env=environment(self.root, **self._env),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while not self._is_there():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = "; ".join(self._log().splitlines()[-3:])
                raise Failed(f"{os.path.basename(command[0])} does not start: {said}")
            time.sleep(0.01)

    def pin(self, load: Load) -> None:
        """Keep it on its core."""
        assert self._process is not None
        pin(self._process.pid, load.cores[0])

    def tidy(self) -> None:
        """Nothing is to be done after a measurement."""

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def ask(self, request: bytes, is_whole: Callable[[bytes], bool] = bool) -> bytes:
        """The reply to one request, when it is whole. Raises `Failed`."""
        reply = b""
        with self.connected() as connection:
            connection.send(request)
            while not is_whole(reply):
                piece = connection.recv(65536)
                if not piece:
                    raise Failed(f"the server ends its reply after {reply!r}")
                reply += piece
        return reply

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A connection to it. Raises `OSError`."""
        udp = self.address.startswith("udp:")
        family, kind = (socket.AF_INET, socket.SOCK_DGRAM) if udp else (socket.AF_UNIX, socket.SOCK_STREAM)
        with socket.socket(family, kind) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(("127.0.0.1", int(self.address[4:])) if udp else self.address)
            yield connection

    def _is_there(self) -> bool:
        if self.address.startswith("udp:"):
            return "Ready to process requests" in self._log()
        with contextlib.suppress(OSError), self.connected():
            return True
        return False

    def _log(self) -> str:
        return (self.root / "log").read_text(errors="replace")


def echo(root: Path, programs: Programs) -> Peer:
    return Peer(root, lambda peer: [programs.path("echo"), peer.address])


def lookup(root: Path, programs: Programs, asked: Sequence[Asked]) -> Peer:
    def command(peer: Peer) -> list[str]:
        table = peer.root / "table"
        table.write_bytes(plans.lookup_table(asked))
        return [programs.path("lookup"), peer.address, str(table)]

    return Peer(root, command)


class Redis(Peer):
    """Redis in memory alone, filled with the codes of the accounts."""

    def __init__(self, root: Path, asked: Sequence[Asked]) -> None:
        super().__init__(root, lambda peer: _redis(peer.address))
        self._asked = asked

    def start(self) -> None:
        super().start()
        for request, reply, _ in plans.redis_fill(self._asked):
            if self.ask(request) != reply:
                raise Failed("redis does not take a value")


def _redis(address: str) -> list[str]:
    redis = require("redis-server", "redis-server")
    return [redis, "--port", "0", "--unixsocket", address, "--save", "", "--appendonly", "no"]


def naive(root: Path, count: int) -> Peer:
    def command(peer: Peer) -> list[str]:
        return [sys.executable, "-P", str(SERVERS / "naive.py"), peer.address, str(_seeds(peer, count))]

    return Peer(root, command)


def fastapi(root: Path, count: int, *, fast: bool) -> Peer:
    """With what uvicorn brings along, or with what it can use to be `fast`."""

    def command(peer: Peer) -> list[str]:
        _seeds(peer, count)
        ways = ("uvloop", "httptools") if fast else ("asyncio", "h11")
        for module in ("fastapi", "uvicorn", *(ways if fast else ())):
            if importlib.util.find_spec(module) is None:
                raise Missing("pip install '.[bench]'")
        options = [f"--uds={peer.address}", f"--loop={ways[0]}", f"--http={ways[1]}", f"--app-dir={SERVERS}"]
        quiet = ["--no-access-log", "--no-server-header", "--no-date-header", "--log-level=warning"]
        return [sys.executable, "-P", "-m", "uvicorn", *options, *quiet, "oldservice:app"]

    return Peer(root, command, SEEDS=str(root / "seeds"))


def http_plan(peer: Peer, asked: Sequence[Asked]) -> list[Exchange]:
    """The plan of the old service, from one answer that says that the code is wrong. Raises `Failed`."""
    replies = [
        peer.ask(plans.http_request(one), lambda reply: reply.endswith(b"}"))
        for one in (right_one(), asked[0])
    ]
    bodies = [reply.partition(b"\r\n\r\n")[2] for reply in replies]
    if [json.loads(body) for body in bodies] != [{"valid": True}, {"valid": False}]:
        raise Failed(f"the old service answers {replies}")
    return plans.http(asked, replies[1])


def naive_plan(peer: Peer, asked: Sequence[Asked]) -> list[Exchange]:
    """The plan of the naive form, which knows a right code. Raises `Failed`."""
    (request, reply, _) = plans.verify([right_one()])[0]
    if peer.ask(request) != reply:
        raise Failed("the naive form refuses a right code")
    return plans.verify(asked)


def radius_plan(peer: Peer, asked: Sequence[Asked]) -> list[Exchange]:
    """The plan of FreeRADIUS, which knows a right code; many times, since an answer is kept for repeats."""
    (request, reply, _) = plans.radius([right_one()])[0]
    if peer.ask(request) != reply:
        raise Failed("rlm_totp refuses a right code")
    return plans.radius([*asked] * 64)


def right_one() -> Asked:
    """A code that is good now."""
    return Asked(0, accounts.right_codes(accounts.step_now())[0], True)


def _seeds(peer: Peer, count: int) -> Path:
    path = peer.root / "seeds"
    path.write_text(json.dumps({accounts.name(number): accounts.base32(number) for number in range(count)}))
    return path


# All that rlm_totp needs, and nothing that slows it down: no delay of rejects, no accounting, no log.
_RADIUS = """\
name = freeradius
raddbdir = {root}
logdir = {root}
run_dir = {root}
libdir = /usr/lib/freeradius
max_requests = 65536
cleanup_delay = 0
security {{
    reject_delay = 0
    max_attributes = 200
}}
thread pool {{
    start_servers = 4
    max_servers = 4
    min_spare_servers = 1
    max_spare_servers = 4
    max_requests_per_server = 0
}}
client localhost {{
    ipaddr = 127.0.0.1
    secret = {secret}
    limit {{
        max_connections = 0
    }}
}}
modules {{
    files {{
        usersfile = {root}/users
    }}
    totp {{
    }}
}}
server default {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        files
        update request {{
            &TOTP-Password := &User-Password
        }}
    }}
    authenticate {{
        Auth-Type TOTP {{
            totp
        }}
    }}
}}
"""


def freeradius(root: Path, count: int) -> Peer:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def command(peer: Peer) -> list[str]:
        server = require("freeradius", "freeradius")
        users = (
            f'{accounts.name(number)} TOTP-Secret := "{accounts.base32(number)}", Auth-Type := TOTP\n'
            for number in range(count)
        )
        (peer.root / "users").write_text("".join(users))
        settings = _RADIUS.format(root=peer.root, secret=plans.RADIUS_SECRET.decode(), port=port)
        (peer.root / "radiusd.conf").write_text(settings)
        peer.root.chmod(0o755)
        return [server, "-f", "-l", "stdout", "-d", str(peer.root), "-n", "radiusd"]

    peer = Peer(root, command)
    peer.address = f"udp:{port}"
    return peer
