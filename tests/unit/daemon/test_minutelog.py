"""The minute log: which lines are due at which reading."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import (
    OTHER_SEED,
    ROOT,
    SEED,
    STRANGER,
    at,
    call,
    code_line,
    is_valid,
    logged,
    make_agent,
    make_keyring,
    oathtool_code,
    reference_code,
    sealed,
    stamp,
    write_due,
)

from pki2fad.daemon.minutelog import MinuteLog
from pki2fad.methods.agent import Agent
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters

MINUTE = 1_700_000_040  # 2023-11-14 22:14:00 UTC
DAY = 86_400


@pytest.fixture
def keyring() -> Keyring:
    return make_keyring({"default": SEED})


@pytest.fixture
def agent(keyring: Keyring) -> Agent:
    return make_agent(keyring)


@pytest.fixture
def log(agent: Agent, path: Path) -> MinuteLog:
    return MinuteLog(agent, ROOT, {"default": str(path)})


def lines(path: Path) -> list[str]:
    text = path.read_text()
    assert text.endswith("\n")
    return text.splitlines()


# Codes


def test_a_line_is_the_time_in_utc_and_the_code_of_oathtool(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE)
    assert path.read_text() == f"2023-11-14 22:14:00 - 2FA Code: {oathtool_code(SEED, MINUTE)}\n"


def test_the_codes_are_those_of_main_whatever_else_the_account_has(agent: Agent, path: Path) -> None:
    now = at(MINUTE)
    call(agent, "remove", ROOT, now)
    call(agent, "load", ROOT, now, label="tablet", sealed=sealed(OTHER_SEED))
    log = MinuteLog(agent, ROOT, {"default": str(path)})
    write_due(log, MINUTE)
    assert "no_such_account: account 'default' has no authenticator 'main'" in path.read_text()
    call(agent, "load", ROOT, now, sealed=sealed(SEED))
    write_due(log, MINUTE + 60)
    assert lines(path)[-1] == code_line(MINUTE + 60)


@pytest.fixture
def _far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_from_utc")
def test_the_local_time_zone_does_not_matter(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE)
    assert lines(path) == [code_line(MINUTE)]


@pytest.mark.parametrize("parameters", [Parameters("SHA256", 8, 60), Parameters("SHA512", 7, 1)])
def test_a_line_has_the_code_of_the_accounts_own_parameters(path: Path, parameters: Parameters) -> None:
    agent = make_agent(make_keyring({"default": SEED}, parameters))
    for second in (0.5, 1.5):  # the second is a start that finds the code of this minute
        write_due(MinuteLog(agent, ROOT, {"default": str(path)}), MINUTE + second)
    code = oathtool_code(SEED, MINUTE, parameters)
    assert lines(path) == [f"{stamp(MINUTE)} - 2FA Code: {code}"]


def test_at_start_a_line_has_its_real_second(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE + 17.999)
    assert lines(path) == [code_line(MINUTE + 17)]


def test_there_is_one_line_a_minute_from_its_first_reading(log: MinuteLog, path: Path) -> None:
    write_due(log, *(MINUTE + 17 + quarter / 4 for quarter in range(4 * 180)))
    assert lines(path) == [code_line(MINUTE + second) for second in (17, 60, 120, 180)]


def test_the_code_of_a_line_is_not_spent(agent: Agent, log: MinuteLog) -> None:
    write_due(log, MINUTE)
    assert is_valid(agent, reference_code(SEED, MINUTE // 30), at(MINUTE))


def test_a_missed_minute_is_not_made_up(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE, MINUTE + 200.5, MINUTE + 240)
    assert lines(path) == [code_line(MINUTE), code_line(MINUTE + 200), code_line(MINUTE + 240)]


def test_no_line_shows_up_in_the_daemons_own_log(log: MinuteLog, path: Path) -> None:
    with logged() as told:
        write_due(log, MINUTE, MINUTE + 60, MINUTE - DAY)
    assert told == []
    assert len(lines(path)) == 3


# Restarts


def test_a_restart_in_the_same_minute_writes_nothing(agent: Agent, path: Path) -> None:
    for second in (5, 6, 59.9):
        write_due(MinuteLog(agent, ROOT, {"default": str(path)}), MINUTE + second)
    assert lines(path) == [code_line(MINUTE + 5)]


def test_a_restart_in_a_later_minute_writes_a_line_with_its_real_second(agent: Agent, path: Path) -> None:
    for second in (5, 61, 62, 120):
        write_due(MinuteLog(agent, ROOT, {"default": str(path)}), MINUTE + second)
    assert lines(path) == [code_line(MINUTE + second) for second in (5, 61, 120)]


def test_the_last_code_is_found_behind_whatever_was_said_since(agent: Agent, path: Path) -> None:
    old = [code_line(MINUTE - 60 * back) for back in range(5000, 0, -1)]
    path.write_text("\n".join([*old, f"{stamp(MINUTE)} - no code: some reason", "", "scribble", ""]))
    write_due(MinuteLog(agent, ROOT, {"default": str(path)}), MINUTE - 30)
    assert lines(path)[5000:] == [f"{stamp(MINUTE)} - no code: some reason", "", "scribble"]
    write_due(MinuteLog(agent, ROOT, {"default": str(path)}), MINUTE)
    assert lines(path)[-1] == code_line(MINUTE)


@pytest.mark.parametrize(
    "line",
    [
        "2023-13-45 99:99:99 - 2FA Code: 123456",
        "2023-02-30 00:00:00 - 2FA Code: 123456",
        "2099-01-01 00:00:00 - 2FA Code: 12345",
        "2099-01-01 00:00:00 - 2FA Code: 123456789",
        "2099-01-01 00:00:00 - no code: 2099-01-01 00:00:00 - 2FA Code: 123456",
        "\0\0\0\0",
        "na\u00efve",
    ],
)
def test_what_is_no_line_of_ours_is_no_code(agent: Agent, path: Path, line: str) -> None:
    path.write_text(f"{line}\n", encoding="utf-8")
    log = MinuteLog(agent, ROOT, {"default": str(path)})
    write_due(log, MINUTE + 5, MINUTE + 6)
    assert path.read_text(encoding="utf-8").splitlines()[1:] == [code_line(MINUTE + 5)]


# A clock that steps


def test_a_clock_that_steps_back_is_told_once_and_silence_lasts_until_the_last_minute_is_passed(
    log: MinuteLog, path: Path
) -> None:
    back = [MINUTE - 300 + second for second in range(420)]
    write_due(log, MINUTE, *back)
    first, told, *later = lines(path)
    assert first == code_line(MINUTE)
    assert told.startswith(f"{stamp(MINUTE - 300)} - the clock stepped back")
    assert later == [code_line(MINUTE + 60)]


def test_a_restart_does_not_repeat_that_the_clock_stepped_back(agent: Agent, path: Path) -> None:
    for second in (0, -300, -299, -240, 0, 59, 60):
        write_due(MinuteLog(agent, ROOT, {"default": str(path)}), MINUTE + second)
    told = lines(path)
    assert [told[0], *told[2:]] == [code_line(MINUTE), code_line(MINUTE + 60)]
    assert "stepped back" in told[1]


def test_a_second_step_back_is_told_again(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE, MINUTE - 60, MINUTE + 60, MINUTE - 120, MINUTE - 119)
    told = lines(path)
    assert [told[0], told[2]] == [code_line(MINUTE), code_line(MINUTE + 60)]
    assert [line.partition(" - ")[0] for line in (told[1], told[3])] == [
        stamp(MINUTE - 60),
        stamp(MINUTE - 120),
    ]
    assert len(told) == 4


def test_a_step_back_within_the_minute_goes_unnoticed(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE + 30, MINUTE + 10, MINUTE + 60)
    assert lines(path) == [code_line(MINUTE + 30), code_line(MINUTE + 60)]


def test_a_clock_that_was_ahead_leaves_silence_behind(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE + DAY, MINUTE, *(MINUTE + 60 * minute for minute in range(24 * 60 + 2)))
    told = lines(path)
    assert [told[0], *told[2:]] == [code_line(MINUTE + DAY), code_line(MINUTE + DAY + 60)]


# No code


def test_why_there_is_no_code_is_told_once(path: Path) -> None:
    log = MinuteLog(make_agent(make_keyring()), ROOT, {"default": str(path)})
    write_due(log, *(MINUTE + second for second in range(180)))
    (told,) = lines(path)
    assert told.startswith(f"{stamp(MINUTE)} - no code: no_such_account: ")


def test_a_restart_does_not_repeat_why_there_is_no_code(path: Path) -> None:
    agent = make_agent(make_keyring())
    for second in (0, 1, 60):
        write_due(MinuteLog(agent, ROOT, {"default": str(path)}), MINUTE + second)
    assert len(lines(path)) == 1


def test_another_reason_is_told_and_the_first_one_again_when_it_is_back(
    keyring: Keyring, log: MinuteLog, path: Path
) -> None:
    account = keyring.accounts.pop("default")
    account.sealed = bytes(64)  # it does not open
    write_due(log, MINUTE, MINUTE + 1)
    keyring.put(account)
    write_due(log, MINUTE + 2, MINUTE + 3)
    del keyring.accounts["default"]
    write_due(log, MINUTE + 4, MINUTE + 5)
    told = [line.split(": ")[1] for line in lines(path)]
    assert told == ["no_such_account", "bad_seal", "no_such_account"]


def test_who_may_not_generate_gets_the_reason_and_no_code(agent: Agent, path: Path) -> None:
    write_due(MinuteLog(agent, STRANGER, {"default": str(path)}), MINUTE)
    assert "no code: forbidden: " in lines(path)[0]


def test_an_account_that_appears_gets_a_line_with_its_real_second(path: Path) -> None:
    agent = make_agent(make_keyring())
    log = MinuteLog(agent, ROOT, {"default": str(path)})
    write_due(log, MINUTE, MINUTE + 20)
    call(agent, "load", ROOT, at(MINUTE + 20), sealed=sealed(SEED))
    write_due(log, MINUTE + 21.5, MINUTE + 22, MINUTE + 60)
    assert lines(path)[1:] == [code_line(MINUTE + 21), code_line(MINUTE + 60)]


def test_an_account_that_comes_back_gets_no_second_line_in_its_minute(
    agent: Agent, log: MinuteLog, path: Path
) -> None:
    write_due(log, MINUTE)
    call(agent, "remove", ROOT, at(MINUTE + 10))
    write_due(log, MINUTE + 11)
    call(agent, "load", ROOT, at(MINUTE + 20), sealed=sealed(OTHER_SEED))
    write_due(log, MINUTE + 21, MINUTE + 60)
    assert lines(path) == [code_line(MINUTE), code_line(MINUTE + 60, OTHER_SEED)]


# Several accounts


def test_each_account_has_a_file_of_its_own(tmp_path: Path) -> None:
    agent = make_agent(make_keyring({"a": SEED, "b": OTHER_SEED}))
    paths = {name: tmp_path / f"codes-{name}.log" for name in ("a", "b", "missing")}
    write_due(MinuteLog(agent, ROOT, {name: str(path) for name, path in paths.items()}), MINUTE, MINUTE + 60)
    assert lines(paths["a"]) == [code_line(MINUTE), code_line(MINUTE + 60)]
    assert lines(paths["b"]) == [code_line(MINUTE, OTHER_SEED), code_line(MINUTE + 60, OTHER_SEED)]
    assert len(lines(paths["missing"])) == 1


def test_with_no_account_nothing_is_written(agent: Agent, tmp_path: Path) -> None:
    write_due(MinuteLog(agent, ROOT, {}), MINUTE)
    assert list(tmp_path.iterdir()) == []


def test_a_reload_goes_on_with_files_that_stay_and_begins_those_that_are_new(tmp_path: Path) -> None:
    agent = make_agent(make_keyring({"a": SEED, "b": OTHER_SEED}))
    first, second, moved = (tmp_path / name for name in ("1.log", "2.log", "3.log"))
    log = MinuteLog(agent, ROOT, {"a": str(first)})
    write_due(log, MINUTE)
    first.unlink()  # what is in memory counts, not what is in the file
    log.use({"a": str(first), "b": str(second)})
    write_due(log, MINUTE + 1)
    assert not first.exists()
    assert lines(second) == [code_line(MINUTE + 1, OTHER_SEED)]
    log.use({"b": str(moved)})
    write_due(log, MINUTE + 60)
    assert not first.exists()
    assert lines(second) == [code_line(MINUTE + 1, OTHER_SEED)]
    assert lines(moved) == [code_line(MINUTE + 60, OTHER_SEED)]


# The loop


def test_the_loop_looks_again_when_the_minute_turns_and_not_after_stop(agent: Agent, path: Path) -> None:
    looks = iter([MINUTE + 59.97, MINUTE + 119.98, MINUTE + 180.0])
    waited = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        looked = asyncio.Event()

        def read_clock() -> Reading:
            looked.set()
            return at(next(looks))

        log = MinuteLog(agent, ROOT, {"default": str(path)}, read_clock)
        log.stop()  # before the start: no harm
        log.start()
        looked.clear()
        started = loop.time()
        await looked.wait()
        waited.append(loop.time() - started)
        log.stop()
        looked.clear()
        with pytest.raises(TimeoutError):  # the next look would be due after 21 ms
            await asyncio.wait_for(looked.wait(), 0.2)

    asyncio.run(run())
    assert waited[0] >= 0.029
    assert lines(path) == [code_line(MINUTE + 59), code_line(MINUTE + 119)]
