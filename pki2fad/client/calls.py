"""The methods of both clients: their signatures, and what they return.

This module is on the client's path.
"""

from pki2fad.client import answers, requests
from pki2fad.client.answers import Account, Code, Enrolment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from pki2fad.client.requests import Call

    T = TypeVar("T")

DEFAULT_TIMEOUT = 5.0  # seconds for one request; the daemon answers in far less than a millisecond


class Methods:
    """One method for each method of the daemon; all but `_perform` is common to both clients."""

    def _perform(self, call: "Call[T]") -> "T":
        """Send the requests of a call and return its result."""
        raise NotImplementedError

    def _call(self, method: str, convert: "Callable[[Any], T]", **arguments: "Any") -> "T":
        """Make a call of one request; arguments that are None or False are left out."""
        return self._perform(requests.single(method, arguments, convert))

    def generate(self, account: str = "default", *, label: str | None = None) -> Code:
        """Return the current code of an account: its first TOTP authenticator's, or that of the label's."""
        return self._call("generate", answers.code, account=account, label=label)

    def verify(self, code: str, account: str = "default", *, origin: str | None = None) -> bool:
        """Check a code. A code that was good is spent, and not good again (RFC 6238 section 5.2).

        A recovery code will do, too.

        `origin` is where the attempt comes from, for example the address of a login. Failures are counted
        for each origin. It needs the role `relay`.
        """
        return self._call("verify", answers.is_valid, account=account, code=code, origin=origin)

    def verify_explained(
        self, code: str, account: str = "default", *, origin: str | None = None
    ) -> "dict[str, Any]":
        """Do what `verify` does; returns `valid`, and the `reason` if an old code is refused.

        `reason` is `used`, `old` or None. For a recovery code there is also `recovery`: how many are left,
        None if the account has none. This needs the role `admin` for all accounts.
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
        label: str | None = None,
        kind: str | None = None,
        counter: int | None = None,
        short: bool = False,
    ) -> bool:
        """Load a sealed seed (as bytes, not base64). Returns False if the account has it already.

        `label` names the authenticator, of which an account has up to 4. Without it that is `main`. A new
        label adds one; `replace` is for another seed under the same label.

        `kind` is `totp`, or `hotp` for a token with a button: its seed has no `period`, and `counter` is the
        next that the token uses. With `short` a seed of 80 to 127 bits is taken too.

        A `successor` takes the place of the old seed when the first of its codes is accepted; until then
        both are good. At `deadline`, a Unix time, the successor is dropped, or with `cutover` the old
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
            label=label,
            kind=kind,
            counter=counter,
            short=short,
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

    def load_result(self, /, sealed: bytes, account: str | None = None, **options: "Any") -> "dict[str, Any]":
        """Do what `load` does with these arguments; returns `account`, `changed` and `authenticators`."""
        return self._call("load", answers.fields, sealed=sealed, account=account, **options)

    def load_batch(self, batch: bytes, *, replace: bool = False) -> "dict[str, Any]":
        """Load the seeds of a batch, all or none. PROTOCOL.md describes the answer.

        `replace`: also accounts that have another seed or other parameters.
        """
        return self._call("load_batch", answers.batch, batch=batch, replace=replace)

    def remove(
        self, account: str | None = None, *, label: str | None = None, code: str | None = None
    ) -> None:
        """Remove an account, or its authenticator with this label, which must not be the last.

        Its codes stay spent if the same seed is loaded again. Without `account` it is `default`. With `code`,
        of another authenticator or a recovery code, users remove an authenticator of the account of their
        own user name.
        """
        return self._call("remove", _nothing, account=account, label=label, code=code)

    def accounts(
        self, match: str | None = None, *, after: str | None = None, limit: int | None = None
    ) -> list[Account]:
        """List the accounts that the caller administers, by name.

        `match` is a pattern for whole names, for example `web-*`. With `after` they begin behind this name,
        and `limit` is how many there are at most. A long list comes in parts, and `timeout` bounds each.
        """
        return self._perform(requests.pages(match, after, limit))

    def resync(self, first: str, second: str, account: str = "default", *, label: str | None = None) -> int:
        """Follow an authenticator whose clock is off, by two codes that it shows one after the other.

        Returns by how many steps it is ahead (RFC 6238 section 6); for HOTP its next counter.
        """
        return self._call(
            "resync", answers.resynced, account=account, first=first, second=second, label=label
        )

    def resync_result(
        self, first: str, second: str, account: str = "default", *, label: str | None = None
    ) -> "dict[str, Any]":
        """Do what `resync` does; returns `account`, and `offset` or for HOTP `counter`."""
        arguments = {"account": account, "first": first, "second": second, "label": label}
        return self._call("resync", answers.fields, **arguments)

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

    def enroll(
        self,
        account: str | None = None,
        *,
        label: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        algorithm: str | None = None,
        digits: int | None = None,
        period: int | None = None,
    ) -> Enrolment:
        """Return a new seed for the account of the caller's own user name. It is shown once.

        The account exists once `enroll_confirm` has accepted a first code. `account` is for registrars and
        administrators. An account that exists gets one more authenticator, with a new `label`. That needs
        `code`, of an authenticator that it has or a recovery code, which is spent. Administrators of all
        accounts need none, and may choose the rest.
        """
        return self._call(
            "enroll",
            answers.enrolment,
            account=account,
            label=label,
            code=code,
            kind=kind,
            algorithm=algorithm,
            digits=digits,
            period=period,
        )

    def enroll_confirm(self, code: str, account: str | None = None, *, label: str | None = None) -> bool:
        """Check the first code of the seed from `enroll`. A right one is spent, and makes the account.

        `account` and `label` are those that `enroll` had.
        """
        return self._call("enroll_confirm", answers.is_valid, code=code, account=account, label=label)

    def exists(self, account: str) -> bool:
        """Return whether there is an account of this name. Needs `registrar` or `admin` for it."""
        return self._call("exists", lambda result: result["exists"] is True, account=account)

    def recovery_create(self, account: str = "default", *, code: str | None = None) -> list[str]:
        """Return ten new recovery codes, once. They replace those that the account has.

        `verify` takes each of them once. Without the role `admin` for all accounts it has to be the account
        of the caller's own user name, and `code` a code of an authenticator of it, which is spent.
        """
        return self._call("recovery_create", answers.recovery_codes, account=account, code=code)

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
        return self._perform(requests.upload(data, replace=replace))

    def clock_accept(self) -> "dict[str, Any]":
        """Tell the daemon that its clock is right now. PROTOCOL.md describes the answer."""
        return self._call("clock_accept", answers.fields)

    def status(self) -> "dict[str, Any]":
        """Return what any caller may know of the daemon. PROTOCOL.md describes it."""
        return self._call("status", answers.fields)

    def metrics(self) -> "dict[str, Any]":
        """Return the status, and the counts since the daemon's start. PROTOCOL.md describes them."""
        return self._call("metrics", answers.fields)


def _nothing(_result: "Any") -> None:
    """The answer to a method that only acts."""
