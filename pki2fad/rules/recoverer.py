"""Checks recovery codes. Neither clock nor floors hold them back: what is used is always on record."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pki2fad.rules import otp
from pki2fad.rules.attempts import NO_ACCOUNT, Attempts, Caller
from pki2fad.rules.changes import REJECTED, REPLAYED, Answer, RecoverySpend
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.recovery import ENTROPY, Recovery, new_codes, new_set
from pki2fad.rules.throttle import Throttle

if TYPE_CHECKING:
    from pki2fad.crypto.masterkey import MasterKey

# Units that a wrong one costs: as much as that of one authenticator, also if there are more or there is no
# set, so that the throttling shows nothing. It could cost less: a guess is right once in 2^50.
_COST = otp.WINDOW_STEPS

RECOVERED = "recovered"  # in the audit: a recovery code was used


class Recoverer:
    """Compares recovery codes, and uses up those that are good."""

    def __init__(self, keyring: Keyring, throttle: Throttle, attempts: Attempts) -> None:
        self._keyring = keyring
        self._throttle = throttle
        self._attempts = attempts
        self._decoy: tuple[MasterKey, Recovery] | None = None  # a set of nobody, under this master key

    def verify(self, caller: Caller, code: str, reading: Reading) -> Answer:
        """Answer whether a recovery code is good, and not used yet.

        An account without a set, and for veiled callers a name without an account, are the same work.
        Raises `NoSuchAccount`, `Throttled` and `Unavailable`.
        """
        account = self._attempts.account(caller)
        tally, key, now = self._attempts.begin(caller, account, _COST, reading)
        master = self._keyring.master
        decoy = self._decoy_under(master)
        recovery = (NO_ACCOUNT if account is None else account).recovery
        bits = (decoy if recovery is None else recovery).match(code, master)
        if account is None or recovery is None or not bits:
            return self._attempts.fail(account, caller.name, key, _COST, now)
        if recovery.used & bits:
            return Answer(REJECTED, reason=REPLAYED)  # no guess, so it costs nothing
        recovery.spend(bits)
        new = self._throttle.succeed(key, tally, now)
        changed = None if new is tally else new
        account.count(new)
        return Answer(
            {"valid": True},
            change=RecoverySpend(account.name, bits, changed),
            audit=RECOVERED,
            details={"left": recovery.left},
        )

    def explained(self, answer: Answer, name: str) -> Answer:
        """The answer with how many codes are left, and with the reason if this one was used before."""
        recovery = self._keyring.account(name).recovery
        left = None if recovery is None else recovery.left
        reason = {"reason": "used"} if answer.reason == REPLAYED else {}
        return replace(answer, result={**answer.result, **reason, "recovery": left})

    def _decoy_under(self, master: "MasterKey") -> Recovery:
        """What a code is compared with if there is no set; none is good."""
        if self._decoy is None or self._decoy[0] is not master:
            codes = new_codes(os.urandom(ENTROPY))
            key = bytearray(os.urandom(32))
            self._decoy = master, new_set("", NO_ACCOUNT.account_id, codes, key=key, master=master, made=0)
        return self._decoy[1]
