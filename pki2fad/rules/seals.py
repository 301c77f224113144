"""What the master key seals: the seeds of authenticators, and the keys of recovery codes."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pki2fad.errors import BadSeal
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.recovery import Recovery

if TYPE_CHECKING:  # master keys are passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

Sealed = Authenticator | Recovery


def check(seals: Iterable[Sealed], master: "MasterKey") -> None:
    """Raise `BadSeal`, which names the account, unless all of them open under this master key."""
    with master.checking() as opens:
        for one in seals:
            try:
                opens(one.sealed, one.associated)
            except BadSeal as error:
                what = "recovery codes of account" if isinstance(one, Recovery) else "account"
                raise BadSeal(f"{what} {one.name!r}: {error}") from None


def of(accounts: Iterable[Account]) -> Iterator[Sealed]:
    """All that is sealed of these accounts."""
    for account in accounts:
        if account.has_one_seed:
            yield account
        else:
            yield from account.seeds
        if account.recovery is not None:
            yield account.recovery
