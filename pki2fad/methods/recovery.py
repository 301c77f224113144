"""The method `recovery_create`: makes an account's recovery codes, which are shown this once.

Administrators of all accounts need nothing else. Those of single accounts cannot log in to them, and so may
not. Users may make the codes of their own account with a code of an authenticator of it: not with a recovery
code, or one that leaks would give ten.
"""

import os
from collections.abc import Callable

from pki2fad.errors import BadRequest, Forbidden
from pki2fad.methods.hostkeys import Keys
from pki2fad.methods.ownproof import Proof
from pki2fad.methods.table import Arguments
from pki2fad.rules import access
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.changes import PROMOTED, Answer, Edit
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.recovery import ENTROPY, new_codes, new_set
from pki2fad.wire import forms


class RecoveryMethods:
    """Makes recovery codes. `rules` gives the roles in use, since a reload replaces them."""

    def __init__(
        self, keyring: Keyring, watch: Watch, keys: Keys, proof: Proof, rules: Callable[[], Access]
    ) -> None:
        self._keyring = keyring
        self._watch = watch
        self._keys = keys
        self._proof = proof
        self._access = rules

    def create(self, args: Arguments, peer: Peer, reading: Reading) -> Answer:
        """Make new recovery codes in the place of those that there are."""
        name, code = args["account"], args.get("code")
        if not self._access().allows_everywhere(peer, access.ADMIN):
            self._proof.require_own(name, peer)
            if code is None:
                raise Forbidden("this needs a code of an authenticator of the account")
        edit = Edit(name, self._watch.believed(reading.wall), self._keyring.account(name))
        if code is not None:
            if not forms.is_code(code):
                raise BadRequest(f"{forms.CODE_RULE}; a recovery code makes no others")
            proved = self._proof.of(name, code, peer, reading)
            if proved.refusal is not None:
                return proved
            if isinstance(proved.change, Edit):  # it was the first code of a successor
                edit = proved.change
        return self._created(edit, reading)

    def _created(self, edit: Edit, reading: Reading) -> Answer:
        """The answer with new codes. Its change is this edit, with the codes in its account."""
        account = edit.put
        assert account is not None
        codes, key = new_codes(os.urandom(ENTROPY)), self._keys.new_seed()
        recovery = new_set(
            account.name,
            account.account_id,
            codes,
            key=key,
            master=self._keyring.master,
            made=int(reading.wall),
        )
        done = "created" if account.recovery is None else "replaced"
        if account is not self._keyring.accounts[account.name]:
            done += f" {PROMOTED}"
        put = account.with_recovery(recovery)
        return Answer({"account": account.name, "codes": codes}, change=edit._replace(put=put), audit=done)
