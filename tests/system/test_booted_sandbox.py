"""What the running unit keeps the daemon from, as seen from inside it, and what it must not hide."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import code_of
from support.inside import ask, open_door
from support.installed import Installed

from pki2fad.crypto.rsakeys import PrivateKey

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

SEED = b"a seed of the sandbox tests....."

# Calls that the C library has no function for, or one that Python does not have everywhere.
RAW = """
import ctypes, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
"""

REFUSED = {
    "a network socket": ("socket.socket, socket.AF_INET", "EAFNOSUPPORT"),
    "a packet socket": ("socket.socket, socket.AF_PACKET, socket.SOCK_RAW", "EAFNOSUPPORT"),
    "a netlink socket": ("socket.socket, socket.AF_NETLINK, socket.SOCK_RAW", "EAFNOSUPPORT"),
    "executing": ('os.execv, "/bin/sh", ["sh"]', "EACCES"),
    "executing its own interpreter": ('os.execv, "/usr/bin/python3", ["python3"]', "EACCES"),
    "starting a process": ('os.posix_spawn, "/bin/true", ["true"], {}', "EACCES"),
    "tracing": ("call, 'ptrace', 16, os.getpid(), 0, 0", "EPERM"),
    "reading another's memory": ("call, 'process_vm_readv', 1, 0, 0, 0, 0, 0", "EPERM"),
    "a new user namespace": ("call, 'unshare', 0x10000000", "EPERM"),
    "a new mount namespace": ("call, 'unshare', 0x20000", "EPERM"),
    "joining a namespace": ("call, 'setns', 0, 0", "EPERM"),
    "mounting": ("call, 'mount', b'none', b'/tmp', b'tmpfs', 0, 0", "EPERM"),
    "memory to write and execute": ("mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, 7", "EPERM"),
    "another user": ("os.setuid, 0", "EPERM"),
    "giving files away": ('os.chown, "/var/lib/pki2fad/state.db", 0, 0', "EPERM"),
    "setting the clock": ("call, 'clock_settime', 0, ctypes.create_string_buffer(16)", "EPERM"),
    "the key's own file": ('open, "/etc/pki2fad/host.pem"', "EACCES"),
    "signals to others": ("os.kill, 1, 0", "EPERM"),
}


@pytest.fixture(scope="module")
def host(layer: Path, host_key: PrivateKey) -> Iterator[Installed]:
    """A running daemon that does what a test says."""
    with Installed("sandbox", layer) as host:
        host.prepare(host_key, default=SEED)
        open_door(host)
        host.systemctl("start")
        yield host


@pytest.mark.parametrize("what", REFUSED)
def test_the_daemon_is_refused(host: Installed, what: str) -> None:
    attempt, error = REFUSED[what]
    assert ask(host, f"{RAW}\nanswer = attempt({attempt})") == error


def test_what_is_allowed_shows_that_the_probe_can_tell(host: Installed) -> None:
    assert ask(host, f"{RAW}\nanswer = attempt(mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, 3)") == "done"
    assert ask(host, "answer = attempt(open, '/etc/pki2fad/seeds.d/default.sealed')") == "done"


def test_it_can_write_to_its_own_directories_alone(host: Installed) -> None:
    host.run("chmod", "0777", "/srv", "/opt/pki2fad")  # what modes alone would allow
    writable = """
import os
def write(path):
    with open(path, "x"):
        os.unlink(path)
answer = []
for directory, below, _ in os.walk("/"):
    if attempt(write, directory + "/probe") == "done":
        answer.append(directory)
    below[:] = [name for name in below if directory != "/" or name not in ("proc", "sys")]
"""
    # /tmp and /var/tmp are not the host's, and the message queues not anybody's.
    private = {"/tmp", "/var/tmp", "/dev/mqueue"}
    own = {"/var/lib/pki2fad", "/var/log/pki2fad"}
    assert set(ask(host, writable)) == own | private


def test_what_it_writes_to_tmp_nobody_else_sees(host: Installed) -> None:
    assert ask(host, "open('/tmp/mine', 'x').close(); answer = True")
    assert host.run("find", "/tmp", "-maxdepth", "1", "-name", "mine").stdout == ""


def test_it_sees_no_other_process_and_no_home(host: Installed) -> None:
    seen = ask(
        host,
        "import os\n"
        "answer = [[name for name in os.listdir('/proc') if name.isdigit()], attempt(os.listdir, '/root')]",
    )
    assert seen == [[str(host.pid)], "EACCES"]


def test_it_has_no_capability_and_a_user_of_its_own(host: Installed) -> None:
    status = dict(
        line.split(":\t", 1) for line in host.path(f"/proc/{host.pid}/status").read_text().splitlines()
    )
    assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    uid, gid = (host.run("id", option, "pki2fad").stdout.strip() for option in ("-u", "-g"))
    assert status["Uid"].split() == [uid] * 4
    assert status["Gid"].split() == [gid] * 4
    assert 0 < int(uid) < 1000  # a system user's, the same at every start


def test_its_master_key_is_in_secret_memory(host: Installed) -> None:
    assert "/secretmem" in host.path(f"/proc/{host.pid}/maps").read_text()
    assert not [line for line in host.messages() if "not_locked" in line or "exec_not_forbidden" in line]


def test_others_of_its_user_cannot_trace_it_or_read_its_memory(host: Installed) -> None:
    trace = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.ptrace(16, int(sys.argv[1]), 0, 0), ctypes.get_errno())\n"
        "open(f'/proc/{sys.argv[1]}/mem', 'rb')\n"
    )
    done = host.run(
        "runuser", "-u", "pki2fad", "--", "/usr/bin/python3", "-c", trace, str(host.pid), check=False
    )
    assert done.stdout == "-1 1\n"
    assert "PermissionError" in done.stderr


def test_the_running_unit_is_as_little_exposed_as_its_file(host: Installed) -> None:
    done = host.run("systemd-analyze", "security", "--threshold=5", "pki2fad.service", check=False)
    assert done.returncode == 0, done.stdout


def test_peers_have_the_roles_of_their_own_uids_and_groups(host: Installed) -> None:
    host.run("useradd", "--groups=pki2fad-verify", "checks")
    host.run("useradd", "--groups=pki2fad-generate", "makes")
    host.run("useradd", "--gid=pki2fad-generate", "primary")
    host.run("useradd", "nobody-special")

    def exits(user: str, *arguments: str) -> int:
        return host.run("runuser", "-u", user, "--", "pki2factl", *arguments, check=False).returncode

    users = ("checks", "makes", "primary", "nobody-special")
    assert [exits(user, "generate") for user in users] == [4, 0, 0, 4]
    assert [exits(user, "verify", "no code") for user in users] == [6, 4, 4, 4]
    assert [exits(user, "accounts") for user in users] == [4, 4, 4, 4]
    uids = {int(host.run("id", "-u", user).stdout) for user in users}
    assert uids == {
        int(part.partition("=")[2])
        for line in host.messages("--grep=uid=[1-9]")
        for part in line.split()
        if part.startswith("uid=")
    }


def test_a_service_has_the_roles_of_its_own_user_and_groups(host: Installed) -> None:
    service = ["systemd-run", "--wait", "--pipe", "--quiet", "--uid=nobody-of-ours"]
    host.run("useradd", "nobody-of-ours")
    asked = ["/usr/local/bin/pki2factl", "generate", "--json"]
    assert host.run(*service, *asked, check=False).returncode == 4
    made = json.loads(host.run(*service, "--property=SupplementaryGroups=pki2fad-generate", *asked).stdout)
    assert made["code"] == code_of(SEED, made["step"])
