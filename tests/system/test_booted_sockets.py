"""The other sockets under a running systemd: codes as credentials of units, and one that only verifies."""

import pytest
from support.daemon import code_of
from support.installed import SEED, SERVICE, Installed

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

RULES = """
[[credential]]
unit = "backup.service"

[[credential]]
unit = "report.service"
account = "missing"
"""
UNIT = """
[Service]
Type=oneshot
DynamicUser=yes
LoadCredential=otp:/run/pki2fad/credential.sock
ExecStart=/bin/sh -c 'cat $CREDENTIALS_DIRECTORY/otp'
StandardOutput=journal
"""


@pytest.fixture
def asked(host: Installed) -> Installed:
    """The host with the sockets, and units that want codes; the daemon does not run yet."""
    host.write("/etc/pki2fad/pki2fad.toml", RULES)
    for unit in ("backup", "report", "other"):
        host.write(f"/etc/systemd/system/{unit}.service", UNIT)
    host.systemctl("daemon-reload", "--no-ask-password")
    host.systemctl("start", "pki2fad.socket", "pki2fad-credential.socket", "pki2fad-verify.socket")
    return host


def said(host: Installed, unit: str) -> list[str]:
    """What a unit wrote itself."""
    host.run("journalctl", "--sync")
    done = host.run("journalctl", "-u", unit, "-o", "cat", "-t", "sh", check=False)
    return done.stdout.splitlines()


def test_a_unit_that_is_allowed_gets_a_code_and_the_asking_starts_the_daemon(asked: Installed) -> None:
    assert asked.show("ActiveState") == "inactive"
    asked.systemctl("start", "backup.service")
    (code,) = said(asked, "backup.service")
    assert asked.show("ActiveState") == "active"
    step = int(asked.run("date", "+%s").stdout) // 30
    assert code in (code_of(SEED, step), code_of(SEED, step - 1))
    assert any(
        message.startswith("credential unit=backup.service credential=otp account=default")
        for message in asked.messages()
    )


@pytest.mark.parametrize(
    ("unit", "reason"), [("other", "no [[credential]]"), ("report", "there is no account 'missing'")]
)
def test_a_unit_that_is_not_allowed_or_whose_account_is_missing_fails_and_the_journal_says_why(
    asked: Installed, unit: str, reason: str
) -> None:
    done = asked.systemctl("start", f"{unit}.service", check=False)
    assert done.returncode != 0
    assert asked.show("ExecMainStatus", f"{unit}.service") == "243"  # CREDENTIALS
    assert said(asked, f"{unit}.service") == []
    (refused,) = [message for message in asked.messages() if message.startswith("credential_refused")]
    assert f"unit={unit}.service" in refused
    assert reason in refused
    (entry,) = [entry for entry in asked.journal() if entry["MESSAGE"] == refused]
    assert entry["PRIORITY"] == "4"


def test_while_it_is_locked_a_unit_fails(asked: Installed) -> None:
    asked.ctl("lock")
    assert asked.systemctl("start", "backup.service", check=False).returncode != 0
    assert any("credential_refused" in message and "locked" in message for message in asked.messages())
    asked.ctl("unlock")
    asked.systemctl("start", "backup.service")


def test_on_its_socket_members_of_the_group_and_root_verify_and_no_more(asked: Installed) -> None:
    asked.run("useradd", "--groups", "pki2fad-verify", "member")
    asked.run("useradd", "stranger")
    verify = ["--socket", "/run/pki2fad/verify.sock", "verify"]
    code = asked.ctl("generate")

    def as_user(name: str, *arguments: str) -> tuple[int, str]:
        done = asked.run("runuser", "-u", name, "--", "pki2factl", *arguments, check=False)
        return done.returncode, done.stdout.strip()

    assert as_user("stranger", *verify, code)[0] == 3
    assert as_user("member", *verify, code) == (0, "valid")
    assert as_user("member", *verify, code) == (1, "invalid")
    refused = asked.run("pki2factl", "--socket", "/run/pki2fad/verify.sock", "generate", check=False)
    assert refused.returncode == 4
    assert "this socket answers only verify" in refused.stderr


def test_the_start_asks_for_more_time_while_it_opens_the_state(asked: Installed) -> None:
    asked.drop_in("[Service]\nTimeoutStartSec=30s\nEnvironment=SYSTEMD_LOG_LEVEL=debug\n")
    asked.run("systemd-analyze", "log-level", "debug")
    asked.systemctl("start", SERVICE)
    assert asked.logged("EXTEND_TIMEOUT_USEC=60000000")
