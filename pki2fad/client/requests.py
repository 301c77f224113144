"""The requests of the clients' calls: one for most, several for what does not fit into one message.

This module is on the client's path.
"""

import os

from pki2fad.client import answers
from pki2fad.client.answers import Account
from pki2fad.errors import BadRequest
from pki2fad.wire import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")
    Request = tuple[str, dict[str, Any]]  # method and arguments
    # Yields requests, each of which gets its result, and returns what the call does.
    Call = Generator[Request, Any, T]

PAGE = 50_000  # accounts of one answer: with four authenticators each they are half of the longest


def encode(msgid: int, request: "Request") -> bytes:
    """The bytes of a request. Raises `BadRequest` for arguments that cannot be sent."""
    method, arguments = request
    try:
        return messages.encode_request(msgid, method, arguments)
    except (OverflowError, TypeError, ValueError) as error:
        raise BadRequest(f"an argument cannot be sent: {error}") from None


def _given(arguments: "dict[str, Any]") -> "dict[str, Any]":
    return {name: value for name, value in arguments.items() if value is not None and value is not False}


def single(method: str, arguments: "dict[str, Any]", convert: "Callable[[Any], T]") -> "Call[T]":
    """A call of one request; arguments that are None or False are left out."""
    return answers.converted((yield (method, _given(arguments))), convert)


def pages(match: str | None, after: str | None, limit: int | None) -> "Call[list[Account]]":
    """The call for a list of accounts, which may need several requests."""
    rows: list[Account] = []
    while True:
        size = PAGE if limit is None else min(PAGE, limit - len(rows))
        arguments = {"match": match, "after": after, "limit": size}
        page = answers.converted((yield ("accounts", _given(arguments))), answers.accounts)
        rows += page
        if len(page) < size or len(rows) == limit:
            return rows
        after = page[-1].account


def upload(data: bytes, *, replace: bool) -> "Call[dict[str, Any]]":
    """The call that sends a backup; the result is that of the last part."""
    result = None
    for request in _parts(data, replace=replace):
        result = yield request
    return answers.converted(result, answers.fields)


def _parts(data: bytes, *, replace: bool) -> "Iterator[Request]":
    """The requests that send a backup in parts."""
    upload, size = os.urandom(16).hex(), messages.PART_LIMIT
    for offset in range(0, max(1, len(data)), size):
        arguments = {
            "upload": upload,
            "offset": offset,
            "part": data[offset : offset + size],
            "last": offset + size >= len(data),
            "replace": replace,
        }
        yield ("restore", _given(arguments))
