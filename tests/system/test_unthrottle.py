"""By the commands and both clients: who has to wait, and how an administrator lets them in again."""

import asyncio
import json
import os
import re
import time
from datetime import datetime

import pytest
from support.agents import oathtool_code
from support.daemon import Daemon, as_user, code_of, wait_until
from support.logins import NEVER
from support.raw import Seal, connect

from pki2fad.client import AsyncClient
from pki2fad.errors import Throttled

SEED = b"the seed of the unthrottle tests"
OWN = os.geteuid()
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"


@pytest.fixture
def running(daemon: Daemon, seal: Seal) -> Daemon:
    """A daemon with the account default, for which we have to wait."""
    daemon.deliver("default", seal(SEED))
    daemon.start()
    tire(daemon)
    return daemon


def tire(daemon: Daemon) -> None:
    with daemon.client() as client:
        for _ in range(4):
            client.verify(NEVER)
        with pytest.raises(Throttled):
            client.verify(NEVER)


def codes(*seconds: float) -> list[str]:
    """What oathtool, an independent implementation, shows by clocks that are so much off."""
    now = time.time()
    return [oathtool_code(SEED, now + one) for one in seconds]


def code(seconds: float = 0) -> str:
    return codes(seconds)[0]


# throttled


def test_the_command_lists_who_has_to_wait_and_until_when(running: Daemon) -> None:
    done = running.ctl("throttled")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert re.match(
        rf"{MOMENT}  verify    .*uid {OWN}\b.*  account default  refused, has to wait until {MOMENT}$", line
    )
    assert "to let them try again at once: pki2factl unthrottle ACCOUNT" in done.stderr


def test_of_an_account_that_is_open_to_others_a_refused_caller_is_shown_waiting(running: Daemon) -> None:
    done = running.ctl("throttled", "default")
    account, refused = done.stdout.splitlines()
    assert account == "account default: unknown callers wait only for their own wrong codes"
    assert "  refused, has to wait until " in refused
    assert done.stderr == "pki2factl: hint: to let them try again at once: pki2factl unthrottle default\n"


@pytest.mark.parametrize("account", [[], ["default"]], ids=["all", "one account"])
def test_after_unthrottle_refusals_are_past_and_nobody_is_to_be_unthrottled(
    running: Daemon, account: list[str]
) -> None:
    running.ctl("unthrottle", "default")
    done = running.ctl("throttled", *account)
    line = done.stdout.splitlines()[-1]
    assert line.endswith("  account default  was refused, may try now")
    assert done.stderr == "pki2factl: hint: nobody has to wait any more\n"


def test_a_caller_that_waits_and_was_never_refused_is_worth_the_hint(running: Daemon) -> None:
    running.ctl("unthrottle", "default")
    with running.client() as client:
        for _ in range(4):
            client.verify(NEVER)
    done = running.ctl("throttled", "default", "--uid", str(OWN))
    assert "not known, wait until " in done.stdout
    assert "pki2factl unthrottle default" in done.stderr


def test_a_known_caller_is_named_once_it_is_refused(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.start()
    assert daemon.ctl("verify", code()).stdout == "valid\n"
    shown = daemon.ctl("throttled", "default").stdout
    assert re.search(
        rf"^  a known caller \(named once it is refused\), last right code {MOMENT}: may try now$",
        shown,
        re.MULTILINE,
    )
    tire(daemon)
    shown = daemon.ctl("throttled", "default").stdout
    assert re.search(
        rf"^  known caller .*uid {OWN}\b.*, last right code {MOMENT}: wait until {MOMENT}$",
        shown,
        re.MULTILINE,
    )


def test_as_json_it_is_what_the_protocol_says(running: Daemon) -> None:
    told = json.loads(running.ctl("throttled", "default", "--uid", str(OWN), "--json").stdout)
    assert told["accounts"] == [{"account": "default", "until": None, "known": []}]
    (refusal,) = told["refusals"]
    assert {name: refusal[name] for name in ("method", "uid", "origin", "account", "times")} == {
        "method": "verify",
        "uid": OWN,
        "origin": "",
        "account": "default",
        "times": 1,
    }
    assert 0 < told["caller"]["until"] - time.time() <= 61
    assert (told["caller"]["known"], told["caller"]["uid"]) == (False, OWN)


def test_one_caller_can_be_asked_about(running: Daemon) -> None:
    done = running.ctl("throttled", "default", "--uid", str(OWN), "--origin", "192.0.2.1\n")
    assert r'origin "192.0.2.1\n": not known, may try now' in done.stdout
    for arguments in (("--uid", "1"), ("default", "--origin", "x"), ("default", "--uid", "x")):
        assert running.ctl("throttled", *arguments).returncode == 2
    assert running.ctl("throttled", "missing").returncode == 6


def test_where_nobody_waits_it_says_so(daemon: Daemon) -> None:
    daemon.start()
    done = daemon.ctl("throttled")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nobody" in done.stderr


@pytest.mark.parametrize(
    "command", [("throttled",), ("unthrottle", "default"), ("verify", NEVER, "--explain")]
)
def test_who_is_no_administrator_of_all_accounts_is_told_nothing(running: Daemon, command: list[str]) -> None:
    running.root.chmod(0o755)
    rules = [("verify", ""), ("admin", 'accounts = ["default"]\n')]
    running.configure("".join(f'[[access]]\nrole = "{role}"\nwho = [4242]\n{more}' for role, more in rules))
    running.reload()
    done = running.ctl(*command, command=as_user(4242))
    assert (done.returncode, done.stdout) == (4, ""), done.stderr


# unthrottle and resync


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_unthrottled_account_takes_a_right_code_after_a_restart_too(running: Daemon, how: str) -> None:
    assert running.ctl("verify", code()).returncode == 5
    done = running.ctl("unthrottle", "default", "--json")
    assert json.loads(done.stdout) == {"account": "default", "left": 2, "waited": True}
    getattr(running, how)()
    running.start()
    assert running.ctl("verify", code()).stdout == "valid\n"


def test_unthrottle_says_if_nobody_waited(running: Daemon) -> None:
    done = running.ctl("unthrottle", "default")
    assert (done.stdout, done.stderr) == ("unthrottled default\n", "")
    done = running.ctl("unthrottle", "default")
    assert done.stdout == "unthrottled default\n"
    assert done.stderr == "pki2factl: hint: nobody waited: no caller was being refused\n"


def test_the_fourth_time_needs_force(running: Daemon) -> None:
    assert [running.ctl("unthrottle", "default").stdout for _ in range(3)] == ["unthrottled default\n"] * 3
    done = running.ctl("unthrottle", "default")
    assert (done.returncode, done.stdout) == (6, "")
    assert "--force" in done.stderr
    assert "force: true" not in done.stderr
    forced = running.ctl("unthrottle", "default", "--force")
    assert forced.stdout == "unthrottled default\n"
    assert "unthrottled three times or more in 30 days" in forced.stderr


def test_a_change_is_one_line_for_the_audit(running: Daemon) -> None:
    running.ctl("unthrottle", "default")
    (line,) = [line for line in running.log().splitlines() if "audit=unthrottled" in line]
    assert f"unthrottle uid={OWN} " in line
    assert " account=default " in line


def test_a_phone_that_is_five_steps_slow_gets_in_again_by_two_of_its_codes(running: Daemon) -> None:
    slow = -5 * 30
    *shown, following = codes(slow - 30, slow, slow + 30)
    typed = [f"{one[:3]} {one[3:]}" for one in shown]
    done = running.ctl("resync", "default", "--stdin", input="\r\n".join(typed))
    assert re.fullmatch("default: the authenticator is -[56] steps from now\n", done.stdout), done.stderr
    assert running.ctl("verify", following).stdout == "valid\n"


def test_wrong_codes_to_resync_are_throttled_apart_and_counted_over_a_kill(running: Daemon) -> None:
    for _ in range(4):
        assert running.ctl("resync", "default", "--stdin", input="000000 000000").returncode == 6
    running.kill()
    running.start()
    done = running.ctl("resync", "default", "--stdin", input=" ".join(codes(-180, -150)))
    assert (done.returncode, done.stdout) == (5, "")
    (row,) = json.loads(running.ctl("throttled", "--json").stdout)["refusals"]
    assert row["method"] == "resync"
    assert running.ctl("unthrottle", "default").returncode == 0
    done = running.ctl("resync", "default", "--stdin", input=" ".join(codes(-180, -150)))
    assert done.returncode == 0, done.stderr


# Until when, and why


def test_who_is_throttled_is_told_until_when_by_answer_and_log(running: Daemon) -> None:
    with connect(running.socket) as peer:
        (error, message, retry_after) = peer.refusal("verify", code=NEVER)
    assert error == "throttled"
    (told,) = re.findall(MOMENT, message)
    until = datetime.fromisoformat(told).timestamp()
    assert abs(until - time.time() - retry_after) < 3
    assert f"try again at {told}" in running.log()


def test_the_log_says_by_how_many_steps_a_stale_code_was_off(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.start()
    with daemon.client() as client:
        step = client.generate().step
        assert not client.verify(code_of(SEED, step - 6))
        assert not client.verify(code_of(SEED, step + 7))
    wait_until(lambda: daemon.log().count("reason=stale") == 2, "they are not logged")
    found = re.findall(r"reason=stale steps=([+-]\d+)", daemon.log())
    assert found[0] in ("-6", "-7")  # when the next step began
    assert found[1] in ("+7", "+6")
    shown = daemon.ctl("log", "--file", str(daemon.stderr)).stdout
    assert f"steps {found[0]}  stale" in shown
    rows = map(json.loads, daemon.ctl("log", "--file", str(daemon.stderr), "--json").stdout.splitlines())
    assert [row["steps"] for row in rows if "steps" in row] == [int(steps) for steps in found]


def test_verify_explains_what_was_used_and_what_is_old_and_nothing_to_come(
    daemon: Daemon, seal: Seal
) -> None:
    daemon.configure("[throttle]\nenabled = false\n")
    daemon.deliver("default", seal(SEED))
    daemon.start()
    used = code()
    assert daemon.ctl("verify", used, "--explain").stdout == "valid\n"
    assert daemon.ctl("verify", used, "--explain").stdout == "invalid: it was used before\n"
    old = daemon.ctl("verify", code(-6 * 30), "--explain", "--json")
    assert (json.loads(old.stdout), old.returncode) == ({"valid": False, "reason": "old"}, 1)
    assert daemon.ctl("verify", code(6 * 30), "--explain").stdout == "invalid\n"
    assert daemon.ctl("verify", used).stdout == "invalid\n"


# As people type


@pytest.mark.parametrize("form", ["{} {}", "{}-{}", " {}{} ", "{}{}\r\n", "{}\u00a0{}"])
@pytest.mark.parametrize("stdin", [False, True])
def test_verify_takes_a_code_as_people_type_it(daemon: Daemon, seal: Seal, form: str, stdin: bool) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.start()
    one = code()
    typed = form.format(one[:3], one[3:])
    done = daemon.ctl("verify", "--stdin", input=typed) if stdin else daemon.ctl("verify", typed)
    assert done.stdout == "valid\n", done.stderr


def test_verify_takes_a_code_in_two_words_and_the_wire_does_not(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.start()
    one = code()
    with connect(daemon.socket) as peer:
        assert peer.refusal("verify", code=f"{one[:3]} {one[3:]}")[0] == "bad_request"
    assert daemon.ctl("verify", one[:3], one[3:]).stdout == "valid\n"


# The clients


def test_both_clients_have_all_of_it(running: Daemon) -> None:
    async def of_async_client() -> tuple[object, ...]:
        async with AsyncClient(str(running.socket)) as client:
            throttled = await client.throttled("default", uid=OWN, origin="x")
            left = await client.unthrottle()
            return throttled["caller"]["origin"], left, await client.verify_explained(NEVER)

    assert asyncio.run(of_async_client()) == ("x", 2, {"valid": False, "reason": None})
    with running.client() as client:
        assert client.throttled()["caller"] is None
        assert client.unthrottle("default", force=True) == 1
        assert client.verify_explained(NEVER, origin="x") == {"valid": False, "reason": None}
