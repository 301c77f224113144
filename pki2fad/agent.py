"""What the daemon does: a request of a peer at a reading of the clocks, to an answer and a change.

No input or output happens here. `Agent.handle` returns at once; a change that it returns has to be
kept by the store before its answer may leave (see `Spend` and `Edit`).
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pki2fad import __version__, access, otp
from pki2fad.access import Access, Peer
from pki2fad.clock import Reading
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    Forbidden,
    NoSuchAccount,
    Refusal,
    Unavailable,
    UnknownMethod,
)
from pki2fad.keyring import Account, Keyring
from pki2fad.memory import wipe
from pki2fad.otp import Parameters
from pki2fad.wire import Request

DEFAULT_ACCOUNT = "default"

# Account names become file names, and PAM brings them from the network.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}", re.ASCII)

INVALID: dict[str, Any] = {"valid": False}


@dataclass(frozen=True, slots=True)
class Spend:
    """A code was accepted: the watermark has already moved in memory, and only grows."""

    account: str
    step: int  # the new watermark
    period: int
    wall: float  # when


@dataclass(frozen=True, slots=True)
class Edit:
    """Accounts change, once this is kept: memory has not moved, `Agent.apply` moves it.

    `put` replaces or adds an account, None removes it. `gone` is the digest and the watermark of a
    seed that this takes away. `file_digest` records the file of `seeds.d` that this came from.
    """

    account: str
    wall: float
    put: Account | None
    gone: Account | None
    file_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A result or a refusal, and the change that has to be kept before it may leave."""

    result: Any = None
    refusal: Refusal | None = None
    change: Spend | Edit | None = None
    account: str | None = None  # that it is about, for the log

    def __repr__(self) -> str:
        return f"Answer(refusal={self.refusal!r}, change={self.change!r})"  # results may be codes


@dataclass(frozen=True, slots=True)
class _Method:
    run: Callable[[dict[str, Any], Peer, Reading], Answer]
    role: str | None  # None: whoever reaches the socket
    arguments: dict[str, type]
    required: frozenset[str] = frozenset()
    everywhere: bool = False  # the role for single accounts is not enough


_LOAD_ARGUMENTS: dict[str, type] = {
    "account": str,
    "sealed": bytes,
    "algorithm": str,
    "digits": int,
    "period": int,
    "replace": bool,
}


class Agent:
    """The accounts and the rules, and what a request does with them.

    `open_sealed` turns a sealed seed into a seed, or raises `BadSeal`.
    """

    def __init__(
        self, keyring: Keyring, rules: Access, open_sealed: Callable[[bytes], bytearray], started: Reading
    ) -> None:
        self.access = rules
        self.file_digests: dict[str, bytes] = {}  # of the file of seeds.d last applied for a name
        self._keyring = keyring
        self._open_sealed = open_sealed
        self._started = started
        self._methods = {
            "generate": _Method(self._generate, access.GENERATE, {"account": str}),
            "verify": _Method(
                self._verify, access.VERIFY, {"account": str, "code": str}, frozenset({"code"})
            ),
            # A sealed seed does not say whose it is: with the role for one account alone, everybody
            # else's, which are no secret, could be opened under that account's name.
            "load": _Method(
                self._load, access.ADMIN, _LOAD_ARGUMENTS, frozenset({"sealed"}), everywhere=True
            ),
            "remove": _Method(self._remove, access.ADMIN, {"account": str}),
            "accounts": _Method(self._accounts, access.ADMIN, {}),
            "status": _Method(self._status, None, {}),
        }

    @property
    def account_count(self) -> int:
        """How many accounts there are."""
        return len(self._keyring.accounts)

    def handle(self, request: Request, peer: Peer, reading: Reading) -> Answer:
        """Answer one request."""
        account = None
        try:
            method = self._methods.get(request.method)
            if method is None:
                raise UnknownMethod(f"there is no method {request.method[:64]!a}")
            args = _checked(method, request.args)
            account = args.get("account")
            self._authorise(peer, method, args)
            return replace(method.run(args, peer, reading), account=account)
        except Refusal as refusal:
            return Answer(refusal=refusal, account=account)

    def provision(self, name: str, sealed: bytes, file_digest: bytes, reading: Reading) -> Edit:
        """The edit that a file of `seeds.d` asks for. Raises `BadSeal`."""
        account = self._sealed_account(name, sealed, Parameters())
        return self._put(account, reading, file_digest)

    def apply(self, edit: Edit) -> None:
        """Move memory, now that the edit is kept."""
        accounts = self._keyring.accounts
        if edit.gone is not None:
            self._keyring.remember(edit.gone)
        if edit.put is None:
            del accounts[edit.account]
        else:
            accounts[edit.account] = edit.put
        if edit.file_digest is not None:
            self.file_digests[edit.account] = edit.file_digest

    def unavailable_until(self, reading: Reading) -> int | None:
        """The Unix time until which some account cannot verify, after a crash of the machine."""
        floor = max(self._keyring.floors.values(), default=0)
        return floor if floor > reading.wall else None

    def _authorise(self, peer: Peer, method: _Method, args: dict[str, Any]) -> None:
        if method.role is None:
            return
        if method.everywhere:
            allowed = self.access.allows_everywhere(peer, method.role)
        elif "account" in method.arguments:
            allowed = self.access.allows(peer, method.role, args["account"])
        else:
            allowed = self.access.has_role(peer, method.role)
        if not allowed:
            where = " for all accounts" if method.everywhere else ""
            raise Forbidden(f"this needs the role {method.role!r}{where}, which uid {peer.uid} does not have")

    def _account(self, args: dict[str, Any]) -> Account:
        account = self._keyring.accounts.get(args["account"])
        if account is None:
            raise NoSuchAccount(f"there is no account {args['account']!r}")
        return account

    def _generate(self, args: dict[str, Any], _peer: Peer, reading: Reading) -> Answer:
        account = self._account(args)
        period = account.parameters.period
        step = otp.step_at(reading.wall, period)
        code = self._keyring.codes(account, step)[otp.WINDOW]
        return Answer({"code": code, "valid_for": otp.valid_for(reading.wall, period), "step": step})

    def _verify(self, args: dict[str, Any], _peer: Peer, reading: Reading) -> Answer:
        code = args["code"]
        if not otp.is_code(code):
            raise BadRequest("a code is 6 to 8 ASCII digits, as a string")
        account = self._account(args)
        period = account.parameters.period
        floor = self._keyring.floors.get(period, 0)
        if reading.wall < floor:
            raise Unavailable(
                "codes may have been used that are not on record, before the machine or the state was new",
                otp.seconds_until(reading.wall, floor),
            )
        step = self._match(account, code, otp.step_at(reading.wall, period))
        if step is None or step <= self._keyring.watermark(account):
            return Answer(INVALID)
        account.last_step = step
        return Answer({"valid": True}, change=Spend(account.name, step, period, reading.wall))

    def _match(self, account: Account, code: str, step: int) -> int | None:
        """The last of the steps that this code stands for, or None.

        Every step of the window is compared, in constant time. Adjacent steps can share a code: all of
        them are spent with it, also one that the window reaches only later.
        """
        matched = None
        for offset, candidate in enumerate(self._keyring.codes(account, step), -otp.WINDOW):
            if otp.equal(code, candidate):
                matched = step + offset
        if matched == step + otp.WINDOW:
            while otp.equal(code, self._keyring.code(account, matched + 1)):
                matched += 1
        return matched

    def _load(self, args: dict[str, Any], _peer: Peer, reading: Reading) -> Answer:
        name = args["account"]
        try:
            parameters = Parameters(
                **{key: args[key] for key in ("algorithm", "digits", "period") if key in args}
            )
        except ValueError as error:
            raise BadRequest(str(error)) from None
        account = self._sealed_account(name, args["sealed"], parameters)
        current = self._keyring.accounts.get(name)
        if current is not None and current.is_like(account):
            return Answer({"account": name, "changed": False})
        if current is not None and not args.get("replace", False):
            raise AccountExists(f"account {name!r} has another seed or other parameters")
        return Answer({"account": name, "changed": True}, change=self._put(account, reading))

    def _remove(self, args: dict[str, Any], _peer: Peer, reading: Reading) -> Answer:
        account = self._account(args)
        edit = Edit(account.name, reading.wall, put=None, gone=account)
        return Answer({"account": account.name}, change=edit)

    def _accounts(self, _args: dict[str, Any], peer: Peer, _reading: Reading) -> Answer:
        return Answer(
            [
                {
                    "account": account.name,
                    "algorithm": account.parameters.algorithm,
                    "digits": account.parameters.digits,
                    "period": account.parameters.period,
                    "last_used": None
                    if account.last_step < 0
                    else account.last_step * account.parameters.period,
                }
                for account in sorted(self._keyring.accounts.values(), key=lambda account: account.name)
                if self.access.allows(peer, access.ADMIN, account.name)
            ]
        )

    def _status(self, _args: dict[str, Any], _peer: Peer, reading: Reading) -> Answer:
        return Answer(
            {
                "version": __version__,
                "pid": os.getpid(),
                "uptime": int(reading.boot - self._started.boot),
                "ready": True,
                "accounts": self.account_count,
                "unavailable_until": self.unavailable_until(reading),
            }
        )

    def _sealed_account(self, name: str, sealed: bytes, parameters: Parameters) -> Account:
        seed = self._open_sealed(sealed)
        try:
            return self._keyring.seal(name, seed, parameters)
        finally:
            wipe(seed)

    def _put(self, account: Account, reading: Reading, file_digest: bytes | None = None) -> Edit:
        current = self._keyring.accounts.get(account.name)
        if current is not None and current.is_like(account):
            account = current  # the same seed: the live account stays, and nothing is taken away
        gone = None if account is current else current
        return Edit(account.name, reading.wall, account, gone, file_digest)


def is_name(text: str) -> bool:
    """True for what may name an account."""
    return _NAME.fullmatch(text) is not None


def _checked(method: _Method, given: dict[str, Any] | None) -> dict[str, Any]:
    """The arguments, with the account filled in. Raises `BadRequest`."""
    if given is None:
        raise BadRequest("the arguments are one map of distinct names to scalars")
    for name, value in given.items():
        kind = method.arguments.get(name)
        if kind is None:
            raise BadRequest(f"there is no argument {name[:64]!a} here")
        if type(value) is not kind:
            raise BadRequest(f"the argument {name!r} is not of type {kind.__name__}")
    for name in method.required:
        if name not in given:
            raise BadRequest(f"the argument {name!r} is missing")
    if "account" not in method.arguments:
        return given
    account = given.get("account", DEFAULT_ACCOUNT)
    if not is_name(account):
        raise BadRequest("a name is 1 to 64 of A-Z a-z 0-9 . _ @ - and does not begin with . @ -")
    return {**given, "account": account}
