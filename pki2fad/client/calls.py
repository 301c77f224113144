"""The methods of both clients: their signatures, their requests, and what they return.

This module is on the client's path.
"""

import os

from pki2fad.client import answers
from pki2fad.client.answers import Account, Code, Enrolment
from pki2fad.errors import BadRequest
from pki2fad.wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")
    Request = tuple[str, dict[str, Any]]  # method and arguments
    # Requests to be sent one after the other, and what makes the call's result of the last one's.
    Call = tuple[Iterable[Request], Callable[[Any], T]]

DEFAULT_TIMEOUT = 5.0  # seconds for one request; the daemon answers in far less than a millisecond


class Methods:
    """One method for each method of the daemon; all but `_perform` is common to both clients."""

    def _perform(self, call: "Call[T]") -> "T":
        """Send the requests and return the result."""
        raise NotImplementedError

    def _call(self, method: str, convert: "Callable[[Any], T]", **arguments: "Any") -> "T":
        """Make a call of one request; arguments that are None or False are left out."""
        return self._perform(([(method, _given(arguments))], convert))

    def generate(self, account: str = "default") -> Code:
        """Return the current code of an account."""
        return self._call("generate", answers.code, account=account)

    def verify(self, code: str, account: str = "default", *, origin: str | None = None) -> bool:
        """Check a code. A code that was good is spent, and not good again (RFC 6238 section 5.2).

        `origin` is where the attempt comes from, for example the address of a login. Failures are counted
        for each origin. It needs the role `relay`.
        """
        return self._call("verify", answers.is_valid, account=account, code=code, origin=origin)

    def verify_explained(
        self, code: str, account: str = "default", *, origin: str | None = None
    ) -> "dict[str, Any]":
        """Do what `verify` does; returns `valid`, and the `reason` if an old code is refused.

        `reason` is `used`, `old` or None. This needs the role `admin` for all accounts.
        """
        arguments = {"account": account, "code": code, "origin": origin, "explain": True}
        return self._call("verify", lambda result: {"reason": None, **result}, **arguments)

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
        """Load a sealed seed (as bytes, not base64). Returns False if the account has it already.

        A `successor` takes the account's place when the first of its codes is accepted; the old seed is
        good until then. At `deadline`, a Unix time, the successor is dropped, or with `cutover` the old
        seed.

        `sealed` may also be a batch of one account, which has its own name and parameters. Otherwise the
        defaults are the account `default`, SHA1, 6 digits and 30 seconds.
        """
        return self._call(
            "load",
            lambda result: result["changed"] is True,
            sealed=sealed,
            account=account,
            algorithm=algorithm,
            digits=digits,
            period=period,
            replace=replace,
            successor=successor,
            deadline=deadline,
            cutover=cutover,
        )

    def load_named(
        self, /, sealed: bytes, account: str | None = None, **options: "Any"
    ) -> "tuple[str, bool]":
        """Do what `load` does with these arguments; returns the account too, which `sealed` may name."""
        return self._call(
            "load",
            lambda result: (str(result["account"]), result["changed"] is True),
            sealed=sealed,
            account=account,
            **options,
        )

    def load_batch(self, batch: bytes, *, replace: bool = False) -> "dict[str, Any]":
        """Load the seeds of a batch, all or none. PROTOCOL.md describes the answer.

        `replace`: also accounts that have another seed or other parameters.
        """
        return self._call("load_batch", answers.batch, batch=batch, replace=replace)

    def remove(self, account: str = "default") -> None:
        """Remove an account. Its codes stay spent if the same seed is loaded again."""
        return self._call("remove", _nothing, account=account)

    def accounts(self) -> list[Account]:
        """List the accounts that the caller administers, by name."""
        return self._call("accounts", answers.accounts)

    def resync(self, first: str, second: str, account: str = "default") -> int:
        """Follow an authenticator whose clock is off, by two codes that it shows one after the other.

        Returns by how many steps it is ahead (RFC 6238 section 6).
        """
        return self._call(
            "resync", lambda result: int(result["offset"]), account=account, first=first, second=second
        )

    def throttled(
        self, account: str | None = None, *, uid: int | None = None, origin: str | None = None
    ) -> "dict[str, Any]":
        """Return the callers that have to wait after wrong codes. PROTOCOL.md describes the answer.

        Without `account` it covers all accounts. `uid`, with or without `origin`, adds one caller of
        `account`.
        """
        return self._call("throttled", answers.fields, account=account, uid=uid, origin=origin)

    def unthrottle(self, account: str = "default", *, force: bool = False) -> int:
        """Let all callers of an account try again at once, after wrong codes.

        Returns how often this is still possible without `force`: three times in 30 days.
        """
        return self._call("unthrottle", lambda result: int(result["left"]), account=account, force=force)

    def enroll(self) -> Enrolment:
        """Return a new seed for the account of the caller's own user name. It is shown once.

        The account exists once `enroll_confirm` has accepted a first code.
        """
        return self._call("enroll", answers.enrolment)

    def enroll_confirm(self, code: str) -> bool:
        """Check the first code of the seed from `enroll`. A right one is spent, and makes the account."""
        return self._call("enroll_confirm", answers.is_valid, code=code)

    def lock(self) -> None:
        """Wipe keys and codes from the daemon's memory, until `unlock`."""
        return self._call("lock", _nothing)

    def unlock(self, passphrase: str | None = None) -> None:
        """Load the keys into memory again. Raises `Locked` if a passphrase is needed."""
        return self._call("unlock", _nothing, passphrase=passphrase)

    def rotate(self, private: bytes) -> str:
        """Add another host key (a PEM without passphrase) to the one in use; returns its fingerprint."""
        return self._call("rotate", lambda result: str(result["fingerprint"]), private=private)

    def rotate_finish(self, fingerprint: str) -> list[str]:
        """Let only this host key, which is in use, open the state; returns the fingerprints dropped."""
        return self._call("rotate_finish", lambda result: [*result["dropped"]], fingerprint=fingerprint)

    def recipients(self) -> "list[dict[str, Any]]":
        """List the host keys that can open the state: `fingerprint`, and whether it is `current`."""
        return self._call("recipients", lambda rows: [{**row} for row in rows])

    def backup(self, to: bytes) -> bytes:
        """Return all accounts, sealed to the RSA public keys in `to`: PEM, one after the other."""
        return self._call("backup", lambda result: bytes(result["backup"]), to=to)

    def restore(self, data: bytes, *, replace: bool = False) -> "dict[str, Any]":
        """Restore the accounts of a backup. PROTOCOL.md describes the answer.

        The backup is sent in parts, and `timeout` bounds each of them.
        """
        return self._perform((_parts(data, replace=replace), answers.fields))

    def clock_accept(self) -> "dict[str, Any]":
        """Tell the daemon that its clock is right now. PROTOCOL.md describes the answer."""
        return self._call("clock_accept", answers.fields)

    def status(self) -> "dict[str, Any]":
        """Return what any caller may know of the daemon. PROTOCOL.md describes it."""
        return self._call("status", answers.fields)

    def metrics(self) -> "dict[str, Any]":
        """Return the status, and the counts since the daemon's start. PROTOCOL.md describes them."""
        return self._call("metrics", answers.fields)


def encode(msgid: int, request: "Request") -> bytes:
    """The bytes of a request. Raises `BadRequest` for arguments that cannot be sent."""
    method, arguments = request
    try:
        return messages.encode_request(msgid, method, arguments)
    except (OverflowError, TypeError, ValueError) as error:
        raise BadRequest(f"an argument cannot be sent: {error}") from None


def _given(arguments: "dict[str, Any]") -> "dict[str, Any]":
    return {name: value for name, value in arguments.items() if value is not None and value is not False}


def _parts(data: bytes, *, replace: bool) -> "Iterator[Request]":
    """The requests that send a backup in parts."""
    upload, size = os.urandom(16).hex(), messages.PART_LIMIT
    for offset in range(0, max(1, len(data)), size):
        arguments = {
            "upload": upload,
            "offset": offset,
            "part": data[offset : offset + size],
            "last": offset + size >= len(data),
            "replace": replace,
        }
        yield ("restore", _given(arguments))


def _nothing(_result: "Any") -> None:
    """The answer to a method that only acts."""
