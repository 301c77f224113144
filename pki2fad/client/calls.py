"""What both clients share: the calls and what comes of their answers, and the way to the daemon.

This module is on the client's path.
"""

import os
import socket
import sys

from pki2fad.errors import REFUSALS, BadRequest, Busy, Internal, NobodyListens, NotReachable, ProtocolError
from pki2fad.host import paths
from pki2fad.wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")
    Call = tuple[str, dict[str, Any], Callable[[Any], T]]  # method, arguments, what takes the result apart

_BUSY = "too many others wait to be let in"

DEFAULT_TIMEOUT = 5.0  # seconds for one call; the daemon answers in far less than a millisecond
READ_SIZE = 64 * 1024

_ACCOUNT_FIELDS = ("account", "algorithm", "digits", "period", "last_used", "offset", "drift", "successor")


class Code:
    """A code, and for how long it is good. Its repr does not show it."""

    __slots__ = ("code", "step", "valid_for")

    def __init__(self, code: str, valid_for: int, step: int) -> None:
        self.code = code  # 6 to 8 digits
        self.valid_for = valid_for  # whole seconds, at least 1
        self.step = step  # T of RFC 6238

    def __repr__(self) -> str:
        return f"Code(valid_for={self.valid_for}, step={self.step})"


class Enrolment:
    """A seed that waits for its first code. Its repr does not show it."""

    __slots__ = ("account", "algorithm", "digits", "expires_in", "period", "seed")

    def __init__(
        self, account: str, seed: bytearray, algorithm: str, digits: int, period: int, *, expires_in: int
    ) -> None:
        self.account = account  # that it is to be: the caller's user name
        self.seed = seed
        self.algorithm = algorithm  # SHA1, SHA256 or SHA512
        self.digits = digits
        self.period = period  # seconds
        self.expires_in = expires_in  # seconds for which it waits

    def __repr__(self) -> str:
        return f"Enrolment({self.account!r})"


class Account:
    """What the daemon says of an account."""

    __slots__ = _ACCOUNT_FIELDS

    def __init__(
        self,
        account: str,
        algorithm: str,
        digits: int,
        period: int,
        last_used: int | None,
        *,
        offset: int,
        drift: "list[int]",
        successor: "dict[str, Any] | None",
    ) -> None:
        self.account = account
        self.algorithm = algorithm  # SHA1, SHA256 or SHA512
        self.digits = digits
        self.period = period  # seconds
        self.last_used = last_used  # Unix time at which the last accepted step began, None if none was
        self.offset = offset  # steps by which the prover is ahead, as `resync` found
        self.drift = drift  # steps by which it was ahead at its last acceptances, the latest last
        self.successor = successor  # algorithm, digits, period, deadline (Unix time or None) and cutover

    def __repr__(self) -> str:
        return f"Account({self.account!r})"


def generate(account: str) -> "Call[Code]":
    """The current code of an account."""
    return (
        "generate",
        {"account": account},
        lambda result: Code(result["code"], result["valid_for"], result["step"]),
    )


def verify(code: str, account: str, origin: str | None) -> "Call[bool]":
    """Whether a code is good."""
    args = {"account": account, "code": code}
    if origin is not None:  # it needs a role of its own
        args["origin"] = origin
    return ("verify", args, lambda result: result["valid"] is True)


def load(
    sealed: bytes,
    account: str | None,
    *,
    algorithm: str | None = None,
    digits: int | None = None,
    period: int | None = None,
    replace: bool = False,
    successor: bool = False,
    deadline: int | None = None,
    cutover: bool = False,
) -> "Call[tuple[str, bool]]":
    """Load a sealed seed. Gives the account, which the seed may name, and whether it changed."""
    arguments: dict[str, Any] = {"sealed": sealed, "replace": replace}
    said = {"account": account, "algorithm": algorithm, "digits": digits, "period": period}
    arguments |= {name: value for name, value in said.items() if value is not None}
    if successor:
        arguments["successor"] = True
    if deadline is not None:
        arguments["deadline"] = deadline
    if cutover:
        arguments["cutover"] = True
    return ("load", arguments, lambda result: (str(result["account"]), result["changed"] is True))


def load_batch(batch: bytes, *, replace: bool) -> "Call[dict[str, Any]]":
    """Load the seeds of a batch."""
    return ("load_batch", {"batch": batch, "replace": replace}, _loaded)


def remove(account: str) -> "Call[None]":
    """Remove an account."""
    return ("remove", {"account": account}, lambda _: None)


def accounts() -> "Call[list[Account]]":
    """All accounts that the caller administers."""
    return (
        "accounts",
        {},
        lambda rows: [Account(**{name: row[name] for name in _ACCOUNT_FIELDS}) for row in rows],
    )


def resync(first: str, second: str, account: str) -> "Call[int]":
    """Follow a prover whose clock is off."""
    arguments = {"account": account, "first": first, "second": second}
    return ("resync", arguments, lambda result: int(result["offset"]))


def verify_explained(code: str, account: str, origin: str | None) -> "Call[dict[str, Any]]":
    """Whether a code is good, and why not."""
    method, args, _ = verify(code, account, origin)
    return (method, {**args, "explain": True}, lambda result: {"reason": None, **result})


def throttled(account: str | None, uid: int | None, origin: str | None) -> "Call[dict[str, Any]]":
    """Callers that have to wait after wrong codes."""
    arguments = {"account": account, "uid": uid, "origin": origin}
    given = {name: value for name, value in arguments.items() if value is not None}
    return ("throttled", given, lambda result: {**result})


def unthrottle(account: str, *, force: bool) -> "Call[int]":
    """Let all callers of an account try again at once, after wrong codes."""
    return ("unthrottle", {"account": account, "force": force}, lambda result: int(result["left"]))


def enroll() -> "Call[Enrolment]":
    """A seed for the caller's own account."""
    return ("enroll", {}, _enrolment)


def enroll_confirm(code: str) -> "Call[bool]":
    """The first code of that seed."""
    return ("enroll_confirm", {"code": code}, lambda result: result["valid"] is True)


def lock() -> "Call[None]":
    """Let no key stay in the daemon's memory."""
    return ("lock", {}, lambda _: None)


def unlock(passphrase: str | None) -> "Call[None]":
    """Take the keys into the daemon's memory."""
    return ("unlock", {} if passphrase is None else {"passphrase": passphrase}, lambda _: None)


def rotate(private: bytes) -> "Call[str]":
    """Take up another host key."""
    return ("rotate", {"private": private}, lambda result: str(result["fingerprint"]))


def rotate_finish(fingerprint: str) -> "Call[list[str]]":
    """Let this host key alone open the state."""
    return ("rotate_finish", {"fingerprint": fingerprint}, lambda result: [*result["dropped"]])


def recipients() -> "Call[list[dict[str, Any]]]":
    """Who can open the state."""
    return ("recipients", {}, lambda rows: [{**row} for row in rows])


def backup(to: bytes) -> "Call[bytes]":
    """All accounts, sealed to these public keys."""
    return ("backup", {"to": to}, lambda result: bytes(result["backup"]))


def restore(data: bytes, *, replace: bool) -> "Iterator[Call[dict[str, Any]]]":
    """Bring a backup back, in parts: the result is that of the last call."""
    upload, size = os.urandom(16).hex(), messages.PART_LIMIT
    for offset in range(0, max(1, len(data)), size):
        arguments = {
            "upload": upload,
            "offset": offset,
            "part": data[offset : offset + size],
            "last": offset + size >= len(data),
            "replace": replace,
        }
        yield ("restore", arguments, lambda result: {**result})


def clock_accept() -> "Call[dict[str, Any]]":
    """Say that the clock is right now."""
    return ("clock_accept", {}, lambda result: {**result})


def status() -> "Call[dict[str, Any]]":
    """What anybody may know of the daemon."""
    return ("status", {}, lambda result: {**result})


def metrics() -> "Call[dict[str, Any]]":
    """What a monitor may know of the daemon."""
    return ("metrics", {}, lambda result: {**result})


def encode(msgid: int, call: "Call[T]") -> bytes:
    """The bytes of a call's request. Raises `BadRequest` for arguments that cannot be sent."""
    method, arguments, _ = call
    try:
        return messages.encode_request(msgid, method, arguments)
    except (OverflowError, TypeError, ValueError) as error:
        raise BadRequest(f"an argument cannot be sent: {error}") from None


def result(call: "Call[T]", response: messages.Response) -> "T":
    """What the call returns. Raises the daemon's `Refusal`, or `ProtocolError`."""
    if response.error is not None:
        raise _refusal(response.error)
    _, _, convert = call
    try:
        return convert(response.result)
    except (KeyError, TypeError, ValueError):
        raise ProtocolError("the daemon's answer is not of the form that PROTOCOL.md gives") from None


def connect(
    path: str | None, servers: "Container[int] | None" = None, patience: float = 0.0
) -> socket.socket:
    """A connection to the daemon, not blocking.

    Without `path` the places where a daemon may be are tried in order. With `servers` a socket that
    another uid serves is as good as none. Where others' connections wait to be accepted, this waits for so
    many seconds at each place. Raises `NotReachable`, which lists what was tried, and where there was
    nothing but sockets on which nobody listens `NobodyListens`, and with a busy one among them `Busy`.
    """
    tried = []
    kind: type[NotReachable] = NobodyListens
    for place in [path] if path else paths.client_sockets():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if patience > 0:
                seconds, fraction = divmod(patience, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds, fraction))
            connection.setblocking(patience > 0)
            connection.connect(place)
        except OSError as error:
            connection.close()
            tried.append(
                f"{place} ({_BUSY if isinstance(error, BlockingIOError) else error.strerror or error})"
            )
            if isinstance(error, BlockingIOError):
                kind = Busy
            elif not isinstance(error, FileNotFoundError | ConnectionRefusedError) and kind is not Busy:
                kind = NotReachable
        else:
            connection.setblocking(False)
            uid = _server_uid(connection)
            if servers is None or uid in servers:
                return connection
            connection.close()
            tried.append(f"{place} (uid {uid} listens there, and is not trusted)")
            kind = Busy if kind is Busy else NotReachable
    raise kind(f"no daemon answers; tried {', '.join(tried)}")


def _timeval(seconds: float, fraction: float) -> bytes:
    """A struct timeval, at least a microsecond: 0 would be for ever."""
    parts = (int(seconds), max(1, int(fraction * 1_000_000)))
    return b"".join(part.to_bytes(8, sys.byteorder) for part in parts)


def _server_uid(connection: socket.socket) -> int:
    """The uid of the process that listens, as the kernel attests it (struct ucred: pid, uid, gid)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def is_dead(connection: socket.socket) -> bool:
    """True if the other side has closed it, or sent something that nobody asked for."""
    connection.setblocking(False)  # with a time-out Python itself would wait
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _loaded(result: "Any") -> "dict[str, Any]":
    accounts, changed = result["accounts"], result["changed"]
    if (
        type(accounts) is not int
        or type(changed) is not list
        or any(type(name) is not str for name in changed)
    ):
        raise TypeError
    return {"accounts": accounts, "changed": changed}


def _enrolment(result: "Any") -> Enrolment:
    return Enrolment(
        result["account"],
        bytearray.fromhex(result["seed"]),
        result["algorithm"],
        result["digits"],
        result["period"],
        expires_in=result["expires_in"],
    )


def _refusal(error: "Any") -> Exception:
    """The exception for an error as it came over the wire."""
    if type(error) is not list or len(error) < 2 or type(error[0]) is not str or type(error[1]) is not str:
        return ProtocolError("the daemon's error is not of the form that PROTOCOL.md gives")
    code, message = error[0], error[1]
    retry_after = error[2] if len(error) > 2 and type(error[2]) is int else None
    refusal = REFUSALS.get(code, Internal)(message.removeprefix(f"{code}: "), retry_after)
    refusal.is_answer = True
    return refusal
