"""The public clients, for other processes: calls to the daemon over its Unix socket.

    from pki2fad.client import Client

    with Client() as client:
        if client.verify("123456", account="deploy"):
            ...

    from pki2fad.client import AsyncClient  # the same on asyncio

    async with AsyncClient() as client:
        if await client.verify("123456", account="deploy"):
            ...

This package is on the client's path: importing it costs little more than msgpack and socket, and
asyncio comes only with `AsyncClient`.
"""

from pki2fad.client.answers import Account, Code, Enrolment
from pki2fad.client.blocking import Client
from pki2fad.client.calls import DEFAULT_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pki2fad.client.aio import AsyncClient

__all__ = ["DEFAULT_TIMEOUT", "Account", "AsyncClient", "Client", "Code", "Enrolment"]


def __getattr__(name: str) -> "Any":
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pki2fad.client import aio  # only here: blocking programs do not pay for asyncio

    return aio.AsyncClient
