"""The memory for what waits: what one payer may have, and who gives something up."""

import pytest

from pki2fad.server.payer import POOL, ROOT, SHARE, Payer, PayerKey, Pool


def payer(uid: int) -> Payer:
    return Payer(PayerKey(uid, verify_only=False))


def test_a_payer_has_an_eighth_and_no_more() -> None:
    pool, one = Pool(), payer(1)
    pool.change(one, SHARE)
    assert pool.too_large(one) is None
    assert pool.too_large(one, more=1) is one
    assert pool.too_large(payer(2), more=SHARE) is None


def test_where_all_is_taken_the_one_that_holds_most_gives_up() -> None:
    pool, last = Pool(), payer(100)
    payers = [payer(uid) for uid in range(8)]
    for place, one in enumerate(payers):
        pool.change(one, SHARE - (place != 3))
        if pool.too_large(last):
            break
    assert pool.too_large(last, more=SHARE) is payers[3]


def test_root_has_room_where_all_others_have_none() -> None:
    pool, root = Pool(), Payer(ROOT)
    for uid in range(1, POOL // SHARE):
        pool.change(payer(uid), SHARE)
    assert pool.too_large(payer(100), more=1) is not None
    assert pool.too_large(root, more=SHARE) is None
    assert pool.too_large(root, more=SHARE + 1) is root


def test_root_never_gives_up_for_others() -> None:
    pool, root, other = Pool(), Payer(ROOT), payer(1)
    pool.change(root, SHARE)
    pool.change(other, SHARE - 1)
    for uid in range(2, POOL // SHARE):
        pool.change(payer(uid), SHARE - 2)
    assert pool.too_large(payer(100), more=SHARE) is other


@pytest.mark.parametrize("sizes", [(1, -1), (SHARE, -1, 1 - SHARE), (5, 5, -10)])
def test_what_is_given_back_is_there_again(sizes: tuple[int, ...]) -> None:
    pool, one = Pool(), payer(1)
    for size in sizes:
        pool.change(one, size)
    assert (one.held, pool._held, pool._holders) == (0, 0, set())
