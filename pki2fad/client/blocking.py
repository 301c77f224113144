"""The client that blocks: one call at a time. Import it from `pki2fad.client`."""

import os
import socket
import time
from _thread import allocate_lock  # threading itself would cost as much again as this module

from pki2fad.client import calls
from pki2fad.client.calls import DEFAULT_TIMEOUT, Account, Code, Enrolment
from pki2fad.errors import ConnectionLost, ProtocolError, TimedOut
from pki2fad.wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from pki2fad.client.calls import Call

    T = TypeVar("T")


class Client:
    """A connection to the daemon, opened by the first call and kept.

    `path` is the socket; without it `$PKI2FAD_SOCKET`, the user's own places and the system's are
    tried in order. `timeout` bounds each call as a whole, in seconds. `servers`, where it is given, are
    the uids that may serve the socket: for programs that decide by the answers.

    Every method raises a `Refusal` where the daemon says no (one class for each code of the protocol,
    see `pki2fad.errors`), `NotReachable` where there is no daemon, and `ConnectionLost` (`TimedOut`)
    where a request may have been carried out but its answer did not come. A request that may have
    left is never repeated; a connection that the daemon closed meanwhile, by a restart say, is opened
    again first.

    Threads may share a client: their calls take turns. A forked child opens a connection of its own.
    """

    def __init__(
        self,
        path: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        servers: "Container[int] | None" = None,
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._servers = servers
        self._lock = allocate_lock()
        self._socket: socket.socket | None = None
        self._pid = os.getpid()  # of the process whose connection and lock these are
        self._msgid = 0

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; another call would open a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def generate(self, account: str = "default") -> Code:
        """The current code of an account."""
        return self._call(calls.generate(account))

    def verify(self, code: str, account: str = "default", *, origin: str | None = None) -> bool:
        """Whether a code is good; it is spent then, and not good again (RFC 6238 section 5.2).

        `origin` is for whom a peer with the role `relay` asks, the address of a login say: failures are
        counted for each of them.
        """
        return self._call(calls.verify(code, account, origin))

    def load(
        self,
        sealed: bytes,
        account: str | None = None,
        *,
        algorithm: str | None = None,
        digits: int | None = None,
        period: int | None = None,
        replace: bool = False,
        successor: bool = False,
        deadline: int | None = None,
        cutover: bool = False,
    ) -> bool:
        """Load a sealed seed (as bytes, not base64); False if the account was just so already.

        A `successor` gets into the account's place when the first of its codes is accepted, and the old
        seed is good until then. At `deadline`, a Unix time, the successor is dropped, or with `cutover`
        the old seed.

        `sealed` may also be a batch of one account, which says name and parameters itself; else they are
        `default`, SHA1, 6 digits and 30 seconds where they are not given.
        """
        _, changed = self.load_named(
            sealed,
            account,
            algorithm=algorithm,
            digits=digits,
            period=period,
            replace=replace,
            successor=successor,
            deadline=deadline,
            cutover=cutover,
        )
        return changed

    def load_named(self, sealed: bytes, account: str | None = None, **how: "Any") -> "tuple[str, bool]":
        """Do what `load` does with these arguments; returns the account too, which `sealed` may name."""
        return self._call(calls.load(sealed, account, **how))

    def load_batch(self, batch: bytes, *, replace: bool = False) -> "dict[str, Any]":
        """Load the seeds of a batch, all or none; PROTOCOL.md says what that answers.

        `replace`: also accounts that have another seed or other parameters.
        """
        return self._call(calls.load_batch(batch, replace=replace))

    def remove(self, account: str = "default") -> None:
        """Remove an account. Its codes stay spent, should the same seed come back."""
        self._call(calls.remove(account))

    def accounts(self) -> list[Account]:
        """All accounts that the caller administers, by name."""
        return self._call(calls.accounts())

    def resync(self, first: str, second: str, account: str = "default") -> int:
        """Follow a prover whose clock is off, by two codes that it shows one after the other.

        Returns by how many steps it is ahead. RFC 6238 section 6.
        """
        return self._call(calls.resync(first, second, account))

    def verify_explained(
        self, code: str, account: str = "default", *, origin: str | None = None
    ) -> "dict[str, Any]":
        """What `verify` does, with a `reason` if the code is of a step gone by: `used`, `old`, or None.

        For the role `admin` for all accounts.
        """
        return self._call(calls.verify_explained(code, account, origin))

    def throttled(
        self, account: str | None = None, *, uid: int | None = None, origin: str | None = None
    ) -> "dict[str, Any]":
        """Callers that have to wait after wrong codes; PROTOCOL.md says what is in it.

        Without `account` for all of them; `uid`, and perhaps `origin`, ask about one caller for `account`.
        """
        return self._call(calls.throttled(account, uid, origin))

    def unthrottle(self, account: str = "default", *, force: bool = False) -> int:
        """Let all callers of an account try again at once, after wrong codes.

        Returns how often that is possible without `force` in the next days: three times in 30 days.
        """
        return self._call(calls.unthrottle(account, force=force))

    def enroll(self) -> Enrolment:
        """A new seed for the account of the caller's own user name, shown this once.

        The account is there when `enroll_confirm` has taken a first code of it.
        """
        return self._call(calls.enroll())

    def enroll_confirm(self, code: str) -> bool:
        """Whether a code is of the seed that `enroll` gave: a right one is spent, and makes the account."""
        return self._call(calls.enroll_confirm(code))

    def lock(self) -> None:
        """Let neither keys nor codes stay in the daemon's memory, until `unlock`."""
        self._call(calls.lock())

    def unlock(self, passphrase: str | None = None) -> None:
        """Take the keys into memory again; raises `Locked` where a passphrase is needed."""
        self._call(calls.unlock(passphrase))

    def rotate(self, private: bytes) -> str:
        """Take up another host key (an unprotected PEM) beside the one in use; returns its fingerprint."""
        return self._call(calls.rotate(private))

    def rotate_finish(self, fingerprint: str) -> list[str]:
        """Let this host key, which is in use, alone open the state; returns whose slots were dropped."""
        return self._call(calls.rotate_finish(fingerprint))

    def recipients(self) -> "list[dict[str, Any]]":
        """The host keys that can open the state: `fingerprint` and whether it is `current`."""
        return self._call(calls.recipients())

    def backup(self, to: bytes) -> bytes:
        """All accounts as they are now, sealed to the RSA keys in `to`: PEM, one after the other."""
        return self._call(calls.backup(to))

    def restore(self, data: bytes, *, replace: bool = False) -> "dict[str, Any]":
        """Bring the accounts of a backup back; PROTOCOL.md says what that does and answers.

        It is sent in parts, and `timeout` bounds each of them.
        """
        restored: dict[str, Any] = {}
        for call in calls.restore(data, replace=replace):
            restored = self._call(call)
        return restored

    def clock_accept(self) -> "dict[str, Any]":
        """Say that the daemon's clock is right now; PROTOCOL.md says what is in the answer."""
        return self._call(calls.clock_accept())

    def status(self) -> "dict[str, Any]":
        """What anybody may know of the daemon; PROTOCOL.md says what is in it."""
        return self._call(calls.status())

    def metrics(self) -> "dict[str, Any]":
        """The status and the counts since the daemon's start; PROTOCOL.md says what is in it."""
        return self._call(calls.metrics())

    def _call(self, call: "Call[T]") -> "T":
        deadline = time.monotonic() + self._timeout
        if self._pid != os.getpid():  # in a forked child the lock may be held by a thread that is not there
            self._pid, self._lock = os.getpid(), allocate_lock()
            self.close()
        if not self._lock.acquire(timeout=self._timeout):
            raise TimedOut(f"no answer within {self._timeout} seconds: other threads' calls go before")
        try:
            try:
                response = self._exchange(call, deadline)
            except BaseException:
                self.close()  # what comes next on this connection cannot be told
                raise
        finally:
            self._lock.release()
        return calls.result(call, response)

    def _exchange(self, call: "Call[T]", deadline: float) -> messages.Response:
        self._msgid = (self._msgid + 1) % 2**32
        self._send(calls.encode(self._msgid, call), deadline)
        decoder = messages.Decoder(messages.RESPONSE, messages.RESPONSE_LIMIT)
        while True:
            response = decoder.next()
            if isinstance(response, messages.Response):
                if response.msgid != self._msgid:
                    raise ProtocolError("the daemon answered another request")
                return response
            if response is not None:
                continue
            data = self._receive(deadline)
            if not data:
                raise ConnectionLost("the daemon closed the connection before it answered")
            decoder.feed(data)

    def _send(self, request: bytes, deadline: float) -> None:
        """Send all of it, over a new connection if the one that is open has died before."""
        if self._socket is None or calls.is_dead(self._socket):
            self.close()
            self._socket = calls.connect(self._path, self._servers, deadline - time.monotonic())
        sent = 0
        while sent < len(request):
            self._wait(deadline)
            try:
                sent += self._socket.send(request[sent:])
            except TimeoutError:
                raise TimedOut(f"the daemon took no request within {self._timeout} seconds") from None
            except OSError as error:
                raise ConnectionLost(f"the connection broke: {error.strerror}") from None

    def _receive(self, deadline: float) -> bytes:
        assert self._socket is not None
        self._wait(deadline)
        try:
            return self._socket.recv(calls.READ_SIZE)
        except TimeoutError:
            raise TimedOut(f"no answer within {self._timeout} seconds") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror}") from None

    def _wait(self, deadline: float) -> None:
        """Let the next operation of the socket end at the deadline."""
        assert self._socket is not None
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimedOut(f"no answer within {self._timeout} seconds")
        self._socket.settimeout(remaining)
