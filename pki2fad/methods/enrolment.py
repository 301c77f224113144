"""Enrolment: users make the account of their own name, from a seed that they see once and its first code.

The daemon makes the seed. A sealed seed does not say which account it is for: users could load others' seeds
into their own account. Until its first code a seed is only in memory, sealed like those of accounts, and no
other method sees an account.
"""

from pki2fad.crypto.memory import wipe
from pki2fad.errors import AccountExists, BadRequest, Forbidden, NoSuchAccount, Unavailable
from pki2fad.methods.hostkeys import Keys
from pki2fad.methods.table import Arguments
from pki2fad.rules import otp
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.verifier import Verifier
from pki2fad.wire.forms import CODE_RULE, NAME_RULE, is_code, is_name

LIFETIME = 600.0  # seconds: enough to find the phone and install an authenticator

# Enrolments that wait at once, in less than a megabyte; each user has at most one.
LIMIT = 1024


def own_name(peer: Peer, name: str | None) -> str:
    """The peer's user name, if it can be an account name. Raises `Forbidden`."""
    if name is None:
        raise Forbidden(f"an account gets its user's name, and uid {peer.uid} has no name on this system")
    if not is_name(name):
        raise Forbidden(f"an account gets its user's name, and {name!a} cannot be one: {NAME_RULE}")
    return name


class Enrolment:
    """The methods of the role `enroll`. The account in the arguments is the peer's own user name."""

    def __init__(self, keyring: Keyring, verifier: Verifier, keys: Keys) -> None:
        self._keyring = keyring
        self._verifier = verifier
        self._keys = keys

    def enroll(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Make a new seed. It replaces one that waits for its first code."""
        name, waiting = args["account"], self._keyring.enrolments
        self._require_no_account(name)
        for expired in [other for other, (_, until) in waiting.items() if until <= reading.boot]:
            del waiting[expired]
        if name not in waiting and len(waiting) >= LIMIT:
            first = min(until for _, until in waiting.values())
            raise Unavailable(
                "too many enrolments are waiting; try again", otp.seconds_until(reading.boot, first)
            )
        parameters = Parameters()
        seed = self._keys.new_seed()
        try:
            account = self._keyring.seal(name, seed, parameters, made=int(reading.wall))
            waiting[name] = account, reading.boot + LIFETIME
            text = seed.hex()
        finally:
            wipe(seed)
        return Answer({"account": name, "seed": text, **parameters.fields, "expires_in": int(LIFETIME)})

    def confirm(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """Check the first code. A right one makes the account."""
        name, code = args["account"], args["code"]
        if not is_code(code):
            raise BadRequest(CODE_RULE)
        self._require_no_account(name)
        account, until = self._keyring.enrolments.get(name, (None, 0.0))
        if account is None or until <= reading.boot:
            raise NoSuchAccount(f"no seed for {name!r} is waiting for its first code, or it has expired")
        return self._verifier.confirm(account, code, peer.uid, reading)  # a uid with a user pays for itself

    def _require_no_account(self, name: str) -> None:
        if name in self._keyring.accounts:
            raise AccountExists(f"there is an account {name!r} already; an administrator can remove it")
