"""The methods about codes: `generate`, `verify` and `resync`."""

from collections.abc import Callable
from typing import Any

from pki2fad.errors import BadRequest, Forbidden
from pki2fad.methods.table import Arguments
from pki2fad.rules import access, otp
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.attempts import Caller
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.recoverer import Recoverer
from pki2fad.rules.resync import Resync, TwoCodes
from pki2fad.rules.verifier import Verifier
from pki2fad.wire import forms, messages
from pki2fad.wire.forms import MAIN


class CodeMethods:
    """Makes and checks codes. `rules` gives the roles in use, since a reload replaces them."""

    def __init__(
        self,
        keyring: Keyring,
        verifier: Verifier,
        recoverer: Recoverer,
        resync: Resync,
        rules: Callable[[], Access],
    ) -> None:
        self._keyring = keyring
        self._verifier = verifier
        self._recoverer = recoverer
        self._resync = resync
        self._access = rules

    def generate(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """The code of now."""
        result = self.code(args["account"], reading, args.get("label"))
        return Answer(result, encoded=messages.encode(result))

    def code(self, name: str, reading: Reading, label: str | None = None) -> dict[str, Any]:
        """The result of `generate`, for the first TOTP authenticator of an account or the one with the label.

        Raises a `Refusal`.
        """
        self._keyring.require_unlocked()
        account = self._keyring.account(name)
        asked = account.authenticators if label is None else (self._keyring.authenticator(account, label),)
        active = [Authenticator.in_force(one, reading.wall)[0] for one in asked if not one.is_lost]
        one = next((one for one in active if not one.is_hotp), None)
        if one is None:
            which = f"account {name!r} has no TOTP authenticator"
            if label is not None:
                which = f"authenticator {label!r} of account {name!r} is not TOTP"
            raise BadRequest(f"{which}, and codes are made for TOTP only")
        period = one.parameters.period
        step = otp.step_at(reading.wall, period)
        code = self._keyring.codes.current(one, step)
        return {"code": code, "valid_for": otp.valid_for(reading.wall, period), "step": step}

    def verify(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """Whether a code is good."""
        rules = self._access()
        code, name, origin = args["code"], args["account"], args.get("origin", "")
        is_recovery = not forms.is_code(code)
        if is_recovery and not forms.is_recovery_code(code):
            raise BadRequest(forms.ANY_CODE_RULE)
        if len(origin) > forms.ORIGIN_LIMIT:
            raise BadRequest(f"an origin has at most {forms.ORIGIN_LIMIT} characters")
        if "origin" in args and not rules.allows(peer, access.RELAY, name):
            raise Forbidden(f"an origin needs the role {access.RELAY!r}, which uid {peer.uid} does not have")
        explain = args.get("explain", False)
        if explain and not rules.allows_everywhere(peer, access.ADMIN):
            raise Forbidden(
                f"'explain' needs the role {access.ADMIN!r} for all accounts,"
                f" which uid {peer.uid} does not have"
            )
        veiled = not any(rules.allows(peer, role, name) for role in (access.GENERATE, access.ADMIN))
        caller = Caller(name, rules.payer(peer.uid), origin, veiled)
        if is_recovery:
            answer = self._recoverer.verify(caller, code, reading)
            return self._recoverer.explained(answer, name) if explain else answer
        answer = self._verifier.verify(caller, code, reading)
        return self._verifier.explained(answer, name, code, reading) if explain else answer

    def resync(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """Follow an authenticator that showed two codes."""
        first, second = args["first"], args["second"]
        if not (forms.is_code(first) and forms.is_code(second)):
            raise BadRequest(forms.CODE_RULE)
        shown = TwoCodes(args["account"], args.get("label", MAIN), first, second)
        return self._resync.follow(shown, self._access().payer(peer.uid), reading)

    def steps_off(self, name: str, code: str, reading: Reading) -> int | None:
        """For the log: how many steps a wrong code is ahead, if its step is near the window."""
        return self._verifier.steps_off(name, code, reading)

    def unavailable_until(self, reading: Reading) -> int | None:
        """The Unix time until which some account cannot verify, None if all can."""
        return self._verifier.unavailable_until(reading)
