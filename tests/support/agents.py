"""An agent in memory with real keys, and what it stands on: a state file, a small disk, the log."""

import binascii
import contextlib
import hmac
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack

from pki2fad.crypto import sealing, seedsizes
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.daemon.minutelog import MinuteLog
from pki2fad.errors import BadSeal
from pki2fad.host import log
from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Access, Peer, Rule
from pki2fad.rules.changes import REJECTED, Answer, Change, Edit, Steps, Work
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import finish
from pki2fad.rules.throttle import Throttle
from pki2fad.server.longwork import Changing
from pki2fad.state.store import Store
from pki2fad.transfer import backup
from pki2fad.transfer.content import Content
from pki2fad.wire.messages import Encoded, Request
from support.peers import missing, require, require_root
from support.stores import keep

SEED = b"12345678901234567890"  # of RFC 4226 and RFC 6238
OTHER_SEED = b"09876543210987654321"

# With SEED and the usual parameters there is a step after this one whose code is also the next step's.
BEFORE_SHARED_CODE = 57_766_300

USUAL = Parameters()
ROOT = Peer(1, 0, frozenset({0}))
STRANGER = Peer(2, 4711, frozenset({4711}))
STARTED = Reading(wall=1_700_000_000.0, boot=1_000.0)


def at(wall: float) -> Reading:
    """A reading at this Unix time, from one boot."""
    return Reading(wall, STARTED.boot + max(0.0, wall - STARTED.wall))


def at_step(step: int, period: int = USUAL.period) -> Reading:
    """A reading in the middle of a step."""
    return at(step * period + period / 2)


def reference_code(seed: bytes, step: int, parameters: Parameters = USUAL) -> str:
    """The code of a step by RFC 4226 section 5.3, written again: "" before the first step.

    What our codes are held against where a process of oathtool for each would take too long; a test
    holds it against oathtool.
    """
    if step < 0:
        return ""
    mac = hmac.digest(seed, step.to_bytes(8, "big"), parameters.algorithm.lower())
    start = mac[-1] & 0x0F
    number = int.from_bytes(mac[start : start + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**parameters.digits).zfill(parameters.digits)


# A step far from any other that tests name, a reading in it, and the code of SEED.
STEP = 50_000_000
NOW = at_step(STEP)
CODE = reference_code(SEED, STEP)


def oathtool_code(seed: bytes, wall: float, parameters: Parameters = USUAL) -> str:
    """The code that oathtool makes for this time."""
    command = [
        require("oathtool"),
        f"--totp={parameters.algorithm}",
        f"--digits={parameters.digits}",
        f"--time-step-size={parameters.period}s",
        f"--now=@{int(wall)}",
        seed.hex(),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def oathtool_hotp(seed: bytes, counter: int, digits: int = 6) -> str:
    """The code that oathtool makes for this counter."""
    command = [
        require("oathtool"),
        "--hotp",
        f"--digits={digits}",
        f"--counter={counter}",
        seed.hex(),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def shared_step() -> int:
    """A step whose code, with SEED, is also that of the next step, by search."""
    step = BEFORE_SHARED_CODE
    while reference_code(SEED, step) != reference_code(SEED, step + 1):
        step += 1
    return step


def sealed(seed: bytes) -> bytes:
    """What `open_plain` opens: where RSA is not what is tested, the digits stand for a sealed seed."""
    return binascii.hexlify(seed)


def open_plain(text: bytes) -> bytearray:
    """The seed of `sealed`. Raises `BadSeal`."""
    try:
        return sealing.seed_from_hex(text, seedsizes.SHORT)
    except ValueError:
        raise BadSeal("this does not open to a seed") from None


def make_keyring(
    seeds: Mapping[str, bytes] | None = None, parameters: Parameters = USUAL, master: MasterKey | None = None
) -> Keyring:
    """A keyring under a real master key, with an account for each seed."""
    keyring = Keyring(master or MasterKey())
    for name, seed in (seeds or {}).items():
        keyring.put(keyring.seal(name, bytearray(seed), parameters))
    return keyring


def add_authenticators(keyring: Keyring, seeds: Iterable[bytes], parameters: Parameters = USUAL) -> None:
    """Give the account `default` one more for each seed, with the labels `1`, `2` and so on."""
    for number, seed in enumerate(seeds, 1):
        account = keyring.accounts["default"]
        new = keyring.seal("default", bytearray(seed), parameters, label=str(number))
        keyring.put(account.with_authenticator(new))


def make_agent(
    keyring: Keyring,
    rules: Iterable[Rule] = (),
    own_uid: int = 0,
    *,
    throttle: Throttle | None = None,
    open_sealed: Callable[[bytes], bytearray] = open_plain,
    watch: Watch | None = None,
) -> Agent:
    """An agent over this keyring that loads what `sealed` made; it throttles only if that is tested."""
    throttle = throttle or no_throttle()
    access = Access(rules, own_uid, Users())
    keys = OpenKeys(keyring, open_sealed)
    return Agent(keyring, access, throttle, watch or no_watch(), keys=keys, started=STARTED)


def packed(content: Content, slots: Mapping[str, bytes], master: MasterKey) -> bytes:
    """A backup, made at once."""
    return b"".join(finish(backup.pack(content, slots, master)))


def unpacked(data: bytes, master: MasterKey) -> Content:
    """What is in a backup, read at once."""
    return finish(backup.unpack(data, master))


class OpenKeys:
    """Keys that need no file: `close` locks the keyring, and `unlock` gives it another master key."""

    def __init__(self, keyring: Keyring, open_sealed: Callable[[bytes], bytearray]) -> None:
        self._keyring = keyring
        self.open_sealed = open_sealed

    def new_seed(self) -> bytearray:
        return bytearray(os.urandom(32))

    def unlock(self, _passphrase: str | None) -> Steps[None]:
        self._keyring.unlock(MasterKey())
        yield

    def close(self) -> None:
        self._keyring.lock()

    def is_cheap(self) -> bool:
        return False


def no_watch() -> Watch:
    """A watch that believes no time yet: for tests that go to and fro in time."""
    return Watch(0.0, (), (), Reading(0.0, STARTED.boot))


def no_throttle() -> Throttle:
    """For tests of something else that need many wrong codes."""
    throttle = Throttle(b"secret", (), STARTED)
    throttle.enabled = False
    return throttle


def call(
    agent: Agent, method: str, peer: Peer, reading: Reading, *, store: Store | None = None, **args: Any
) -> Any:
    """The result that a client gets, once its change is kept and applied as the server does it.

    Raises the `Refusal`, and `UnusableState` if nothing could be kept.
    """

    def keep_one(change: Change) -> list[bool]:
        return [True] if store is None else keep(store, [change])

    answer = answer_to(agent, Request(1, method, args), peer, reading, keep_one)
    kept = True
    if answer.change is not None:
        (kept,) = keep_one(answer.change)
        if isinstance(answer.change, Edit):
            agent.memory.apply(answer.change)
    if answer.refusal is not None:
        raise answer.refusal
    return answer.result if kept else REJECTED


def answer_to(
    agent: Agent, request: Request, peer: Peer, reading: Reading, keep: Callable[[Change], object]
) -> Answer:
    """The agent's answer; long work is done at once, with what it changes, and its result is decoded."""
    answer = agent.handle(request, peer, reading)
    if answer.work is not None:
        answer = carried_out(agent, answer.work, reading, keep)
    if isinstance(answer.result, Encoded):
        answer.result = msgpack.unpackb(b"".join(answer.result.parts))
    return answer


def carried_out(agent: Agent, work: Work, reading: Reading, keep: Callable[[Change], object]) -> Answer:
    """The answer of a long work, where nobody waits and time stands still. Raises what it raises."""
    changing = Changing(
        contextlib.nullcontext, agent.memory.applied, lambda: agent.memory.version, lambda: reading
    )
    steps = changing.steps(work)
    result: Any = None
    failure: Exception | None = None
    while True:
        try:
            wanted = steps.send(result) if failure is None else steps.throw(failure)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # it is an Answer
        result = failure = None
        if wanted is not None:
            try:
                if callable(wanted):
                    result = wanted()
                else:
                    keep(wanted)
            except Exception as error:  # as in the thread: the work gets it
                failure = error


def is_valid(agent: Agent, code: str, reading: Reading, *, store: Store | None = None, **args: Any) -> bool:
    """Root's `verify`."""
    result = call(agent, "verify", ROOT, reading, store=store, code=code, **args)
    assert result in ({"valid": True}, {"valid": False})
    return bool(result["valid"])


def filled(store: Store, master: MasterKey | None, reading: Reading, boot_id: str | None) -> Keyring:
    """The keyring of a state file, as the service fills it at a start."""
    store.begin_boot(boot_id, reading)
    keyring = Keyring(master)
    for account in store.accounts():
        keyring.put(account)
    keyring.gone.update(store.gone())
    keyring.ids.update(store.ids())
    keyring.raise_floors(store.floors())
    return keyring


def boot(store: Store, master: MasterKey, reading: Reading, boot_id: str | None) -> Agent:
    """An agent over a state file."""
    keyring = filled(store, master, reading, boot_id)
    agent = make_agent(keyring)
    agent.memory.file_digests.update(store.file_digests())
    return agent


@contextlib.contextmanager
def booted(
    path: Path, master: MasterKey, reading: Reading, boot_id: str | None = "this boot"
) -> Iterator[tuple[Agent, Store]]:
    """The agent of `boot` and its store, which is closed at the end."""
    with contextlib.closing(Store(str(path))) as store:
        yield boot(store, master, reading, boot_id), store


class Syncs:
    """Sees, from the statements that a store runs, which of its commits are synced to the disk."""

    def __init__(self, store: Store) -> None:
        self._full = self._in_transaction = False
        self._count = 0
        store.file.database.set_trace_callback(self._see)

    def count(self) -> int:
        """How many there were since this was asked last."""
        count, self._count = self._count, 0
        return count

    def _see(self, statement: str) -> None:
        if statement.startswith("PRAGMA synchronous=") and not self._in_transaction:
            self._full = statement.endswith("FULL")
        elif statement.startswith("BEGIN"):
            self._in_transaction = True
        elif statement in ("COMMIT", "ROLLBACK"):
            self._in_transaction = False
            self._count += self._full and statement == "COMMIT"


def write_due(log: MinuteLog, *walls: float) -> None:
    """Let the minute log write what is due at these readings."""
    for wall in walls:
        log.write_due(at(wall))


def stamp(wall: float) -> str:
    """What a line of the minute log begins with."""
    return datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%d %H:%M:%S")


def code_line(wall: float, seed: bytes = SEED, parameters: Parameters = USUAL) -> str:
    """The minute log's line with the code of this time."""
    return f"{stamp(wall)} - 2FA Code: {reference_code(seed, int(wall) // parameters.period, parameters)}"


@contextlib.contextmanager
def small_disk(directory: Path, size: str = "256k") -> Iterator[Path]:
    """A file system of that size on the directory, until the end of the block; for root only."""
    require_root()
    mount = [require("mount"), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        missing("the right to mount a tmpfs (root in a container may not have it)")
    try:
        yield directory
    finally:
        subprocess.run([require("umount"), "--lazy", directory], check=True)


def fill_disk(path: Path) -> None:
    """Write to the file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(path).f_bavail == 0


def open_below(directory: Path) -> list[str]:
    """The files under the directory that this process has open."""
    links = (f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd"))
    paths = [os.readlink(link) for link in links if os.path.lexists(link)]
    return [path for path in paths if path.startswith(f"{directory}/")]


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that the daemon's log gets in the block, whatever else the log is set to."""
    lines: list[str] = []

    class Lines:
        def write(self, _priority: int, events: Iterable[str]) -> None:
            lines.extend(events)

    log.flush()
    before, log._sink = log._sink, Lines()  # type: ignore[assignment]
    try:
        yield lines
    finally:
        log.flush()
        log._sink = before
