"""`systemd/uninstall` takes away what install put there, and the rest only when it is told to."""

import json
import re

import pytest
from support import peers
from support.clones import Cloned
from support.documents import MANUAL, block

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

KEPT = ("/etc/pki2fad", "/var/lib/pki2fad", "/var/log/pki2fad")
# What a change of users, logins and units leaves behind, whoever made it.
TRACES = re.compile(
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-? |/etc/\.pwd\.lock "
    r"|/var/log/(journal|lastlog|faillog)|/var/lib/systemd|/etc/systemd/system/sockets\.target\.wants "
)


def listed(clone: Cloned) -> list[str]:
    return [line for line in clone.tree() if not TRACES.match(line)]


def account(clone: Cloned) -> dict[str, object]:
    (found,) = json.loads(clone.ctl("accounts", "--json"))
    return dict(found)


def test_it_keeps_keys_and_state_until_it_is_told_to_purge(clone: Cloned) -> None:
    before = listed(clone)
    clone.install_and_start()
    clone.sh("mkdir /etc/systemd/system/pki2fad.service.d /opt/pki2fad/mine")
    clone.sh("printf '[Service]\\nNice=5\\n' >/etc/systemd/system/pki2fad.service.d/mine.conf")
    clone.run("pki2factl", "verify", clone.ctl("generate"))
    had, key = account(clone), clone.sh("sha256sum /etc/pki2fad/host.pem").stdout

    assert block(MANUAL, "command: remove") == "sudo ./systemd/uninstall\n"
    promised = clone.uninstall("--dry-run").stdout
    said = clone.uninstall().stdout
    assert promised == said
    now = listed(clone)
    left = sorted(set(now) - set(before))
    mine = ("/opt/pki2fad ", "/opt/pki2fad/mine ", "/etc/systemd/system/pki2fad.service.d")
    assert [line for line in left if not line.startswith((*KEPT, *mine))] == []
    assert set(before) <= set(now)
    for path in (*KEPT, "/etc/systemd/system/pki2fad.service.d"):
        assert f"keep {path}\n" in said
    assert clone.state_of("pki2fad.service") == clone.state_of("pki2fad.socket") == "inactive"
    assert clone.sh("getent passwd pki2fad; getent group pki2fad-verify").stdout

    clone.sh("rmdir /opt/pki2fad/mine /opt/pki2fad")
    clone.install()
    clone.sh("systemctl enable --now pki2fad.socket")
    assert account(clone) == had
    assert clone.sh("sha256sum /etc/pki2fad/host.pem").stdout == key

    said = clone.uninstall("--purge", "--yes").stdout
    for path in KEPT:
        assert f"destroy {path}\n" in said
    assert "the host's key, which opens the state and backups" in said
    clone.sh("rm -r /etc/systemd/system/pki2fad.service.d")
    assert listed(clone) == before
    users = clone.sh("cat /etc/passwd /etc/group /etc/shadow /etc/gshadow").stdout
    assert "pki2fad" not in users


def test_purge_asks_and_anything_but_the_word_changes_nothing(clone: Cloned) -> None:
    clone.sh("mkdir /etc/pki2fad && touch /etc/pki2fad/host.pem")
    peers.require("script")
    on_terminal = "script --quiet --return --command '/run/share/clone/systemd/uninstall --purge' /dev/null"
    done = clone.run("bash", "-c", f"echo yes | {on_terminal}", check=False)
    assert done.returncode == 1
    assert "Type 'purge' to go on" in done.stdout
    assert "nothing has changed" in done.stdout
    clone.sh("test -e /etc/pki2fad/host.pem")
    done = clone.run("bash", "-c", f"echo purge | {on_terminal}")
    assert "destroy /etc/pki2fad" in done.stdout
    clone.sh("test ! -e /etc/pki2fad")


def test_an_upgrade_takes_away_what_is_no_longer_shipped(clone: Cloned) -> None:
    old = clone.clone / "systemd" / "pki2fad-old.timer"
    old.write_text("[Timer]\nOnActiveSec=1y\n")
    clone.install()
    clone.sh("test -e /usr/local/lib/systemd/system/pki2fad-old.timer")
    old.unlink()
    assert "remove /usr/local/lib/systemd/system/pki2fad-old.timer\n" in clone.install().stdout
    clone.sh("test ! -e /usr/local/lib/systemd/system/pki2fad-old.timer")
