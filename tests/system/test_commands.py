"""The commands that ask a running daemon: what they take, and what they print."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from support.authenticators import main_of
from support.daemon import PKI2FACTL, Daemon, as_user, ctl, environment, short_directory

import pki2fad
from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey

SEED = bytes(range(32))
STRANGER = 4711


@pytest.fixture
def running(daemon: Daemon, host_key: PrivateKey) -> Daemon:
    """A daemon with the account default."""
    daemon.deliver("default", sealing.seal_seed(host_key.public_key(), bytearray(SEED)))
    return daemon.start()


@pytest.fixture(scope="module")
def shared(host_key: PrivateKey) -> Iterator[Daemon]:
    """The same for tests that change nothing."""
    with short_directory() as path:
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(host_key))
        daemon.deliver("default", sealing.seal_seed(host_key.public_key(), bytearray(SEED)))
        try:
            yield daemon.start()
        finally:
            daemon.close()


@pytest.fixture
def several(running: Daemon) -> Daemon:
    """And with a second account, of other parameters."""
    done = running.ctl(
        *("load", str(running.seeds_dir / "default.sealed"), "--account", "deploy"),
        *("--algorithm", "SHA256", "--digits", "8", "--period", "60"),
    )
    assert done.returncode == 0, done.stderr
    return running


def code_of(daemon: Daemon, *arguments: str) -> str:
    return daemon.ctl("generate", *arguments).stdout.strip()


def assert_usage(done: "subprocess.CompletedProcess[str]") -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: pki2factl ")


def test_generate_prints_the_code_alone(several: Daemon) -> None:
    assert re.fullmatch(r"[0-9]{6}\n", several.ctl("generate").stdout)
    assert re.fullmatch(r"[0-9]{8}\n", several.ctl("generate", "deploy").stdout)


def test_generate_as_json_has_code_step_and_seconds_left_of_one_moment(shared: Daemon) -> None:
    before = int(time.time())
    done = shared.ctl("generate", "--json")
    after = int(time.time())
    data = json.loads(done.stdout)
    assert set(data) == {"code", "valid_for", "step"}
    assert before <= (data["step"] + 1) * 30 - data["valid_for"] <= after
    assert 1 <= data["valid_for"] <= 30
    assert done.stderr == ""


def test_a_code_is_valid_and_then_invalid(running: Daemon) -> None:
    code = code_of(running)
    first, second = running.ctl("verify", code), running.ctl("verify", code)
    assert (first.stdout, first.stderr, first.returncode) == ("valid\n", "", 0)
    assert (second.stdout, second.stderr, second.returncode) == ("invalid\n", "", 1)


def test_verify_as_json_has_the_same_exit_codes(running: Daemon) -> None:
    code = code_of(running)
    first, second = running.ctl("verify", code, "--json"), running.ctl("verify", code, "--json")
    assert (json.loads(first.stdout), first.returncode) == ({"valid": True}, 0)
    assert (json.loads(second.stdout), second.returncode) == ({"valid": False}, 1)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["bare", "LF", "CRLF"])
def test_a_code_may_come_on_stdin(running: Daemon, end: str) -> None:
    done = running.ctl("verify", "--stdin", input=code_of(running) + end)
    assert (done.stdout, done.returncode) == ("valid\n", 0)


def test_a_code_is_of_the_account_that_is_named(several: Daemon) -> None:
    code = code_of(several, "deploy")
    assert several.ctl("verify", code).stdout == "invalid\n"  # another length is no error
    assert several.ctl("verify", code, "--account", "deploy").stdout == "valid\n"


def test_a_code_in_two_ways_is_wrong_usage(running: Daemon) -> None:
    code = code_of(running)
    assert_usage(running.ctl("verify", code, "--stdin", input=code))
    assert running.ctl("verify", code).stdout == "valid\n"  # it was not spent


def test_no_code_and_no_terminal_to_ask_is_wrong_usage(shared: Daemon) -> None:
    done = shared.ctl("verify")
    assert_usage(done)
    assert "--stdin" in done.stderr


BAD_CODES = {
    "five digits": "12345",
    "nine digits": "123456789",
    "nothing": "",
    "full-width digits": "\N{FULLWIDTH DIGIT ONE}23456",
    "Arabic digits": "\N{ARABIC-INDIC DIGIT ONE}23456",
    "two hyphens": "12-34-56",
    "a hyphen after": "123456-",
    "a sign": "+123456",
    "letters": "abcdef",
    "hex": "0x1234",
}


@pytest.mark.parametrize("code", BAD_CODES.values(), ids=BAD_CODES)
@pytest.mark.parametrize("way", ["argument", "stdin"])
def test_what_is_no_code_is_a_bad_request(shared: Daemon, code: str, way: str) -> None:
    done = shared.ctl("verify", code) if way == "argument" else shared.ctl("verify", "--stdin", input=code)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("pki2factl: error: bad_request: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["ann"], ["123456", "ann"], ["abcdef"]])
def test_a_name_where_a_code_belongs_gets_the_right_form_suggested(shared: Daemon, words: list[str]) -> None:
    done = shared.ctl("verify", *words)
    form = (
        f"pki2factl: hint: to check a code of the account {words[-1]}: pki2factl verify --account {words[-1]}"
    )
    assert done.stderr.splitlines()[1:] == [form]


@pytest.mark.parametrize("code", ["12345", "0x1234", "123456-"])
def test_a_mistyped_code_is_taken_for_no_name(shared: Daemon, code: str) -> None:
    assert len(shared.ctl("verify", code).stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["generate", "remove", "throttled"])
def test_a_code_where_a_name_belongs_gets_the_right_form_suggested(shared: Daemon, command: str) -> None:
    done = shared.ctl(command, "123456")
    form = "pki2factl: hint: the name looks like a code; to check one: pki2factl verify CODE --account NAME"
    assert (done.returncode, done.stderr.splitlines()[1:]) == (6, [form])


@pytest.mark.parametrize("more", ["\n\n", "\n123456\n", "\0"], ids=["two line ends", "two codes", "NUL"])
def test_more_than_one_line_on_stdin_is_a_bad_request(running: Daemon, more: str) -> None:
    code = code_of(running)
    done = running.ctl("verify", "--stdin", input=code + more)
    assert (done.returncode, done.stdout) == (6, "")
    assert running.ctl("verify", code).stdout == "valid\n"  # it was not spent


def test_accounts_are_listed_by_name_with_their_parameters(several: Daemon) -> None:
    assert several.ctl("accounts").stdout == (
        "default  SHA1, 6 digits, 30 s, codes spent: none\n"
        "deploy  SHA256, 8 digits, 60 s, codes spent: none\n"
    )
    assert [main_of(row) for row in json.loads(several.ctl("accounts", "--json").stdout)] == [
        {
            "account": "default",
            "algorithm": "SHA1",
            "digits": 6,
            "period": 30,
            "last_used": None,
            "offset": 0,
            "drift": [],
            "successor": None,
        },
        {
            "account": "deploy",
            "algorithm": "SHA256",
            "digits": 8,
            "period": 60,
            "last_used": None,
            "offset": 0,
            "drift": [],
            "successor": None,
        },
    ]


def test_an_account_shows_the_step_in_which_it_was_last_used(running: Daemon) -> None:
    generated = json.loads(running.ctl("generate", "--json").stdout)
    running.ctl("verify", generated["code"])
    (account,) = json.loads(running.ctl("accounts", "--json").stdout)
    assert account["last_used"] == generated["step"] * 30
    when = datetime.fromtimestamp(account["last_used"]).astimezone().isoformat()
    assert running.ctl("accounts").stdout.endswith(f"codes spent: up to that of {when}\n")


def test_no_accounts_print_nothing_and_an_empty_list(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.ctl("accounts").stdout == ""
    assert json.loads(daemon.ctl("accounts", "--json").stdout) == []


def test_a_pattern_that_no_account_has_is_told(shared: Daemon) -> None:
    done = shared.ctl("accounts", "zz*")
    assert (done.stdout, done.returncode) == ("", 0)
    assert done.stderr == "pki2factl: hint: no account that you administer has a name like 'zz*'\n"


def test_a_removed_account_is_gone(several: Daemon) -> None:
    done = several.ctl("remove", "deploy")
    assert (done.stdout, done.stderr, done.returncode) == ("removed deploy\n", "", 0)
    assert several.ctl("generate", "deploy").returncode == 6
    assert several.ctl("generate").returncode == 0
    assert json.loads(several.ctl("remove", "default", "--json").stdout) == {"account": "default"}
    assert several.ctl("accounts").stdout == ""


def test_remove_wants_a_name(shared: Daemon) -> None:
    assert_usage(shared.ctl("remove"))
    assert shared.ctl("generate").returncode == 0


@pytest.mark.parametrize("command", [("generate",), ("verify", "123456", "--account"), ("remove",)])
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody", "no_such_account"),
        ("../default", "bad_request"),
        (".default", "bad_request"),
        ("", "bad_request"),
        ("d\N{LATIN SMALL LETTER E WITH ACUTE}fault", "bad_request"),
        ("default\n", "bad_request"),
    ],
)
def test_a_name_that_is_none_is_refused(
    shared: Daemon, command: tuple[str, ...], name: str, code: str
) -> None:
    done = shared.ctl(*command, name)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith(f"pki2factl: error: {code}: ")
    assert len(done.stderr.splitlines()) == 1


def test_status_says_who_answers(several: Daemon) -> None:
    lines = several.ctl("status").stdout.splitlines()
    assert re.fullmatch(
        rf"pki2fad {pki2fad.__version__}, pid {several.pid}, up \d+ s, since \S+T\S+[+-]\d\d:\d\d", lines[0]
    )
    assert lines[1:3] == ["accounts: 2", "keys: unlocked"]
    assert lines[4:] == ["throttling of wrong codes: on", "verify: available"]
    status = json.loads(several.ctl("status", "--json").stdout)
    assert status["version"] == pki2fad.__version__
    assert status["pid"] == several.pid
    assert status["ready"] is True
    assert status["accounts"] == 2
    assert status["unavailable_until"] is None
    assert abs(status["started"] - several.socket.stat().st_mtime) < 60


def test_anybody_may_ask_for_the_status_and_sees_no_names(several: Daemon) -> None:
    several.root.chmod(0o755)
    done = several.ctl("status", "--json", command=as_user(STRANGER))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accounts"] == 2
    assert "deploy" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["gen"],
        ["generate", "a", "b"],
        ["generate", "--unknown"],
        ["generate", "--js"],
        ["status", "name"],
        ["load", "--digits", "six"],
        ["seal"],
        ["--socket"],
    ],
)
def test_wrong_usage_is_told_from_everything_else(tmp_path: Path, arguments: list[str]) -> None:
    assert_usage(ctl(tmp_path, *arguments))


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "keygen",
        "seal",
        "load",
        "generate",
        "verify",
        "accounts",
        "remove",
        "status",
        "metrics",
        "log",
    ],
)
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    done = ctl(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: pki2factl {command} ")
    assert "--json" in done.stdout
    assert re.search(rf"^ +{command} +\S", ctl(tmp_path, "--help").stdout, re.MULTILINE)


def test_a_socket_may_be_called_like_a_command(shared: Daemon) -> None:
    (shared.root / "status").symlink_to(shared.socket)
    assert ctl(shared.root, "--socket", "status", "generate").returncode == 0
    assert ctl(shared.root, "--socket=status", "generate").returncode == 0


@pytest.mark.parametrize("command", [("verify", "--stdin"), ("seal", "--to", "host.pub.pem", "--seed-stdin")])
def test_what_comes_on_stdin_is_in_no_list_of_processes(
    running: Daemon, host_key: PrivateKey, command: tuple[str, ...]
) -> None:
    (running.root / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
    secret = code_of(running) if command[0] == "verify" else SEED.hex()
    with subprocess.Popen(
        [PKI2FACTL, "--socket", str(running.socket), *command],
        env=environment(running.root),
        cwd=running.root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(secret.encode())
        process.stdin.flush()  # and it waits for more
        for place in (f"{process.pid}/cmdline", f"{process.pid}/environ", f"{running.pid}/cmdline"):
            assert secret.encode() not in Path("/proc", place).read_bytes()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_no_code_and_no_seed_is_in_the_daemons_log(running: Daemon) -> None:
    code = code_of(running)
    running.ctl("verify", code)
    running.ctl("verify", code)
    for secret in (code, SEED.hex()):
        assert secret not in running.log()
    assert "verify uid=" in running.log()


# Arguments


def test_a_wrong_option_shows_the_usage_of_its_command(shared: Daemon) -> None:
    done = shared.ctl("generate", "--acount", "default")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: pki2factl generate ")
    assert done.stderr.endswith(
        "pki2factl generate: error: unrecognized arguments: --acount; did you mean '--account'?\n"
    )


def test_without_a_command_the_help_is_printed_and_nothing_is_done(tmp_path: Path) -> None:
    done = ctl(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ctl(tmp_path, "--help").stdout


@pytest.mark.parametrize(("command", "word"), [("clock", "accept"), ("recipients", "list")])
def test_a_missing_word_is_named_as_it_is_typed(shared: Daemon, command: str, word: str) -> None:
    done = shared.ctl(command)
    assert done.returncode == 2
    assert done.stderr.endswith(f"the following arguments are required: {word}\n")


def test_json_may_come_before_the_command_too(shared: Daemon) -> None:
    before, behind = shared.ctl("--json", "accounts"), shared.ctl("accounts", "--json")
    assert [row["account"] for row in json.loads(before.stdout)] == ["default"]
    assert json.loads(behind.stdout) == json.loads(before.stdout)


@pytest.mark.parametrize("command", ["generate", "remove", "throttled", "unthrottle"])
def test_the_account_may_be_given_as_an_option_too(shared: Daemon, command: str) -> None:
    ways = (("nobody",), ("--account", "nobody"), ("--account=nobody",))
    for way in ways:
        done = shared.ctl(command, *way)
        assert (done.returncode, "nobody" in done.stderr) == (6, True)
    assert shared.ctl(command, "a", "--account", "b").returncode == 2
