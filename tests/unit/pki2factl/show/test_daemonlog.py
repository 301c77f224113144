"""Lines of the daemon's log, taken apart again and made readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import logged

from pki2factl.show import daemonlog
from pki2fad.host import log

NAMES = st.sampled_from(["account", "origin", "method", "path", "reason", "code", "uid", "audit"])


def line_of(event: str, **fields: object) -> str:
    """The line that the daemon writes."""
    with logged() as lines:
        log.info(event, **fields)
    (line,) = lines
    return line


def readable(line: str) -> str:
    found = daemonlog.parse(line)
    assert found is not None
    return found.readable()


@given(fields=st.dictionaries(NAMES, st.text()))
def test_what_the_daemon_writes_is_read_back(fields: dict[str, str]) -> None:
    found = daemonlog.parse(line_of("refused", **fields))
    assert found is not None
    assert (found.event, found.fields) == ("refused", fields)


@given(fields=st.dictionaries(NAMES, st.text()))
def test_whatever_is_in_a_line_it_is_shown_on_one_and_moves_no_cursor(fields: dict[str, str]) -> None:
    assert readable(line_of("refused", **fields)).isprintable()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("verify uid=0 pid=12 account=deploy valid=True", "verify    root (uid 0)  account deploy  valid"),
        (
            "verify uid=0 pid=12 account=deploy origin=192.0.2.1 valid=False reason=replayed",
            "verify    root (uid 0)  account deploy  origin 192.0.2.1  invalid  replayed",
        ),
        (
            'refused uid=3999999 method=verify pid=12 account=a code=throttled reason="too many wrong codes"',
            "refused   uid 3999999  verify  account a  throttled  too many wrong codes",
        ),
        (
            "load uid=0 pid=1 account=deploy audit=replaced",
            "load      root (uid 0)  account deploy  audit replaced",
        ),
        (
            "load uid=0 pid=1 account=a audit=successor deadline=None cutover=False",
            "load      root (uid 0)  account a  audit successor",
        ),
        (
            "load uid=0 pid=1 account=a audit=successor deadline=2027-01-15T09:00:00+01:00 cutover=True",
            "load      root (uid 0)  account a  audit successor  deadline 2027-01-15T09:00:00+01:00  cutover",
        ),
        ("load deadline=--5", "load      deadline --5"),
        ("verify account=None", "verify    account None"),
        ("stopping", "stopping"),
    ],
)
def test_an_event_is_readable(line: str, shown: str) -> None:
    assert readable(line) == shown


@pytest.mark.parametrize(
    ("line", "accounts"),
    [
        ("verify uid=0 account=ann valid=True", {"ann"}),
        ('load_batch uid=0 audit=loaded accounts=3 added="ann, ben" replaced=joe', {"ann", "ben", "joe"}),
        ('restore uid=0 audit=restored accounts=2 changed="ben, joe"', {"ben", "joe"}),
        ('refused uid=0 reason="ann, ben"', set()),
        ("ready", set()),
    ],
)
def test_the_accounts_of_an_event_are_found(line: str, accounts: set[str]) -> None:
    found = daemonlog.parse(line)
    assert found is not None
    assert {name for name in ("ann", "ben", "joe", "en", "") if found.is_about(name)} == accounts


def test_what_a_peer_chose_looks_like_no_other_field() -> None:
    line = line_of("verify", uid=0, account="deploy", origin="x  account root  valid", valid=False)
    assert readable(line).endswith('account deploy  origin "x  account root  valid"  invalid')


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        '  File "x"',
        "",
        "Started pki2fad.service",
        "verify uid",
        'a b="',
    ],
)
def test_other_lines_are_no_events(line: str) -> None:
    assert daemonlog.parse(line) is None


def test_numbers_and_verdicts_are_such_in_json() -> None:
    found = daemonlog.parse("verify uid=0 pid=12 account=12 valid=True")
    assert found is not None
    assert found.as_json() == {"event": "verify", "uid": 0, "pid": 12, "account": "12", "valid": True}


def test_an_account_of_any_name_stays_a_text_and_numbers_are_numbers() -> None:
    found = daemonlog.parse("verify uid=7 account=True offset=-2 spent_from=None valid=False")
    assert found is not None
    assert found.as_json() == {
        "event": "verify",
        "uid": 7,
        "account": "True",
        "offset": -2,
        "spent_from": None,
        "valid": False,
    }
