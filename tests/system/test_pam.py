"""`pki2factl pam` as pam_exec calls it: whom it lets in, what it believes, what it says and to whom."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from support.daemon import Daemon, as_user
from support.logins import NEVER, PAM, PASSWORD, Host, host_with
from support.raw import Seal

SCRIPT = ["/opt/pki2fad/bin/pki2factl", "pam"]
IN, INVALID, NOT_REACHABLE, TRY_LATER, REFUSED, FAILED = 0, 1, 3, 5, 6, 7
ADDRESS = "192.0.2.1"
DATAGRAMS = (socket.AF_UNIX, socket.SOCK_DGRAM)


@pytest.fixture
def host(daemon: Daemon, seal: Seal) -> Iterator[Host]:
    with host_with(daemon, seal, "alice", "bob") as host:
        yield host


@pytest.fixture
def started(host: Host) -> Host:
    host.daemon.start()
    return host


def inside(host: Host, name: str) -> tuple[Path, str]:
    """A file that the host has as /run/pki2fad/NAME, and what it is called there."""
    return host.daemon.root / name, f"/run/pki2fad/{name}"


def verdicts(host: Host) -> int:
    return host.daemon.log().count(" valid=")


# Codes


@pytest.mark.parametrize("end", ["", "\0"], ids=["bare", "with a NUL"])
def test_a_good_code_lets_in_once_and_nothing_is_printed(started: Host, end: str) -> None:
    code = started.code("alice")
    done = [started.pam("alice", code + end) for _ in range(2)]
    assert [one.returncode for one in done] == [IN, INVALID]
    assert {one.stdout + one.stderr for one in done} == {b""}


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "12345",
        "123456789",
        "\u0661\u0662\u0663\u0664\u0665\u0666",
        "123_456",
        "12-34-56",
        "12345x",
        "123456\0\0",
        "9" * 5000,
    ],
)
def test_what_cannot_be_a_code_is_refused_and_not_counted(started: Host, typed: str) -> None:
    assert started.pam("alice", typed).returncode == REFUSED
    assert verdicts(started) == 0


@pytest.mark.parametrize("form", ["{} {}", "{}-{}", " {}{} ", "{}{}\r\n"])
def test_a_code_is_taken_as_people_type_it(started: Host, form: str) -> None:
    code = started.code("alice")
    assert started.pam("alice", form.format(code[:3], code[3:])).returncode == IN


@pytest.mark.parametrize("form", ["{}", "{}\n", " {} "])
def test_a_recovery_code_lets_in_once(started: Host, form: str) -> None:
    with started.daemon.client() as client:
        code = form.format(client.recovery_create("alice")[0])
    tries = [started.pam("alice", one).returncode for one in (code.lower(), code, code.replace("-", ""))]
    assert tries == [IN, INVALID, INVALID]


def test_who_is_throttled_finds_until_when_in_the_log_of_logins(started: Host) -> None:
    for _ in range(5):
        started.pam("alice", NEVER)
    assert re.search(r"try again at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", started.log("throttled: "))


def test_wrong_codes_are_throttled_by_address(started: Host) -> None:
    tries = [started.pam("alice", NEVER, RHOST=ADDRESS).returncode for _ in range(6)]
    assert tries == [INVALID] * 4 + [TRY_LATER] * 2
    assert started.pam("alice", started.code("alice"), RHOST=ADDRESS).returncode == TRY_LATER
    assert "try_later" not in started.log("throttled: ")
    assert started.pam("alice", started.code("alice"), RHOST="192.0.2.2").returncode == IN
    assert f" origin={ADDRESS} " in started.daemon.log()


@pytest.mark.parametrize("rhost", [{}, {"RHOST": ""}], ids=["absent", "empty"])
def test_a_login_without_an_address_names_no_origin(started: Host, rhost: dict[str, str]) -> None:
    assert started.pam("alice", started.code("alice"), **rhost).returncode == IN
    assert " origin=" not in started.daemon.log()


def test_what_is_too_long_for_an_address_is_refused(started: Host) -> None:
    code = started.code("alice")
    assert started.pam("alice", code, RHOST="a" * 256).returncode == REFUSED
    assert started.pam("alice", code, RHOST="a" * 255).returncode == IN


@pytest.mark.parametrize("kind", ["account", "password", "open_session", "close_session", ""])
def test_other_lines_than_auth_are_refused(started: Host, kind: str) -> None:
    assert started.pam("alice", started.code("alice"), TYPE=kind).returncode == REFUSED
    assert "only for 'auth' lines" in started.log("refused")


# Accounts


@pytest.mark.parametrize(
    "user", ["", "../alice", "alice\nbob", ".alice", "-alice", "älice", "a" * 65, "al ice", "\udcff"]
)
@pytest.mark.parametrize("options", [[], ["--fail-open"]])
def test_what_cannot_be_an_account_is_refused_before_the_daemon_is_asked(
    host: Host, user: str, options: list[str]
) -> None:
    assert host.pam(user, "123456", *options).returncode == REFUSED
    assert "no daemon" not in host.log("refused")


def test_a_user_without_an_account_is_refused(started: Host) -> None:
    assert started.pam("carol", "123456").returncode == REFUSED
    assert "no_such_account" in started.log("user=carol")


def test_the_line_of_the_stack_can_name_the_account(started: Host) -> None:
    assert started.pam("Max Müller", started.code("alice"), "--account", "alice").returncode == IN
    assert started.pam("bob", started.code("bob"), "--account=alice").returncode == INVALID


def test_the_line_of_the_stack_can_name_the_socket(started: Host) -> None:
    command = [*PAM[:-1], "--socket", "/run/pki2fad/socket", "pam"]
    assert started.pam("alice", started.code("alice"), command=command).returncode == IN


def test_a_map_says_whose_account_is_whose_and_who_is_not_in_it_is_refused(started: Host) -> None:
    file, path = inside(started, "map")
    file.write_text("# users of the domain\n\nDOM\\max\talice\n  bob   bob\n")
    assert started.pam("DOM\\max", started.code("alice"), "--map", path).returncode == IN
    assert started.pam("bob", started.code("bob"), f"--map={path}").returncode == IN
    assert started.pam("alice", started.code("alice", 1), "--map", path).returncode == REFUSED
    assert "no line for this user" in started.log("user=alice")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("alice\n", 1),
        ("alice alice alice\n", 1),
        ("bob bob\nalice ../x\n", 2),
        ("alice alice\n\nalice bob\n", 3),
    ],
)
def test_a_map_with_anything_wrong_in_it_lets_nobody_in(started: Host, text: str, line: int) -> None:
    file, path = inside(started, "map")
    file.write_text(text)
    assert started.pam("alice", started.code("alice"), "--map", path, "--fail-open").returncode == FAILED
    assert f"map, line {line}: " in started.log("refused")


@pytest.mark.parametrize("how", ["owner", "group", "others", "link", "missing"])
def test_a_map_that_others_may_write_lets_nobody_in(started: Host, how: str) -> None:
    file, path = inside(started, "map")
    file.write_text("alice alice\n")
    if how == "owner":
        os.chown(file, 4242, 0)
    elif how == "link":
        file.rename(f"{file}.real")
        file.symlink_to("map.real")
    elif how == "missing":
        file.unlink()
    else:
        file.chmod(0o664 if how == "group" else 0o646)
    assert started.pam("alice", started.code("alice"), "--map", path, "--fail-open").returncode == FAILED
    assert verdicts(started) == 0


def send_for_ever(to: socket.socket) -> NoReturn:
    while True:
        to.send(b"<85>noise")


# Without a daemon


def leave(host: Host, how: str) -> None:
    """Let there be no daemon: no socket, or one on which nobody listens."""
    if how != "never started":
        host.daemon.start()
        getattr(host.daemon, how)()


@pytest.mark.parametrize("how", ["never started", "stop", "kill"])
def test_without_a_daemon_it_refuses_unless_told_otherwise(host: Host, how: str) -> None:
    leave(host, how)
    code = host.code("alice")
    assert host.pam("alice", code).returncode == NOT_REACHABLE
    assert "user=alice" in host.log("refused ")
    assert host.pam("alice", code, "--fail-open").returncode == IN
    assert "<84>" in host.log("let_in_without_a_code ")


def test_fail_open_lets_nobody_in_while_a_daemon_is_there(host: Host) -> None:
    for sealed in host.daemon.seeds_dir.iterdir():  # a new state beside old seeds is unavailable at first
        os.utime(sealed, (0, 0))
    host.daemon.start()
    assert host.pam("alice", host.code("alice"), "--fail-open").returncode == TRY_LATER
    assert "unavailable: " in host.log("refused")
    assert host.daemon.ctl("lock").returncode == 0
    assert host.pam("alice", host.code("alice"), "--fail-open").returncode == TRY_LATER
    assert "locked: " in host.log('reason="locked')


def test_fail_open_lets_no_wrong_code_in(started: Host) -> None:
    tries = [started.pam("alice", NEVER, "--fail-open").returncode for _ in range(5)]
    assert tries == [INVALID] * 4 + [TRY_LATER]


def test_who_takes_too_long_to_answer_is_no_missing_daemon(started: Host) -> None:
    started.daemon.signal(signal.SIGSTOP)
    try:
        done = started.pam("alice", started.code("alice"), "--fail-open", "--timeout=0.3")
    finally:
        started.daemon.signal(signal.SIGCONT)
    assert done.returncode == FAILED
    assert "no answer within 0.3 s" in started.log("refused")


def test_the_deadline_is_for_a_code_that_does_not_come_too(started: Host) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "wb", buffering=0) as never_closed:
        never_closed.write(b"123")
        done = subprocess.run(
            [*started.mounts.enter, *PAM, "--timeout", "0.3"],
            env={"PAM_TYPE": "auth", "PAM_USER": "alice"},
            stdin=reading,
            timeout=60,
            check=False,
        )
    assert done.returncode == FAILED
    assert "no answer within 0.3 s" in started.log("refused")


def test_a_log_that_nobody_reads_holds_up_no_login_for_long_and_is_a_refusal(started: Host) -> None:
    log = started.work / "log"
    log.rename(started.work / "log that is read")
    with socket.socket(*DATAGRAMS) as full, socket.socket(*DATAGRAMS) as flood:
        full.bind(str(log))
        flood.connect(str(log))
        flood.setblocking(False)
        with pytest.raises(BlockingIOError):
            send_for_ever(flood)
        assert started.pam("alice", NEVER).returncode == -signal.SIGALRM
        assert started.pam("alice", started.code("alice")).returncode == IN
    (started.work / "log that is read").rename(log)


# Whom it believes


def test_it_looks_at_nothing_of_the_environment_but_pams(started: Host) -> None:
    evil = started.work / "evil"
    for package in (evil / "pki2factl", evil / "pki2fad", evil / "msgpack"):
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("import os\nos._exit(0)\n")
    misleading = {
        "PKI2FAD_SOCKET": "/nonexistent",
        "XDG_RUNTIME_DIR": "/nonexistent",
        "HOME": "/nonexistent",
        "PYTHONHOME": "/nonexistent",
        "PYTHONPATH": str(evil),
        "PYTHONSTARTUP": str(evil / "pki2fad" / "__init__.py"),
        "PYTHONINSPECT": "1",
    }

    def ask(command: list[str], code: str, **env: str) -> int:
        return subprocess.run(
            [*started.mounts.enter, *command],
            env={"PAM_TYPE": "auth", "PAM_USER": "alice", **env},
            input=code.encode(),
            cwd=evil,
            timeout=60,
            check=False,
        ).returncode

    code = started.code("alice")
    assert [ask(PAM, one, **misleading) for one in (NEVER, code)] == [INVALID, IN]


@pytest.mark.parametrize(
    "command", [SCRIPT, [*SCRIPT[:1], "--socket", "/x", "pam"], [*SCRIPT[:1], "--socket=/x", "pam"]]
)
def test_it_does_not_run_where_the_environment_rules_the_interpreter(
    started: Host, command: list[str]
) -> None:
    done = subprocess.run(
        [*started.mounts.enter, *command],
        env={"PAM_TYPE": "auth", "PAM_USER": "alice"},
        input=started.code("alice").encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "-I -m pki2factl pam" in started.log("not isolated")


@pytest.mark.parametrize("how", ["writable", "of two users", "link", "relative"])
def test_a_socket_where_others_may_put_one_is_not_used(started: Host, how: str) -> None:
    directory, path = inside(started, "more")
    directory.mkdir(mode=0o755)
    path = f"{path}/socket"
    if how == "writable":
        directory.chmod(0o777)
    elif how == "of two users":
        os.chown(directory, 4242, 0)
        (directory / "below").mkdir()
        os.chown(directory / "below", 4243, 0)
        path = path.replace("/socket", "/below/socket")
    elif how == "link":
        directory.rmdir()
        directory.symlink_to("config")
    else:
        path = path.removeprefix("/")
    command = ["/opt/pki2fad/bin/python", "-I", "-m", "pki2factl", "--socket", path, "pam", "--fail-open"]
    assert started.pam("alice", started.code("alice"), command=command).returncode == FAILED
    assert verdicts(started) == 0


def test_a_stranger_who_listens_is_not_believed(host: Host) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(host.daemon.socket))
    listen = (
        "import os, socket, sys\nsocket.socket(fileno=0).listen(9)\nprint(flush=True)\nsys.stderr.read(1)"
    )
    with (
        listener,
        subprocess.Popen(
            [
                *as_user(4242),
                "/usr/bin/python3",
                "-c",
                listen,
            ],
            stdin=listener.fileno(),
            stdout=subprocess.PIPE,
        ) as stranger,
    ):
        try:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"\n"
            done = host.pam("alice", host.code("alice"), "--fail-open")
        finally:
            stranger.kill()
    assert done.returncode == NOT_REACHABLE
    assert "uid 4242 listens there, and is not trusted" in host.log("refused")


def test_the_daemon_may_be_a_user_to_whom_the_sockets_directory_belongs(host: Host) -> None:
    host.daemon.root.chmod(0o755)
    host.daemon.give_to(4242)
    host.daemon.start(command=as_user(4242))
    assert host.pam("alice", host.code("alice"), RHOST=ADDRESS).returncode == IN


# What it says


def test_the_log_says_why_and_what_comes_from_the_network_forges_no_line(started: Host) -> None:
    code = started.code("alice", 5)  # not good, though another step may begin before it is looked at
    started.pam("alice", code, RHOST="evil\n<0>root let in", SERVICE="sshd")
    log = started.log("refused")
    assert log.count("\n") == 0
    assert log.startswith("<85>")  # authpriv.notice
    assert 'rhost="evil\\n<0>root let in" service=sshd reason="the code is not valid"' in log
    assert code not in log + started.daemon.log()


def test_a_line_of_a_stack_that_is_wrong_is_refused(started: Host) -> None:
    for options in (["--suffix=5"], ["--timeout", "0"], ["--fail"], ["--account", "a", "--map", "/b"], ["x"]):
        assert started.pam("alice", started.code("alice"), *options).returncode == 2
    assert verdicts(started) == 0


# A password before the code


def test_with_a_suffix_both_the_password_and_the_code_must_be_right(started: Host) -> None:
    code = started.code("alice")
    typed = [
        f"wrong{code}",
        code,
        f"{PASSWORD}{NEVER[:6]}",
        PASSWORD,
        f"{PASSWORD}{code}",
        f"{PASSWORD}{code}",
    ]
    codes = [started.pam("alice", one, "--suffix", "6").returncode for one in typed]
    assert codes == [INVALID, INVALID, INVALID, REFUSED, IN, INVALID]
    assert verdicts(started) == 3  # with a wrong password no code is spent or counted
    assert PASSWORD not in started.log("the password is wrong")


def test_a_recovery_code_may_stand_behind_a_password_with_its_hyphen(started: Host) -> None:
    with started.daemon.client() as client:
        code = client.recovery_create("alice")[0]
    typed = [f"wrong{code}", f"{PASSWORD}{code.replace('-', '')}", f"{PASSWORD}{code}", f"{PASSWORD}{code}"]
    codes = [started.pam("alice", one, "--suffix", "6").returncode for one in typed]
    assert codes in ([INVALID, REFUSED, IN, INVALID], [INVALID, INVALID, IN, INVALID])
    assert verdicts(started) == 2


def test_the_password_is_that_of_the_user_and_not_of_the_account(started: Host) -> None:
    typed = PASSWORD + started.code("alice")
    assert started.pam("nobody", typed, "--suffix=6", "--account=alice").returncode == INVALID
    assert started.pam("bob", typed, "--suffix=6", "--account=alice").returncode == IN
