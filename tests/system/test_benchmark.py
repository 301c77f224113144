"""The benchmark, at a reduced size: it works, it checks replies, and it names what is missing. No times."""

import functools
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import contestants as names
from benchmarks import peers, plans, plot, rates, report
from benchmarks.contestants import Row
from benchmarks.generator import Failed, Load, Missing, Programs
from benchmarks.peers import Peer
from benchmarks.plans import Exchange
from benchmarks.rounds import interleaved, started
from benchmarks.supplies import Cycle
from support.daemon import PATIENCE, wait_until
from support.peers import require

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"
REQUESTS = int(os.environ.get("PKI2FAD_SOAK", "200000"))
ONE = Load(1, 1)
MESSAGE = b"forty bytes are what everybody sends her"

# In the order of the table.
CONTESTANTS = [
    names.ECHO,
    names.LOOKUP,
    names.REDIS,
    names.FREERADIUS,
    names.FASTAPI,
    names.FAST_FASTAPI,
    names.OATHTOOL,
    names.NAIVE,
    names.RIGHT,
    names.IN_MEMORY_RIGHT,
    names.GENERATE,
    names.GENERATE_OTHER,
    names.WRONG,
    names.THROTTLED,
    names.CLIENT,
    names.ASYNC_CLIENT,
]


def run(*arguments: str) -> str:
    """Run the command, which has to succeed; returns what it prints."""
    # what it measures is no daemon whose coverage is wanted
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    env["TMPDIR"] = "/tmp"  # its sockets are there: a longer path may leave no room for their names
    command = [sys.executable, "-P", str(RUN), "--reduced", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What all parts but the soak print, and write."""
    for command in ("gcc", "redis-server", "oathtool"):
        require(command)
    path = tmp_path_factory.mktemp("benchmark") / "figures.json"
    printed = run(f"--json={path}")
    return printed, json.loads(path.read_text())


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    require("gcc")
    return Programs(tmp_path)


@pytest.fixture
def echo(short_path: Path, programs: Programs) -> Iterator[Peer]:
    """A server that sends back what it gets."""
    peer = peers.echo(short_path / "echo", programs)
    peer.start()
    yield peer
    peer.stop()


def is_here(name: str) -> bool:
    """True if a contestant that need not be installed is."""
    if name == names.FREERADIUS:
        return bool(shutil.which("freeradius") or shutil.which("freeradius", path="/usr/sbin"))
    wanted = {names.FASTAPI: ("fastapi", "uvicorn"), names.FAST_FASTAPI: ("fastapi", "uvloop", "httptools")}
    return all(importlib.util.find_spec(module) is not None for module in wanted.get(name, ()))


@pytest.mark.slow
def test_every_contestant_has_a_row_under_every_load(found: tuple[str, dict[str, Any]]) -> None:
    printed, figures = found
    tables = {key: table for key, table in figures["tables"].items() if key.startswith("rates ")}
    assert list(tables) == ["rates 1 x 1", "rates 64 x 1", "rates 8 x 32"]
    for table in tables.values():
        assert [row[0] for row in table["rows"]] == CONTESTANTS
        assert table["title"] in printed
        for name, *cells in table["rows"]:
            assert len(cells) == 6 if is_here(name) else cells[0].startswith("missing: ")
    for name, *cells in tables["rates 1 x 1"]["rows"]:
        assert not is_here(name) or all(cell > 0 for cell in cells)
        assert f"\n{name} " in printed
    rounds = tables["rates 1 x 1"]["data"][names.WRONG]
    assert [one["requests"] > 0 for one in rounds] == [True]


def siege_rows() -> list[str]:
    if os.geteuid() != 0:
        return ["siege"]
    sockets = ["root.sock", "verify.sock", "root.sock, connected anew", "verify.sock, connected anew"]
    return [name for name in sockets for _ in range(6)] + ["memory that the daemon took"]


@pytest.mark.slow
def test_every_part_has_its_rows(found: tuple[str, dict[str, Any]]) -> None:
    printed, figures = found
    rows = {
        key: [row[0] for row in table["rows"]]
        for key, table in figures["tables"].items()
        if not key.startswith("rates ")
    }
    goals = rows.pop("goals")
    assert rows == {
        "growth": ["1", "1000"],
        "turning": ["p50", "p99", "p999"],
        "starts": ["python3 -c pass", "pki2fad, exec to first answer", "pki2factl verify"],
        "loading": ["load", "load_batch"],
        "crowds": ["alone", "beside them", "memory of a connection"],
        "siege": siege_rows(),
    }
    assert "pki2factl verify, of python3 -c pass" in goals
    for table in figures["tables"].values():
        assert table["title"] in printed


@pytest.mark.slow
def test_the_figures_say_what_they_depend_on(found: tuple[str, dict[str, Any]]) -> None:
    _, figures = found
    about = figures["machine"]
    assert about["command"].startswith("run.py --reduced --json=")
    assert about["cores"] == len(os.sched_getaffinity(0))
    assert socket.gethostname() not in json.dumps({**about, "command": ""})


@pytest.mark.slow
def test_a_soak_leaves_memory_and_descriptors_as_they_were(tmp_path: Path) -> None:
    require("gcc")
    path = tmp_path / "soak.json"
    run("soak", f"--requests={REQUESTS}", f"--json={path}")
    data = json.loads(path.read_text())["tables"]["soak"]["data"]
    memory, descriptors = data["memory"], data["descriptors"]
    assert data["requests"] >= REQUESTS
    # every connection and every account was used by then
    assert memory[-1] - memory[len(memory) // 2] < 1024 * 1024
    # the journal of SQLite may be read by another thread just then
    assert descriptors[0] is None or max(descriptors[1:]) <= descriptors[0] + 4


@pytest.mark.slow
def test_nothing_is_left_of_a_benchmark_that_is_ended(short_path: Path) -> None:
    require("gcc")
    env = {**os.environ, "TMPDIR": str(short_path)}
    command = [sys.executable, "-P", str(RUN), "--reduced", "rates"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: list(short_path.glob("*/rates/naive/s")), "no server starts", patience=120)
        started = children.read_text().split()
    finally:
        process.terminate()
        _, error = process.communicate(timeout=PATIENCE)
    assert (process.returncode, error) == (143, b"")
    assert len(started) > 2
    assert [pid for pid in started if os.path.exists(f"/proc/{pid}")] == []
    assert list(short_path.iterdir()) == []


def ask(echo: Peer, programs: Programs, *exchanges: Exchange, turn: float = 0.0) -> int:
    """Ask the echo server; returns how many requests were answered."""
    plan = plans.write(echo.root / "plan", exchanges, turn=turn)
    return programs.load(echo.address, plan, ONE, "--cold").requests


def test_replies_that_have_to_come_are_counted(echo: Peer, programs: Programs) -> None:
    assert ask(echo, programs, *[Exchange(MESSAGE, MESSAGE)] * 10) == 10


@pytest.mark.parametrize(
    ("exchange", "why"),
    [
        (Exchange(MESSAGE, MESSAGE[:-1] + b"?"), "was not answered as it has to be"),
        (Exchange(MESSAGE * 2, MESSAGE), "more came than was asked for"),
    ],
    ids=["another", "more"],
)
def test_any_other_reply_fails(echo: Peer, programs: Programs, exchange: Exchange, why: str) -> None:
    good = Exchange(MESSAGE, MESSAGE)
    with pytest.raises(Failed, match=why):
        ask(echo, programs, good, exchange)


def test_a_reply_of_a_step_that_is_not_now_fails(echo: Peer, programs: Programs) -> None:
    other = MESSAGE[::-1]
    before, after = Exchange(MESSAGE, MESSAGE, other), Exchange(MESSAGE, other, MESSAGE)
    assert ask(echo, programs, before, turn=time.time() + 600) == 1
    assert ask(echo, programs, after, turn=time.time() - 600) == 1
    for exchange, turn in ((before, time.time() - 600), (after, time.time() + 600)):
        with pytest.raises(Failed, match="was not answered as it has to be"):
            ask(echo, programs, exchange, turn=turn)


def rows_with(programs: Programs, echo: Peer, peer: Peer) -> list[Row]:
    """The echo server and another contestant, neither of them started."""
    exchanges = [Exchange(MESSAGE, MESSAGE)]
    make: Callable[[], Cycle] = functools.partial(Cycle, echo.root.with_suffix(".plan"), exchanges)
    return [Row(names.ECHO, programs, echo, make), Row("another", programs, peer, make)]


def not_installed(_peer: Peer) -> list[str]:
    raise Missing("apt-get install it")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (not_installed, "missing: apt-get install it"),
        (lambda _: ["sh", "-c", "echo it is broken; exit 1"], "failed: sh does not start: it is broken"),
    ],
    ids=["missing", "broken"],
)
def test_a_contestant_that_is_not_there_is_named_with_the_reason(
    short_path: Path, programs: Programs, command: Callable[[Peer], list[str]], said: str
) -> None:
    echo = peers.echo(short_path / "echo", programs)
    rows = rows_with(programs, echo, Peer(short_path / "another", command))
    with started(rows, lambda _: None):
        measured = interleaved(rows, [ONE], 1, 0.01, lambda _: None)
    table = rates.table(ONE, rows, measured[ONE])
    assert table.rows[1] == ["another", said]
    assert re.search(rf"^another +{re.escape(said)}$", table.text(), re.MULTILINE)
    assert table.rows[0][1] > 0


def test_a_contestant_that_answers_wrongly_is_named_with_what_came(
    short_path: Path, programs: Programs
) -> None:
    echo = peers.echo(short_path / "echo", programs)
    wrong = functools.partial(Cycle, short_path / "wrong", [Exchange(MESSAGE, MESSAGE.upper())])
    rows = [Row("wrong", programs, echo, wrong)]
    with started(rows, lambda _: None):
        interleaved(rows, [ONE], 1, 0.01, lambda _: None)
    assert rows[0].failures[ONE].startswith("failed: load: request 0 was not answered as it has to be")
    assert MESSAGE.decode() in rows[0].failures[ONE]
    name, said = rates.table(ONE, rows, {names.ECHO: [], "wrong": []}).rows[0]
    assert (name, said) == ("wrong", rows[0].failures[ONE])


def test_the_rates_are_drawn(tmp_path: Path) -> None:
    table = report.Table("rates 1 x 1", "one", ["", "", ""], [[names.ECHO, 1.0, 1.0], ["gone", "missing: x"]])
    about = {"date": "2026-01-31", "cores": 2, "processor": "some"}
    if importlib.util.find_spec("matplotlib") is None:
        with pytest.raises(Missing, match="bench"):
            plot.draw(tmp_path / "a.png", [table], about)
        return
    plot.draw(tmp_path / "a.png", [table], about)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
