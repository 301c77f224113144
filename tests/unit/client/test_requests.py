"""The requests of a long list of accounts, and of a backup."""

from typing import Any

import pytest

from pki2fad.client import requests
from pki2fad.client.requests import PAGE
from pki2fad.errors import ProtocolError


def rows(begin: int, count: int) -> list[dict[str, Any]]:
    """As the daemon lists them."""
    of = {"algorithm": "SHA1", "digits": 6, "period": 30, "last_used": None, "offset": 0, "drift": []}
    more = {"successor": None, "id": "00", "authenticators": [], "recovery": None}
    return [{"account": f"n{number:07}", **of, **more} for number in range(begin, begin + count)]


def asked(there: int, **args: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The arguments of each request, and the names in the result, where there are so many accounts."""
    call = requests.pages(args.get("match"), args.get("after"), args.get("limit"))
    sent: list[dict[str, Any]] = []
    method, arguments = next(call)
    try:
        while True:
            assert method == "accounts"
            sent.append(arguments)
            begin = int(arguments["after"][1:]) + 1 if "after" in arguments else 0
            method, arguments = call.send(rows(begin, min(arguments["limit"], there - begin)))
    except StopIteration as end:
        return sent, [account.account for account in end.value]


def names(begin: int, end: int) -> list[str]:
    return [f"n{number:07}" for number in range(begin, end)]


def test_a_short_list_is_one_request() -> None:
    assert asked(3) == ([{"limit": PAGE}], names(0, 3))
    assert asked(0) == ([{"limit": PAGE}], [])


@pytest.mark.parametrize(("there", "count"), [(PAGE - 1, 1), (PAGE, 2), (2 * PAGE + 1, 3)])
def test_a_long_list_is_several_each_behind_the_last_name(there: int, count: int) -> None:
    sent, found = asked(there)
    assert found == names(0, there)
    assert sent == [
        {"limit": PAGE, **({"after": f"n{number * PAGE - 1:07}"} if number else {})}
        for number in range(count)
    ]


def test_a_limit_is_kept_over_several_requests() -> None:
    sent, found = asked(3 * PAGE, limit=PAGE + 10, after="n0000004", match="n*")
    assert found == names(5, PAGE + 15)
    assert [(one["limit"], one["match"]) for one in sent] == [(PAGE, "n*"), (10, "n*")]
    assert asked(100, limit=7) == ([{"limit": 7}], names(0, 7))


def test_another_answer_than_a_list_is_a_protocol_error() -> None:
    call = requests.pages(None, None, None)
    next(call)
    with pytest.raises(ProtocolError):
        call.send({"accounts": 3})
