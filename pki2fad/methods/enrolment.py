"""Users who make the account of their own name: a new seed, which they see once, and its first right code.

The daemon makes the seed. A sealed one does not say whose it is, and who may bring one for their own account
could have anybody's opened there. Until its first code a seed is in memory alone, sealed like those of
accounts, and no account to any other method.
"""

from pki2fad.crypto.memory import wipe
from pki2fad.errors import AccountExists, BadRequest, Forbidden, NoSuchAccount, Unavailable
from pki2fad.methods.admin import Arguments, Keys
from pki2fad.rules import otp
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.verifier import Verifier
from pki2fad.wire.forms import CODE_RULE, is_code, is_name

LIFETIME = 600.0  # seconds: for finding the telephone and installing an authenticator on it

# That wait at once, in less than a megabyte; there is one for a user.
LIMIT = 1024


def own_name(peer: Peer, name: str | None) -> str:
    """The user name of the peer, as the name of an account. Raises `Forbidden`."""
    if name is None:
        raise Forbidden(f"an account is named after its user, and this system has none for uid {peer.uid}")
    if not is_name(name):
        raise Forbidden(f"an account is named after its user, and {name!a} cannot name one")
    return name


class Enrolment:
    """The methods of the role `enroll`: the account in the arguments is that of the peer's own name."""

    def __init__(self, keyring: Keyring, verifier: Verifier, keys: Keys) -> None:
        self._keyring = keyring
        self._verifier = verifier
        self._keys = keys

    def enroll(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """A new seed; one that waited for its code before is gone."""
        name, waiting = args["account"], self._keyring.enrolments
        self._require_no_account(name)
        for expired in [other for other, (_, until) in waiting.items() if until <= reading.boot]:
            del waiting[expired]
        if name not in waiting and len(waiting) >= LIMIT:
            first = min(until for _, until in waiting.values())
            raise Unavailable("too many enrolments wait", otp.seconds_until(reading.boot, first))
        parameters = Parameters()
        seed = self._keys.new_seed()
        try:
            waiting[name] = self._keyring.seal(name, seed, parameters), reading.boot + LIFETIME
            text = seed.hex()
        finally:
            wipe(seed)
        return Answer({"account": name, "seed": text, **parameters.fields, "expires_in": int(LIFETIME)})

    def confirm(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """The first code, which makes the account if it is right."""
        name, code = args["account"], args["code"]
        if not is_code(code):
            raise BadRequest(CODE_RULE)
        self._require_no_account(name)
        account, until = self._keyring.enrolments.get(name, (None, 0.0))
        if account is None or until <= reading.boot:
            raise NoSuchAccount(f"no seed for {name!r} waits for its first code, or it has expired")
        return self._verifier.confirm(account, code, peer.uid, reading)  # with a name it pays for itself

    def _require_no_account(self, name: str) -> None:
        if name in self._keyring.accounts:
            raise AccountExists(f"there is an account {name!r} already; an administrator can remove it")
