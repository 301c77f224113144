"""Codes as credentials of other units: `LoadCredential=otp:SOCKET` has systemd ask for one.

systemd connects as root from an abstract address that names the unit and the credential (systemd.exec(5)),
reads until the end of the stream, and hands what it read to the unit. Nobody else is answered.
"""

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pki2fad.errors import Refusal
from pki2fad.host import log
from pki2fad.rules import clock
from pki2fad.server.peer import ids_of

# NUL RANDOM /unit/UNIT/CREDENTIAL
_ADDRESS = re.compile(rb"\0[0-9a-f]+/unit/([^/]+)/([^/]+)", re.ASCII)

# Connections that wait for a code of a later step; systemd gives a unit 90 s to start.
_WAITING = 64
_LONGEST_WAIT = 60.0

# More than systemd takes for a credential: it fails the start of the unit, where an empty one would not.
_TOO_MUCH = bytes(1024 * 1024 + 1)
_DEADLINE = 1.0  # seconds for systemd to read it

Generate = Callable[[str, clock.Reading], dict[str, Any]]


class CredentialRule(NamedTuple):
    """A unit of systemd that gets a code of an account as a credential of this name."""

    unit: str
    credential: str
    account: str


class CredentialServer:
    """Hands codes to systemd, none to two units while it runs.

    `generate` answers for an account as the method does, or raises a `Refusal`.
    """

    def __init__(self, generate: Generate, rules: Iterable[CredentialRule]) -> None:
        self._generate = generate
        self._given: dict[str, int] = {}  # the end of the step whose code was handed out last, by account
        self._waiting: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.use(rules)

    def use(self, rules: Iterable[CredentialRule]) -> None:
        """Follow these rules from now on."""
        self._accounts = {(rule.unit, rule.credential): rule.account for rule in rules}

    async def stop(self) -> None:
        """Answer nobody any more; units that wait for their turn do not start."""
        self._stopping.set()
        await asyncio.gather(*self._waiting)

    def accepted(self, connection: socket.socket, address: Any) -> None:
        """Answer on a connection from this address."""
        pid, uid, _ = ids_of(connection)
        asked = _ADDRESS.fullmatch(address) if isinstance(address, bytes) else None
        if uid != 0 or asked is None:
            log.warning("credential_refused", uid=uid, pid=pid, reason="only systemd is answered here")
            connection.close()
            return
        unit, credential = (name.decode("ascii", "backslashreplace") for name in asked.groups())
        task = asyncio.get_running_loop().create_task(self._answer(connection, unit, credential))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer(self, connection: socket.socket, unit: str, credential: str) -> None:
        fields = {"unit": unit, "credential": credential, "account": self._accounts.get((unit, credential))}
        with connection:
            try:
                answer = (await self._code(unit, credential)).encode()
            except _Refused as refused:
                log.warning("credential_refused", **fields, reason=refused)
                answer = _TOO_MUCH
            except Exception as error:  # a mistake of ours must start no unit without a code
                log.failure("credential_failed", error, **fields)
                answer = _TOO_MUCH
            else:
                log.info("credential", **fields)
            try:
                async with asyncio.timeout(_DEADLINE):
                    await asyncio.get_running_loop().sock_sendall(connection, answer)
            except (OSError, TimeoutError) as error:
                if answer is not _TOO_MUCH:  # which systemd does not read to its end
                    log.warning("credential_lost", **fields, reason=error)

    async def _code(self, unit: str, credential: str) -> str:
        account = self._accounts.get((unit, credential))
        if account is None:
            raise _Refused("no [[credential]] of the configuration allows it")
        if len(self._waiting) > _WAITING:
            raise _Refused("too many units wait for codes")
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                return await self._fresh(account)
        except TimeoutError:
            raise _Refused("other units took the codes of the account, for too long") from None
        except Refusal as refusal:
            raise _Refused(str(refusal)) from None

    async def _fresh(self, account: str) -> str:
        """A code of a step of which no other unit has one; who checks it accepts it once."""
        while True:
            reading = clock.read()
            generated = self._generate(account, reading)
            end = int(reading.wall) + generated["valid_for"]
            given = self._given.get(account, 0)
            if end > given or given > end + _LONGEST_WAIT:  # the clock was set back: that one comes no more
                self._given[account] = end
                return str(generated["code"])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(generated["valid_for"]):
                    await self._stopping.wait()
                    raise _Refused("the daemon stops")


class _Refused(Exception):
    """Why a unit gets no code."""
