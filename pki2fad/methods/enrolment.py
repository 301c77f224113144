"""Enrolment: an account, or one more authenticator of it, from a seed that is shown once and its first code.

The daemon makes the seed. A sealed seed does not say which account it is for: users could load others' seeds
into their own account. Until its first code a seed is only in memory, sealed like those of accounts, and no
other method sees an account.
"""

from collections.abc import Callable
from dataclasses import replace

from pki2fad.crypto.memory import wipe
from pki2fad.errors import AccountExists, BadRequest, Forbidden, NoSuchAccount
from pki2fad.methods.hostkeys import Keys
from pki2fad.methods.ownproof import Proof
from pki2fad.methods.table import Arguments
from pki2fad.rules import access, otp
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.account import Account
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.rules.enrolments import LIFETIME
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.verifier import Verifier
from pki2fad.wire.forms import CODE_RULE, MAIN, is_code


class Enrolment:
    """The methods of the roles `enroll` and `registrar`. `rules` gives the roles in use."""

    def __init__(
        self,
        keyring: Keyring,
        verifier: Verifier,
        keys: Keys,
        proof: Proof,
        rules: Callable[[], Access],
    ) -> None:
        self._keyring = keyring
        self._waiting = keyring.enrolments
        self._verifier = verifier
        self._keys = keys
        self._proof = proof
        self._access = rules

    def enroll(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """Make a new seed. It replaces one of its label that waits for its first code."""
        name, label = args["account"], args.get("label", MAIN)
        is_admin = self._access().allows_everywhere(peer, access.ADMIN)
        parameters = _parameters(args, is_admin=is_admin)
        account = self._keyring.accounts.get(name)
        self._require_new(account, args)
        self._waiting.require_room(name, label, peer.uid, reading.boot)
        proved = Answer()
        if account is not None and not is_admin:
            if "code" not in args:
                raise AccountExists(
                    f"there is an account {name!r} already; to add an authenticator, send a code of one that"
                    " it has, or a recovery code"
                )
            proved = self._proof.of(name, args["code"], peer, reading)
            if proved.refusal is not None:
                return proved
        seed = self._keys.new_seed()
        try:
            new = self._keyring.seal(name, seed, parameters, label=label, made=int(reading.wall))
            self._waiting.add(new, peer.uid, reading.boot)
            text = seed.hex()
        finally:
            wipe(seed)
        chosen: Arguments = {key: args[key] for key in ("label", "kind") if key in args}
        result: Arguments = {"account": name, **chosen, "seed": text, **parameters.fields}
        result["expires_in"] = int(LIFETIME)
        return Answer(result, change=proved.change, audit=proved.audit, details=proved.details)

    def confirm(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """Check the first code. A right one makes the account, or adds the authenticator to it."""
        name, label, code = args["account"], args.get("label", MAIN), args["code"]
        if not is_code(code):
            raise BadRequest(CODE_RULE)
        account = self._keyring.accounts.get(name)
        self._require_new(account, args)
        new = self._waiting.find(name, label, reading.boot)
        if new is None:
            which = "" if label == MAIN else f" as {label!r}"
            raise NoSuchAccount(
                f"no seed for {name!r}{which} is waiting for its first code, or it has expired"
            )
        # A uid with a user pays for itself.
        answer = self._verifier.confirm(new, code, self._access().payer(peer.uid), reading)
        return replace(answer, details={"authenticator": label}) if "label" in args else answer

    def exists(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Whether there is an account of this name."""
        return Answer({"account": args["account"], "exists": args["account"] in self._keyring.accounts})

    def _require_new(self, account: Account | None, args: Arguments) -> None:
        """Raise `AccountExists` if the account has this label, `BadRequest` if it has no room."""
        if account is None:
            return
        if "label" not in args:
            raise AccountExists(
                f"there is an account {account.name!r} already; an administrator can remove it"
            )
        label = args["label"]
        if account.authenticator(label) is not None:
            raise AccountExists(f"account {account.name!r} has an authenticator {label!r} already")
        account.require_room()


def _parameters(args: Arguments, *, is_admin: bool) -> Parameters:
    """How the codes are made. Raises `Forbidden`, and `BadRequest`."""
    chosen = [key for key in otp.FIELDS if key in args]
    if chosen and not is_admin:
        raise Forbidden(f"{min(chosen)!r} needs the role {access.ADMIN!r} for all accounts")
    return otp.parameters(args)
