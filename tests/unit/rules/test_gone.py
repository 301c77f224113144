"""Watermarks of seeds that are gone: which are kept, and for how long."""

from support.agents import SEED, STEP, make_keyring

from pki2fad.rules.gone import Gone, Watermark


def test_watermarks_that_are_too_old_are_forgotten_a_few_at_a_time() -> None:
    account, gone = make_keyring({"default": SEED}).accounts["default"], Gone()
    for number in range(5000):
        gone[number.to_bytes(16, "big")] = Watermark(5, 30)
    for _ in range(2000):
        before = len(gone)
        gone.remember(account.seeds, STEP * 30.0)
        assert before - len(gone) <= 4
    assert len(gone) < 1100
