"""What is seen from outside of a daemon that systemd runs: the journal, and the counts for node_exporter."""

import json
import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
from support.daemon import wait_until
from support.installed import Installed

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

TEXTFILES = "/var/lib/prometheus/node-exporter"
FILE = f"{TEXTFILES}/pki2fad.prom"


@pytest.fixture
def running(host: Installed) -> Installed:
    """With the daemon, and the timer that goes with it, where there is a node_exporter."""
    host.run("mkdir", "-p", TEXTFILES)
    host.systemctl("enable", "pki2fad-metrics.timer")
    host.systemctl("start", "pki2fad.socket", "pki2fad.service")
    return host


def values(text: str) -> dict[str, float]:
    return {family.name: family.samples[0].value for family in parse(text)}


def test_requests_are_shown_from_the_journal(running: Installed) -> None:
    running.ctl("lock")
    running.ctl("unlock")
    running.run("journalctl", "--sync")
    shown = running.ctl("log").splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{time}  lock      root \(uid 0\)  audit locked", shown[-2])
    assert any("  systemd: Started pki2fad.service" in line for line in shown)
    (lock, unlock) = [json.loads(line) for line in running.ctl("log", "--json", "--audit").splitlines()][-2:]
    assert (lock["event"], unlock["event"], unlock["uid"]) == ("lock", "unlock", 0)


def test_a_log_file_of_a_first_try_does_not_hide_the_journal(running: Installed) -> None:
    running.write("/var/log/pki2fad/pki2fad.log", "2026-01-31 00:00:00,000 stopping\n")
    running.ctl("lock")
    running.run("journalctl", "--sync")
    assert "audit locked" in running.ctl("log")
    assert "2026-01-31" not in running.ctl("log")
    running.systemctl("stop", "pki2fad*.socket", "pki2fad.service")
    assert running.run("pki2factl", "log", check=False).returncode == 3  # nor is it taken for the daemon's


def test_the_journal_is_followed(running: Installed) -> None:
    script = """
        pki2factl log -f -n 1 >/run/followed &
        until [ -s /run/followed ]; do sleep 0.05; done
        pki2factl lock >/run/locked
        until grep -q "audit locked" /run/followed; do sleep 0.05; done
        kill %1
        while grep -qsx journalctl /proc/[0-9]*/comm; do sleep 0.05; done  # it ends with the command
    """
    running.run("timeout", "30", "bash", "-euc", script)


def test_changes_have_a_priority_of_their_own(running: Installed) -> None:
    running.ctl("generate")
    running.ctl("lock")
    notices = [entry["MESSAGE"] for entry in running.journal("-p", "5..5") if entry["_COMM"] == "pki2fad"]
    assert [re.search(r"audit=\w+", line)[0] for line in notices] == ["audit=added", "audit=locked"]  # type: ignore[index]


def test_the_timer_writes_the_counts_while_the_daemon_runs(running: Installed) -> None:
    file = running.path(FILE)
    wait_until(file.exists, "the timer writes nothing")
    found = values(file.read_text())
    assert (found["pki2fad_up"], found["pki2fad_accounts"]) == (1, 1)
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (0, 0o644)
    running.systemctl("stop", "pki2fad.service")
    assert running.show("ActiveState", "pki2fad-metrics.timer") == "inactive"
    assert running.show("ActiveState") == "inactive"  # nobody asked through the socket
    running.systemctl("start", "pki2fad.service")
    assert running.show("ActiveState", "pki2fad-metrics.timer") == "active"


def test_a_run_says_nothing_in_the_journal(running: Installed) -> None:
    running.systemctl("start", "pki2fad-metrics.service")
    running.run("journalctl", "--sync")
    assert running.run("journalctl", "-u", "pki2fad-metrics.service", "-o", "cat", "--quiet").stdout == ""


def test_a_member_of_the_group_sees_the_counts(running: Installed) -> None:
    run = ["setpriv", "--reuid=4242", "--regid=4242"]
    gid = running.run("getent", "group", "pki2fad-monitor").stdout.split(":")[2]
    shown = running.run(*run, f"--groups={gid}", "pki2factl", "metrics").stdout
    assert values(shown)["pki2fad_accounts"] == 1
    refused = running.run(*run, "--clear-groups", "pki2factl", "metrics", check=False)
    assert (refused.returncode, refused.stdout) == (4, "")
