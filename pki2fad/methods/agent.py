"""Handles requests: a peer's request and a reading of the clocks become an answer and a change.

Nothing here reads or writes files, except through `admin.Keys`. The store must keep the change that
`Agent.handle` returns before the answer may leave (see `Spend` and `Edit`).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from pki2fad.errors import Forbidden, Refusal, UnknownMethod
from pki2fad.methods import ownproof
from pki2fad.methods.admin import Admin
from pki2fad.methods.bulk import Bulk
from pki2fad.methods.codes import CodeMethods
from pki2fad.methods.enrolment import Enrolment
from pki2fad.methods.health import Health
from pki2fad.methods.hostkeys import KeyMethods, Keys
from pki2fad.methods.memory import Memory
from pki2fad.methods.metrics import Metrics
from pki2fad.methods.ownproof import OwnAuthenticators, Proof
from pki2fad.methods.recovery import RecoveryMethods
from pki2fad.methods.reports import Reports
from pki2fad.methods.steady import Steady
from pki2fad.methods.table import METHODS, Arguments, Method, checked, is_administrative, is_for_own
from pki2fad.methods.throttled import ThrottleAdmin
from pki2fad.rules import access
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.attempts import Attempts
from pki2fad.rules.changes import Answer, Edit, Work
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.recoverer import Recoverer
from pki2fad.rules.resync import Resync
from pki2fad.rules.throttle import Throttle
from pki2fad.rules.verifier import Verifier
from pki2fad.rules.window import Window
from pki2fad.wire.messages import Request


class Agent:
    """Authorises requests and carries them out. No other place decides about a request."""

    def __init__(
        self,
        keyring: Keyring,
        rules: Access,
        throttle: Throttle,
        watch: Watch,
        *,
        keys: Keys,
        started: Reading,
        health: Health | None = None,
        file_digests: dict[str, bytes] | None = None,
    ) -> None:
        self.access = rules
        self.memory = Memory(keyring, watch, {} if file_digests is None else file_digests)
        self._keyring = keyring
        self._throttle = throttle
        self._watch = watch
        window, attempts = Window(keyring, watch), Attempts(keyring, throttle)
        verifier = Verifier(keyring, throttle, watch, window, attempts)
        recoverer = Recoverer(keyring, throttle, attempts)
        resync = Resync(keyring, throttle, watch, window, attempts)
        self._codes = codes = CodeMethods(keyring, verifier, recoverer, resync, lambda: self.access)
        self._steady = Steady(self._carry_out)
        keyring.codes.use(self._steady.clear)
        self._key_is_cheap = keys.is_cheap
        self._admin = admin = Admin(keyring, watch, keys)
        bulk = Bulk(keyring, watch, keys, admin)
        proof = Proof(verifier, recoverer, lambda: self.access)
        enroller = Enrolment(keyring, verifier, keys, proof, lambda: self.access)
        own = OwnAuthenticators(admin, proof)
        recovery = RecoveryMethods(keyring, watch, keys, proof, lambda: self.access)
        throttling = ThrottleAdmin(keyring, throttle, attempts.refusals, watch, self._payer)
        self.health = health or Health()
        self.metrics = Metrics(METHODS.values())  # the server counts
        self.reports = Reports(
            keyring, throttle, watch, verifier, health=self.health, metrics=self.metrics, started=started
        )
        self._run: dict[str, Callable[[Arguments, Peer, Reading], Answer]] = {
            "generate": codes.generate,
            "verify": codes.verify,
            "load": admin.load,
            "load_batch": bulk.load_batch,
            "remove": own.remove,
            "accounts": self._accounts,
            "resync": codes.resync,
            "throttled": throttling.throttled,
            "unthrottle": throttling.unthrottle,
            "clock_accept": bulk.clock_accept,
            "backup": bulk.backup,
            "restore": bulk.restore,
            "enroll": enroller.enroll,
            "enroll_confirm": enroller.confirm,
            "exists": enroller.exists,
            "recovery_create": recovery.create,
            "status": self._status,
            "metrics": self._metrics,
            **KeyMethods(keyring, keys, admin.close).by_name(),
        }

    def use(self, rules: Access) -> None:
        """Use these roles from now on."""
        self.access = rules

    @property
    def account_count(self) -> int:
        """How many accounts there are."""
        return len(self._keyring.accounts)

    def handle(self, request: Request, peer: Peer, reading: Reading) -> Answer:
        """Answer one request."""
        try:
            method = METHODS.get(request.method)
            if method is None:
                raise UnknownMethod(f"there is no method {request.method[:64]!a}")
            if method.steady and request.args is not None:
                return self._steady.answer(method, request, peer, self.access.rights(peer), reading)
            return self._carry_out(method, request, peer, reading)
        except Refusal as refusal:
            audit = "refused" if is_administrative(request.method) else None
            return Answer(refusal=refusal, audit=audit)

    def _carry_out(self, method: Method, request: Request, peer: Peer, reading: Reading) -> Answer:
        """Answer one request. Raises a `Refusal`."""
        args = checked(method, request)
        if is_for_own(method, args):
            method = method._replace(role=access.ENROLL, or_admin=False)
            args = self._for_own(peer, args)
        request.understand(args)
        self._authorise(peer, method, args)
        if not method.locked_too:
            self._keyring.require_unlocked()
        answer = self._run[method.name](args, peer, reading)
        if answer.work is not None and not method.locked_too:
            answer = replace(answer, work=self._unless_locked(answer.work))
        if "sealed" in args:  # which may have named the account
            request.concern(answer.result["account"])
        return answer

    def _for_own(self, peer: Peer, args: Arguments) -> Arguments:
        """The arguments with the account of the peer's own user name, if it may enrol. Raises `Forbidden`."""
        if not self.access.has_role(peer, access.ENROLL):
            return args
        return {"account": ownproof.own_name(peer, self.access.user_name(peer.uid)), **args}

    def provision(self, name: str, sealed: bytes, file_digest: bytes, reading: Reading) -> Edit:
        """The edit that a file of `seeds.d` asks for. Raises `BadSeal`."""
        return self._admin.provision(name, sealed, file_digest, reading)

    def due(self, reading: Reading) -> Iterator[tuple[Edit, str]]:
        """The edits for successors whose deadline has passed, and a word for the log.

        Each is made when it is asked for.
        """
        return self._admin.due(reading)

    def steps_off(self, name: str, code: str, reading: Reading) -> int | None:
        """For the log: how many steps a wrong code is ahead, if its step is near the window."""
        return self._codes.steps_off(name, code, reading)

    def look_ahead(self, count: int) -> bool:
        """Make codes of the next step, for at most `count` accounts in use; True if more wait."""
        return self._keyring.codes.look_ahead(count)

    def lock(self) -> None:
        """Wipe the keys and codes in memory."""
        self._admin.close()

    @property
    def locked(self) -> bool:
        """True while requests that need the keys are refused."""
        return self._keyring.locked

    def code(self, name: str, reading: Reading) -> dict[str, Any]:
        """The result of `generate` for an account. Raises a `Refusal`."""
        return self._codes.code(name, reading)

    @property
    def clock_accepted(self) -> int:
        """How often the wall clock was accepted as it is, since the start."""
        return self._watch.accepted

    def unavailable_until(self, reading: Reading) -> int | None:
        """The Unix time until which some account cannot verify, None if all can."""
        return self._codes.unavailable_until(reading)

    def _authorise(self, peer: Peer, method: Method, args: Arguments) -> None:
        if peer.verify_only and method.role != access.VERIFY:
            raise Forbidden("this socket answers only verify")
        if method.role is None or (method.or_admin and self.access.allows_everywhere(peer, access.ADMIN)):
            return
        if method.everywhere:
            allowed = self.access.allows_everywhere(peer, method.role)
        elif "account" in args:
            allowed = self.access.allows(peer, method.role, args["account"])
        else:
            allowed = self.access.has_role(peer, method.role)
        if method.or_its_admin:
            allowed = allowed or self.access.allows(peer, access.ADMIN, args["account"])
        if not allowed:
            where = " for all accounts" if method.everywhere else ""
            if method.or_admin:
                where = f", or {access.ADMIN!r} for all accounts"
            if method.or_its_admin:
                where = f" or {access.ADMIN!r} for the account"
            raise Forbidden(f"this needs the role {method.role!r}{where}, which uid {peer.uid} does not have")

    def _unless_locked(self, work: Work) -> Work:
        """Do the work, unless the daemon was locked while it waited."""
        self._keyring.require_unlocked()
        return (yield from work)

    def _payer(self, uid: int) -> int:
        return self.access.payer(uid)  # a reload may have replaced `access`

    def _accounts(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        is_shown = partial(self.access.rights(peer).allows, access.ADMIN)
        return self.reports.accounts(args, is_shown, reading)

    def _status(self, _args: Arguments, peer: Peer, reading: Reading) -> Answer:
        is_admin = self.access.allows_everywhere(peer, access.ADMIN)
        status = self.reports.status(reading, reasons=is_admin)
        if is_admin:
            status["cheap_passphrase"] = self._key_is_cheap()
        if peer.uid in (0, os.geteuid()):
            status["log"] = self.health.log()
        return Answer(status)

    def _metrics(self, _args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        return Answer(self.reports.metrics(reading))
