"""The rows of the table: a server, what it is asked, and by whom."""

import json
import sys
from collections.abc import Callable
from typing import Protocol

from benchmarks import accounts, peers
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs, Result, require, run
from benchmarks.sizes import MOST
from benchmarks.supplies import Supply

ECHO = "C echo"
LOOKUP = "C look-up"
REDIS = "redis GET"
FREERADIUS = "FreeRADIUS rlm_totp"
FASTAPI = "FastAPI, uvicorn"
FAST_FASTAPI = "FastAPI, uvloop"
OATHTOOL = "oathtool process"
NAIVE = "naive Python"
RIGHT = "verify, right code"
IN_MEMORY_RIGHT = "  in memory alone"
GENERATE = "generate"
GENERATE_OTHER = "generate, other encoding"
OLDER_GENERATE = "generate, older version"
OLDER_RIGHT = "right code, older version"
OLDER = (OLDER_GENERATE, OLDER_RIGHT)
WRONG = "verify, wrong code"
THROTTLED = "verify, throttled"
CLIENT = "Client.generate"
ASYNC_CLIENT = "AsyncClient.generate"


class Server(Protocol):
    """What is measured."""

    address: str

    def start(self) -> None: ...

    def pin(self, load: Load) -> None: ...

    def tidy(self) -> None: ...

    def stop(self) -> None: ...


class Row:
    """A contestant: asks its server by the load generator, unless `measure` is another.

    `make` gives what it asks, when the server is there. `most` is the greatest load that it can stand.
    """

    def __init__(
        self,
        name: str,
        programs: Programs,
        server: Server,
        make: Callable[[], Supply],
        most: Load = MOST,
    ) -> None:
        self.name = name
        self.server = server
        self.trouble: str | None = None  # why it is not measured: "missing: ..." or "failed: ..."
        self.failures: dict[Load, str] = {}  # the same for single loads
        self._programs = programs
        self._make = make
        self._most = most
        self._supply: Supply | None = None

    def stands(self, load: Load) -> bool:
        return load.connections <= self._most.connections and load.depth <= self._most.depth

    def prepare(self) -> None:
        """Make what it asks."""
        self._supply = self._make()

    def measure(self, load: Load, seconds: float) -> Result:
        """Ask for so long. Raises `Failed`."""
        assert self._supply is not None
        plan, options = self._supply.take(load)
        self.server.pin(load)
        result = self._programs.load(self.server.address, plan, load, *options, seconds=seconds)
        self._supply.used(result)
        return result


class Oathtool(Row):
    """A process for each code: no server, and no connection."""

    def __init__(self, programs: Programs) -> None:
        super().__init__(OATHTOOL, programs, NoServer(), _nothing, Load(1, 1))
        self._command: list[str] = []
        self._code = ""

    def prepare(self) -> None:
        step = accounts.step_now()
        self._code = accounts.right_codes(step)[0]
        moment = f"--now=@{step * accounts.PERIOD}"
        self._command = [require("oathtool", "oathtool"), "--totp", moment, accounts.seed(0).hex()]

    def measure(self, load: Load, seconds: float) -> Result:
        return self._programs.spawn(seconds, load, self._code, self._command)


class PythonClient(Row):
    """One of the project's own clients, in a process of its own."""

    def __init__(self, name: str, programs: Programs, server: Pki2fad, most: Load) -> None:
        super().__init__(name, programs, server, _nothing, most)
        self._asked = server.root.with_suffix(".asked")
        self._count = server.count

    def prepare(self) -> None:
        self._asked.write_text(
            json.dumps([accounts.name(number) for number in accounts.shuffled(self._count)])
        )

    def measure(self, load: Load, seconds: float) -> Result:
        self.server.pin(load)
        kind = self.name.partition(".")[0]
        size = [str(seconds), str(load.connections), str(load.depth), str(load.cores[1])]
        script = str(peers.SERVERS / "client.py")
        command = [sys.executable, "-P", script, kind, self.server.address, str(self._asked), *size]
        return run(command, seconds + 120)


class NoServer:
    """Where there is none."""

    address = ""

    def start(self) -> None: ...

    def pin(self, load: Load) -> None: ...

    def tidy(self) -> None: ...

    def stop(self) -> None: ...


def _nothing() -> Supply:
    raise AssertionError("it makes no plan")
