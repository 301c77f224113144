"""`pki2factl metrics` against a real daemon, and the file that a real node_exporter reads."""

import json
import os
import re
import socket
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
from support.daemon import Daemon, as_user, code_of, ctl, wait_until
from support.peers import require
from support.raw import Seal

SEED = b"a seed of the metrics tests....."
UID = 4242

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def running(daemon: Daemon, seal: Seal) -> Daemon:
    """A daemon with an account, that others can reach."""
    daemon.root.chmod(0o755)
    daemon.deliver("default", seal(SEED))
    return daemon.start()


def samples(text: str) -> Samples:
    """The values by name, method and outcome, as Prometheus's own parser finds them."""
    return {
        (
            one.name.removeprefix("pki2fad_"),
            *(one.labels[name] for name in ("method", "outcome") if name in one.labels),
        ): one.value
        for family in parse(text)
        for one in family.samples
        if "le" not in one.labels
    }


def metrics(daemon: Daemon, *arguments: str) -> Samples:
    done = daemon.ctl("metrics", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return samples(done.stdout)


def test_what_was_asked_is_counted(running: Daemon) -> None:
    before = time.time()
    with running.client() as client:
        code = client.generate()
        for candidate in (code.code, code.code, "0000000"):
            client.verify(candidate)
        found = metrics(running)
    assert found[("up",)] == 1
    assert found[("accounts",)] == 1
    assert found[("requests_total", "generate", "ok")] == 1
    assert found[("requests_total", "verify", "ok")] == 1
    assert found[("requests_total", "verify", "invalid")] == 2
    assert found[("request_duration_seconds_count", "verify")] == 3
    assert 0 < found[("request_duration_seconds_sum", "verify")] < 3
    assert found[("connections",)] == 2
    assert abs(found[("start_time_seconds",)] - before) < 60
    assert re.fullmatch(
        r"\d{4}.*2FA Code: \d{6}\n", running.codes_log.read_text().splitlines(keepends=True)[-1]
    )
    last = found[("minute_log_last_code_timestamp_seconds",)]
    assert last % 60 == 0
    assert before - 120 < last <= time.time()


def test_throttled_requests_are_counted(running: Daemon) -> None:
    assert metrics(running)[("requests_total", "verify", "throttled")] == 0
    wrong = f"{int(code_of(SEED, int(time.time()) // 30)) ^ 1:06}"
    for _ in range(6):
        running.ctl("verify", wrong)
    assert metrics(running)[("requests_total", "verify", "throttled")] > 0


def test_a_locked_daemon_is_seen_to_be_locked(running: Daemon) -> None:
    assert metrics(running)[("locked",)] == 0
    running.ctl("lock")
    assert metrics(running)[("locked",)] == 1


def test_the_numbers_are_there_as_json_too(running: Daemon) -> None:
    done = running.ctl("metrics", "--json")
    status = json.loads(running.ctl("status", "--json").stdout)
    answered = json.loads(done.stdout)
    assert answered["accounts"] == 1
    assert status.keys() - {"log", "cheap_passphrase"} < answered.keys()


def test_a_monitor_sees_the_numbers_and_may_do_nothing_else(daemon: Daemon, seal: Seal) -> None:
    daemon.root.chmod(0o755)
    daemon.deliver("secret-name", seal(SEED))
    daemon.configure(f'[[access]]\nrole = "monitor"\nwho = [{UID}]\n')
    daemon.start()
    done = daemon.ctl("metrics", command=as_user(UID))
    assert samples(done.stdout)[("accounts",)] == 1
    assert "secret-name" not in done.stdout
    for command in (["generate"], ["verify", "123456"], ["accounts"], ["lock"]):
        assert daemon.ctl(*command, command=as_user(UID)).returncode == 4
    stranger = daemon.ctl("metrics", command=as_user(UID + 1))
    assert (stranger.returncode, stranger.stdout) == (4, "")
    assert "role 'monitor'" in stranger.stderr


def test_looking_does_not_keep_the_daemon_unlocked(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.configure("[lock]\nidle = 1\n")
    daemon.start()
    with daemon.client() as client:
        wait_until(lambda: client.metrics()["locked"], "it does not lock while it is looked at")


def test_the_file_is_there_whole_for_everybody_and_replaced(running: Daemon) -> None:
    file = running.root / "pki2fad.prom"
    file.write_text("old")
    before = file.stat().st_ino
    os.umask(previous := os.umask(0o077))
    try:
        assert metrics_to(running, file) == (0, "")
    finally:
        os.umask(previous)
    assert samples(file.read_text())[("up",)] == 1
    assert file.stat().st_ino != before
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in running.root.iterdir() if "prom" in path.name] == ["pki2fad.prom"]


def metrics_to(daemon: Daemon, file: Path) -> tuple[int, str]:
    done = daemon.ctl("metrics", "--out", str(file))
    return done.returncode, done.stdout


def test_without_a_daemon_the_file_says_so(running: Daemon) -> None:
    file = running.root / "pki2fad.prom"
    metrics_to(running, file)
    running.stop()
    assert metrics_to(running, file) == (3, "")
    assert samples(file.read_text()) == {("up",): 0}
    assert running.ctl("metrics").stdout == ""


@pytest.mark.slow
def test_a_daemon_that_does_not_answer_is_not_up(tmp_path: Path, short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(short_path / "socket"))
        listening.listen()
        file = tmp_path / "pki2fad.prom"
        done = ctl(tmp_path, "--socket", str(short_path / "socket"), "metrics", "--out", str(file))
    assert done.returncode == 7
    assert samples(file.read_text()) == {("up",): 0}


def test_who_is_refused_leaves_the_file_as_it_was(running: Daemon) -> None:
    user = as_user(UID)
    directory = running.root / "textfile"
    directory.mkdir()
    os.chown(directory, UID, UID)
    done = running.ctl("metrics", "--out", str(directory / "pki2fad.prom"), command=user)
    assert done.returncode == 4
    assert list(directory.iterdir()) == []


@contextmanager
def node_exporter(directory: Path) -> Iterator[str]:
    """Debian's node_exporter on loopback, with the textfile collector alone: the URL of its metrics."""
    command = [
        require("prometheus-node-exporter"),
        "--web.listen-address=127.0.0.1:0",
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={directory}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if address := re.search(r"(?:address=|Listening on\S* \S*)(127\.0\.0\.1:\d+)", line):
                    break
            else:
                raise AssertionError(f"it does not listen: {said}")
            yield f"http://{address[1]}/metrics"
        finally:
            process.terminate()


def test_a_real_node_exporter_takes_the_file(running: Daemon, tmp_path: Path) -> None:
    running.ctl("verify", "0000000")
    metrics_to(running, tmp_path / "pki2fad.prom")
    with node_exporter(tmp_path) as url, urllib.request.urlopen(url, timeout=30) as response:
        shown = response.read().decode().splitlines()
    assert "node_textfile_scrape_error 0" in shown
    assert "pki2fad_up 1" in shown
    assert 'pki2fad_requests_total{method="verify",outcome="invalid"} 1' in shown
    assert 'pki2fad_request_duration_seconds_count{method="verify"} 1' in shown
    assert "# TYPE pki2fad_request_duration_seconds histogram" in shown


def test_a_real_node_exporter_would_say_that_a_file_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "pki2fad.prom").write_text("# TYPE pki2fad info\npki2fad_info 1\n# EOF\n")
    with node_exporter(tmp_path) as url, urllib.request.urlopen(url, timeout=30) as response:
        assert "node_textfile_scrape_error 1" in response.read().decode().splitlines()
