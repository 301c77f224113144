"""Who gets in: caps for all, for each payer and for callers without a role; and who pays."""

import pytest

from pki2fad.host.users import Users
from pki2fad.rules.access import Access, Peer, Rule
from pki2fad.server.admission import ROOT_RESERVE, WITHOUT_ROLE, Admission
from pki2fad.server.payer import ROOT, STRANGERS, PayerKey

OWN = 4000
VERIFIER, STRANGER = 4001, 4002
ACCESS = Access([Rule("verify", (VERIFIER,))], OWN, Users())


def peer(uid: int, *, verify_only: bool = False) -> Peer:
    return Peer(1, uid, frozenset({uid}), verify_only)


def admit(admission: Admission, uid: int, count: int, *, verify_only: bool = False) -> int:
    """How many of `count` connections get in."""
    payer = admission.payer(ACCESS, peer(uid, verify_only=verify_only))
    return sum(admission.admit(payer, uid) for _ in range(count))


@pytest.mark.parametrize(
    ("who", "key"),
    [
        (peer(0), ROOT),
        (peer(0, verify_only=True), PayerKey(0, verify_only=True)),
        (peer(OWN), PayerKey(OWN, verify_only=False)),
        (peer(VERIFIER), PayerKey(VERIFIER, verify_only=False)),
        (peer(VERIFIER, verify_only=True), PayerKey(VERIFIER, verify_only=True)),
        (peer(STRANGER), STRANGERS),
        (peer(65534), STRANGERS),
    ],
)
def test_a_uid_with_a_role_pays_for_itself_and_all_others_together(who: Peer, key: PayerKey) -> None:
    assert Admission(100, 10).payer(ACCESS, who).key == key


def test_each_payer_has_its_share() -> None:
    admission = Admission(100, 10)
    assert admit(admission, VERIFIER, 15) == 10
    assert admit(admission, OWN, 15) == 10


def test_a_uid_without_a_role_has_few_and_all_of_them_half() -> None:
    admission = Admission(100, 60)
    assert admit(admission, STRANGER, 50) == WITHOUT_ROLE
    assert admit(admission, STRANGER + 1, 50) == 50 - WITHOUT_ROLE
    assert admit(admission, STRANGER + 2, 50) == 0
    assert admit(admission, VERIFIER, 60) == 50


def test_root_gets_in_when_all_is_taken() -> None:
    admission = Admission(20, 20)
    assert admit(admission, VERIFIER, 30) == 20
    assert admit(admission, 0, 30) == ROOT_RESERVE
    assert admit(admission, 0, 1, verify_only=True) == 0  # of a container, it may be


def test_what_ends_makes_room() -> None:
    admission = Admission(100, 60)
    payer = admission.payer(ACCESS, peer(STRANGER))
    admit(admission, STRANGER, WITHOUT_ROLE)
    admission.leave(payer, STRANGER)
    assert admit(admission, STRANGER, 2) == 1
    assert admission.count == WITHOUT_ROLE


def test_a_connection_that_another_pays_for_counts_there() -> None:
    admission = Admission(100, 60)
    strangers, verifier = (admission.payer(ACCESS, peer(uid)) for uid in (STRANGER, VERIFIER))
    admit(admission, STRANGER, WITHOUT_ROLE)
    admission.move(strangers, verifier, STRANGER)
    assert (strangers.connections, verifier.connections) == (WITHOUT_ROLE - 1, 1)
    assert admit(admission, STRANGER, 2) == 1


def test_who_leaves_with_a_debt_finds_it_again() -> None:
    admission = Admission(100, 60)
    payers = [admission.payer(ACCESS, peer(uid)) for uid in (OWN, VERIFIER)]
    payers[1].credit = -1.0
    admission.forget()
    assert admission.payers == payers[1:]
    assert admission.payer(ACCESS, peer(VERIFIER)) is payers[1]
