"""What users do with a code beside logging in: they enrol one more authenticator, or remove a lost one."""

from collections.abc import Callable
from dataclasses import replace

from pki2fad.errors import BadRequest, Forbidden
from pki2fad.methods.admin import Admin
from pki2fad.methods.table import Arguments
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.attempts import Caller
from pki2fad.rules.changes import Answer, Edit
from pki2fad.rules.clock import Reading
from pki2fad.rules.recoverer import Recoverer
from pki2fad.rules.verifier import Verifier
from pki2fad.wire import forms


def own_name(peer: Peer, name: str | None) -> str:
    """The peer's user name, if it can be an account name. Raises `Forbidden`."""
    if name is None:
        raise Forbidden(f"an account gets its user's name, and uid {peer.uid} has no name on this system")
    if not forms.is_name(name):
        raise Forbidden(f"an account gets its user's name, and {name!a} cannot be one: {forms.NAME_RULE}")
    return name


class Proof:
    """Spends a code or a recovery code that proves who the caller is. `rules` gives the roles in use."""

    def __init__(self, verifier: Verifier, recoverer: Recoverer, rules: Callable[[], Access]) -> None:
        self._verifier = verifier
        self._recoverer = recoverer
        self._access = rules

    def of(self, name: str, code: str, peer: Peer, reading: Reading) -> Answer:
        """The answer of `verify`, from the same budget; `Forbidden` in place of one that is not good.

        Raises `BadRequest`, `NoSuchAccount`, `Throttled` and `Unavailable`.
        """
        caller = Caller(name, self._access().payer(peer.uid), "", veiled=False)
        if forms.is_recovery_code(code):
            checked = self._recoverer.verify(caller, code, reading)
        elif forms.is_code(code):
            checked = self._verifier.verify(caller, code, reading)
        else:
            raise BadRequest(forms.ANY_CODE_RULE)
        if checked.refusal is None and checked.result["valid"]:
            return checked
        refusal = checked.refusal or Forbidden("the code is not good")
        return Answer(refusal=refusal, change=checked.change, audit="refused")

    def require_own(self, name: str, peer: Peer) -> None:
        """Raise `Forbidden` unless it is the account of the peer's own user name."""
        if own_name(peer, self._access().user_name(peer.uid)) != name:
            raise Forbidden("with a code you can change the account of your own user name only")


class OwnAuthenticators:
    """The method `remove`: administrators need no code, users remove an authenticator of theirs with one."""

    def __init__(self, admin: Admin, proof: Proof) -> None:
        self._admin = admin
        self._proof = proof

    def remove(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """Remove an account or an authenticator. Its codes stay spent."""
        if "code" not in args:
            return self._admin.remove(args, peer, reading)
        if "label" not in args:
            raise BadRequest(
                "a code removes one authenticator, so give its label; an administrator can remove the account"
            )
        name, label = args["account"], args["label"]
        self._proof.require_own(name, peer)
        self._admin.remove_authenticator(name, label, reading)  # first: if it is refused, no code is spent
        proved = self._proof.of(name, args["code"], peer, reading)
        if proved.refusal is not None:
            return proved
        if proved.matched is not None and set(proved.matched.split()) == {label}:
            refusal = Forbidden(f"this needs a code of another one than {label!r}, or a recovery code")
            return Answer(refusal=refusal, change=proved.change, audit="refused")
        planned = proved.change.put if isinstance(proved.change, Edit) else None
        answer = self._admin.remove_authenticator(name, label, reading, planned)
        done = " ".join([word for word in (answer.audit, proved.audit) if word])
        return replace(answer, audit=done, details={**(answer.details or {}), **(proved.details or {})})
