"""Moves memory when a change is kept."""

from pki2fad.rules.changes import ClockEdit, Edit, LargeChange, Rotation
from pki2fad.rules.clock import Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import Pieces, in_pieces


class Memory:
    """The keyring and the watch, as changes see them.

    `file_digests` has the digest of the file of `seeds.d` that was applied last, by account.
    """

    def __init__(self, keyring: Keyring, watch: Watch, file_digests: dict[str, bytes]) -> None:
        self.file_digests = file_digests
        self._keyring = keyring
        self._watch = watch

    def hold(self, edit: Edit) -> None:
        """Let nothing else change its account until an edit is over. Raises `Unavailable` if it is held."""
        self._keyring.holds.hold(edit.account)

    def let_go(self, edit: Edit) -> None:
        """The edit is over: it is about to be applied, or is not kept."""
        self._keyring.holds.let_go(edit.account)

    def apply(self, edit: Edit) -> None:
        """Move memory, now that the edit is kept."""
        self._keyring.enrolments.follow(edit.account, self._keyring.accounts.get(edit.account), edit.put)
        if edit.gone:
            self._keyring.gone.remember(edit.gone, edit.wall)
        if edit.put is None:
            self._keyring.drop(edit.account)
        else:
            self._keyring.put(edit.put)
        if edit.file_digest is not None:
            self.note_file(edit.account, edit.file_digest)

    def note_file(self, account: str, digest: bytes) -> None:
        """Remember which file of `seeds.d` was applied last for an account."""
        self.file_digests[account] = digest

    def applied(self, change: LargeChange) -> Pieces[None]:
        """Move memory piece by piece, now that the change is kept."""
        if isinstance(change, Rotation):
            self._keyring.rotate(change.master, change.resealed)
        elif isinstance(change, ClockEdit):
            yield from self._keyring.lower(change.wall)
            self._watch.accept(change.wall, change.spent)
        else:
            self._keyring.raise_floors(change.floors)
            self._watch.spent.extend(change.spent)
            for some in in_pieces(change.edits):
                for edit in some:
                    self.apply(edit)
                yield

    @property
    def version(self) -> int:
        """A number that rises whenever an account or the master key changes or goes."""
        return self._keyring.version
