"""The journal under a running systemd, with journald's defaults: it takes all that matters."""

import json

import pytest
from support.daemon import wait_until
from support.installed import SERVICE, Installed

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

JOURNALD = "systemd-journal"  # the first 15 characters, as the kernel has them

# More than journald takes of one service in 30 s by default: 10 000, and six times that on a large disk.
FLOOD = 80_000

# Asks for codes, `least` times or until a line of the log is dropped, and for a backup. Prints how often,
# and the status.
ASK = r"""
import json, socket, sys
from pki2fad.client import Client
ONE = b"\x94\0\1\xa8generate\x91\x81\xa7account\xa7default"  # [0, 1, "generate", [{"account": "default"}]]
least, asked = int(sys.argv[1]), 0
with Client("/run/pki2fad/socket", 60) as client, socket.socket(socket.AF_UNIX) as raw:
    raw.connect("/run/pki2fad/socket")
    raw.sendall(ONE)
    length = len(raw.recv(1000))  # of every answer
    while asked < least or (not least and not client.status()["log_dropped"]):
        raw.sendall(ONE * 100)
        left = 100 * length
        while left:
            left -= len(raw.recv(left))
        asked += 100
    client.backup(open("/etc/pki2fad/host.pub.pem", "rb").read())
    print(json.dumps([asked + 1, client.status()]))
"""


def ask(host: Installed, least: int) -> tuple[int, dict[str, object]]:
    done = host.run("/opt/pki2fad/bin/python", "-c", ASK, str(least))
    asked, status = json.loads(done.stdout)
    return asked, status


def count(host: Installed, start: str) -> int:
    """How many lines of the daemon begin like that."""
    host.run("journalctl", "--sync")
    script = f"journalctl --output=cat _SYSTEMD_UNIT={SERVICE} | grep -c '^{start}' || true"
    return int(host.sh(script).stdout)


def told(host: Installed) -> int:
    """How many lines were dropped, as the log itself says."""
    script = f"journalctl --output=cat --grep='^lines_dropped count=' _SYSTEMD_UNIT={SERVICE} || true"
    return sum(int(line.partition(" count=")[2]) for line in host.sh(script).stdout.splitlines())


def prepared(host: Installed) -> Installed:
    pem = host.run("openssl", "pkey", "-in", "/etc/pki2fad/host.pem", "-pubout").stdout
    host.write("/etc/pki2fad/host.pub.pem", pem)
    host.systemctl("start")
    return host


def test_a_flood_of_lines_takes_none_of_those_that_matter_from_the_journal(host: Installed) -> None:
    prepared(host)
    assert "RateLimit" not in host.sh("cat /etc/systemd/journald.conf.d/*").stdout
    asked, _ = ask(host, FLOOD)
    host.ctl("lock")
    wait_until(lambda: count(host, "lock .* audit=locked"), "the last line is not there")
    assert count(host, "backup .* audit=copied") == 1
    assert count(host, "generate ") + told(host) == asked
    assert not host.sh("journalctl -o cat --grep='Suppressed .* messages from pki2fad' || true").stdout


def test_a_journald_that_is_stopped_stops_nothing_and_gets_what_matters_later(host: Installed) -> None:
    prepared(host)
    host.run("pkill", "--signal=STOP", "--exact", JOURNALD)
    try:
        asked, status = ask(host, 0)
    finally:
        host.run("pkill", "--signal=CONT", "--exact", JOURNALD)
    assert status["log_dropped"]
    wait_until(lambda: count(host, "backup .* audit=copied"), "the line does not come")
    host.ctl("generate")
    wait_until(lambda: told(host), "nobody says what is missing")
    assert told(host) == json.loads(host.ctl("status", "--json"))["log_dropped"]
    assert count(host, "generate ") + told(host) == asked + 1


def test_the_log_is_that_of_the_unit_and_of_the_daemons_user(host: Installed) -> None:
    host.drop_in("[Service]\nExecStartPost=+/bin/echo verify uid=0 account=forged valid=True\n")
    prepared(host)
    host.run("systemd-run", "--wait", "--uid=pki2fad", "/bin/echo", "verify uid=0 account=other valid=True")
    code = host.ctl("generate")
    host.ctl("verify", code)
    wait_until(lambda: any(line.startswith("verify ") for line in host.messages()), "no line comes")
    assert any("account=forged" in line for line in host.messages())
    shown = host.ctl("log")
    assert "  verify    root (uid 0)  account default  valid" in shown
    assert f"systemd: Started {SERVICE}" in shown
    assert "forged" not in shown
    assert "other" not in shown
    assert code not in shown
    times = [line.split()[0] for line in shown.splitlines()]
    assert all(len(time) == 25 and time[10] == "T" and time[19] in "+-" for time in times)
