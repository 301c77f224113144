"""The closed set of codes, and the tree of exceptions around it."""

import inspect

import pytest

from pki2fad import errors
from pki2fad.errors import Pki2fadError, ProtocolError, Refusal

# Clients in other languages rely on these.
CODES = {
    "bad_request": "BadRequest",
    "unknown_method": "UnknownMethod",
    "forbidden": "Forbidden",
    "no_such_account": "NoSuchAccount",
    "account_exists": "AccountExists",
    "bad_seal": "BadSeal",
    "throttled": "Throttled",
    "locked": "Locked",
    "unavailable": "Unavailable",
    "internal": "Internal",
}

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__]


def test_the_codes_of_the_wire_are_just_these() -> None:
    assert {code: refusal.__name__ for code, refusal in errors.REFUSALS.items()} == CODES


def test_every_refusal_has_a_code_of_the_wire_and_no_two_the_same() -> None:
    refusals = {one for one in CLASSES if issubclass(one, Refusal)} - {Refusal}
    assert refusals == set(errors.REFUSALS.values())
    assert len(refusals) == len(CODES)


@pytest.mark.parametrize("one", CLASSES)
def test_every_exception_is_of_the_tree_and_says_when_it_is_raised(one: type[Exception]) -> None:
    assert issubclass(one, Pki2fadError)
    assert one.__dict__.get("__doc__")


@pytest.mark.parametrize("refusal", errors.REFUSALS.values())
def test_a_refusal_carries_its_text_and_when_to_try_again(refusal: type[Refusal]) -> None:
    assert str(refusal("no, not now", 30)) == "no, not now"
    assert refusal("no, not now", 30).retry_after == 30
    assert refusal("no").retry_after is None


@pytest.mark.parametrize("refusal", errors.REFUSALS.values())
def test_a_refusal_without_a_text_says_its_code(refusal: type[Refusal]) -> None:
    assert str(refusal()) == refusal.code


def test_a_protocol_error_carries_the_msgid_where_there_is_one() -> None:
    assert (str(ProtocolError("bad", 7)), ProtocolError("bad", 7).msgid) == ("bad", 7)
    assert ProtocolError("bad").msgid is None


def test_whoever_handles_a_lost_connection_handles_a_time_out_too() -> None:
    assert issubclass(errors.TimedOut, errors.ConnectionLost)
    assert not issubclass(errors.NotReachable, errors.ConnectionLost)  # nothing was sent then
