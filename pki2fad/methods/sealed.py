"""Opens seeds that are sealed to the host, or to a batch or a backup, and seals them under the master key."""

from typing import TYPE_CHECKING

from pki2fad.crypto import seedsizes
from pki2fad.crypto.memory import wipe
from pki2fad.errors import BadRequest, BadSeal
from pki2fad.methods.hostkeys import Keys
from pki2fad.methods.table import Arguments
from pki2fad.rules import otp
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.transfer import batch
from pki2fad.transfer.entry import Entry
from pki2fad.wire.forms import MAIN

if TYPE_CHECKING:
    from pki2fad.crypto.masterkey import MasterKey

# Of a seed that opened: what is in a seal that does not open nobody learns.
_TOO_SHORT = (
    "the seed has {} bits, and RFC 4226 asks for 128; if the issuer makes no longer ones:"
    " pki2factl load --short FILE"
)


class SealedSeeds:
    """Makes accounts of sealed seeds. They are not in the keyring yet."""

    def __init__(self, keyring: Keyring, keys: Keys) -> None:
        self._keyring = keyring
        self._keys = keys

    def account(self, args: Arguments, reading: Reading) -> Account:
        """The account of the sealed seed in the arguments of a `load`.

        A batch of one account says itself what it is for. Raises `BadSeal`, and `BadRequest` if an argument
        is wrong or contradicts the batch.
        """
        sealed, made = args["sealed"], int(reading.wall)
        if batch.is_batch(sealed):
            return self._of_batch(sealed, args, made)
        of = otp.parameters(args)
        seed = self._keys.open_sealed(sealed)
        try:
            if len(seed) < seedsizes.LEAST and not args.get("short", False):
                raise BadSeal(_TOO_SHORT.format(8 * len(seed)))
            return self._keyring.seal(args["account"], seed, of, label=args.get("label", MAIN), made=made)
        finally:
            wipe(seed)

    def _of_batch(self, sealed: bytes, args: Arguments, made: int) -> Account:
        with self._keys.open_batch(sealed) as master:
            entries = batch.unpack(sealed, master)
            if len(entries) != 1:
                raise BadRequest(
                    f"this is a batch of {len(entries)} accounts; load it with: pki2factl load-batch FILE"
                )
            entry = entries[0]
            of = entry.parameters
            says = {"account": entry.name, "kind": of.kind, **of.fields}
            if entry.version > 1:  # version 1 leaves the label open
                says["label"] = entry.label
            for key, said in says.items():
                if args.get(key, said) != said:
                    raise BadRequest(
                        f"the sealed seed is for {key} {said}, not {args[key]};"
                        f" seal it again with --{key} {args[key]}"
                    )
            return self.of_entry(entry, master, made, label=args.get("label"))

    def of_entry(
        self,
        entry: Entry,
        master: "MasterKey",
        made: int,
        *,
        label: str | None = None,
        beside: Authenticator | None = None,
    ) -> Account:
        """The account of an entry of a batch or a backup with this master key. Raises `BadSeal`.

        `made` is the Unix time, and `beside` is as for `Keyring.seal`.
        """
        try:
            opened = master.opened(entry.sealed, entry.associated)
        except BadSeal:
            raise BadSeal(f"the seed of account {entry.name!r} is damaged") from None
        label, of = label or entry.label, entry.parameters
        with opened as seed:
            new = self._keyring.seal(entry.name, seed, of, label=label, made=made, beside=beside)
        new.raise_to(entry.last_step)
        return new
