"""What `systemd/install` and `uninstall` refuse, before anything changes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clones import Cloned

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

NOBODY = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]


@pytest.fixture(scope="module")
def host(packages: Path) -> Iterator[Cloned]:
    with Cloned(packages) as host:
        host.sh("mkdir -p /srv/open /srv/full && chmod 0777 /srv/open && touch /srv/full/file")
        host.sh("mkdir /home/deploy && useradd --uid 4242 deploy && chown deploy /home/deploy")
        yield host


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--prefx", "/opt/x"], "unknown argument: --prefx"),
        (["/opt/x"], "unknown argument: /opt/x"),
        (["--prefix"], "--prefix needs a directory"),
        (["--prefix", "opt"], "--prefix takes an absolute path"),
        (["--prefix=/opt/../etc"], "--prefix takes an absolute path"),
        (["--prefix=/"], "--prefix takes an absolute path"),
        (["--prefix=/opt/a b"], "--prefix takes an absolute path"),
        (["--prefix=/opt/a|b"], "--prefix takes an absolute path"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_how_it_is_right(
    host: Cloned, arguments: list[str], reason: str
) -> None:
    done = host.install(*arguments, check=False)
    assert done.returncode == 2
    assert f"install: error: {reason}" in done.stderr
    assert "usage: systemd/install [--prefix DIR]" in done.stderr


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("/srv/open/pki2fad", "/srv/open is not safe for programs: others than root can write there"),
        ("/srv/full", "/srv/full is there, and not from here"),
        ("/usr/local", "/usr/local is there, and not from here"),
        ("/home/deploy/pki2fad", "the service sees nothing of /home"),
        ("/tmp/pki2fad", "the service sees nothing of /tmp"),
    ],
)
def test_a_prefix_where_the_programs_could_not_be_trusted_or_run_is_refused(
    host: Cloned, prefix: str, reason: str
) -> None:
    before = host.tree()
    done = host.install("--prefix", prefix, check=False)
    assert done.returncode == 1
    assert reason in done.stderr
    assert host.tree() == before


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_only_root_can_do_it(host: Cloned, script: str) -> None:
    done = host.run(*NOBODY, f"/run/share/clone/systemd/{script}", check=False)
    assert done.returncode == 1
    assert "only root can do this" in done.stderr


def test_a_dry_run_says_everything_to_everybody_and_changes_nothing(host: Cloned) -> None:
    before = host.tree()
    for command in ([], NOBODY):
        done = host.run(*command, "/run/share/clone/systemd/install", "--dry-run")
        for what in (
            "install /run/share/clone in a virtual environment of its own below /opt/pki2fad",
            "write /usr/local/lib/systemd/system/pki2fad.service",
            "write /usr/local/lib/systemd/user/pki2fad.socket",
            "write /etc/pki2fad/pki2fad.toml",
            "link /usr/local/bin/pki2factl to /opt/pki2fad/bin/pki2factl",
        ):
            assert f"{what}\n" in done.stdout
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert len(lines) == len(set(lines))
    assert host.tree() == before


def test_where_python_cannot_make_environments_the_package_is_named(host: Cloned) -> None:
    host.sh("mv /usr/lib/python3.*/ensurepip /root/")
    try:
        done = host.install("--dry-run", check=False)
    finally:
        host.sh("mv /root/ensurepip /usr/lib/python3.[0-9]*/")
    assert done.returncode == 1
    assert "apt-get install python3 python3-venv" in done.stderr


def test_without_packages_the_first_install_leaves_nothing(host: Cloned) -> None:
    before = host.tree()
    done = host.install(check=False, PIP_FIND_LINKS="/nowhere")
    assert done.returncode == 1
    assert "pip could not install /run/share/clone; nothing has changed" in done.stderr
    assert host.tree() == before


def test_a_command_of_somebody_else_is_not_replaced(host: Cloned) -> None:
    host.sh("echo mine >/usr/local/bin/pki2factl")
    done = host.install(check=False)
    host.sh("rm /usr/local/bin/pki2factl")
    assert done.returncode == 1
    assert "/usr/local/bin/pki2factl is in the way: it is not a link" in done.stderr


def test_two_at_once_are_not_let_in(host: Cloned) -> None:
    before = host.tree()
    with host.popen("flock", "/run/pki2fad-install.lock", "sh", "-c", "echo held; cat") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = host.install(check=False)
        holder.communicate("")
    assert (done.returncode, done.stderr) == (1, "install: error: another install or uninstall is at work\n")
    assert host.tree() == before


def test_where_nothing_is_installed_there_is_nothing_to_take_away(host: Cloned) -> None:
    done = host.uninstall(check=False)
    assert done.returncode == 1
    assert "nothing is installed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--prge"], 2, "unknown argument: --prge"),
        (["--yes"], 2, "--yes goes with --purge"),
        (["--purge"], 1, "--purge asks on a terminal; where there is none it takes --yes"),
    ],
)
def test_nothing_is_purged_by_accident(host: Cloned, arguments: list[str], status: int, reason: str) -> None:
    host.sh("mkdir -p /var/lib/pki2fad && touch /var/lib/pki2fad/state.db")
    done = host.uninstall(*arguments, check=False)
    assert done.returncode == status
    assert re.search(re.escape(reason), done.stderr)
    host.sh("test -e /var/lib/pki2fad/state.db && rm -r /var/lib/pki2fad")
