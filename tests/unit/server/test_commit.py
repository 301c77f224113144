"""What has the store keep changes: whoever waits for one hears of it, once."""

from support.agents import make_keyring, no_watch

from pki2fad.methods.memory import Memory
from pki2fad.rules.changes import Edit
from pki2fad.rules.outcomes import KEPT, Outcome, Unknown
from pki2fad.server.commit import Commit


class Mistaken(Memory):
    """Memory that cannot follow."""

    def apply(self, edit: Edit) -> None:
        raise KeyError(f"a mistake of ours in {edit.account}")


def test_who_waits_for_an_edit_hears_of_it_where_memory_cannot_follow() -> None:
    told: list[Outcome] = []
    commit = Commit(
        lambda changes, settle: settle([(place, KEPT) for place in range(len(changes))]),
        Mistaken(make_keyring(), no_watch(), {}),
    )
    commit.edit(Edit("a", 0.0, None), told.append)
    (outcome,) = told
    assert isinstance(outcome, Unknown)
