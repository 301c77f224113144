"""`pki2factl migrate` where something is wrong: it says what, and no old file is lost."""

import base64
import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from support.daemon import as_user, wait_until
from support.oldservice import NO_FILES, OLD_LINES, OTHER_SEED, SEED, OldService

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

UID = 4711


@pytest.fixture
def untouched(beside: OldService) -> Iterator[OldService]:
    """Whatever the test does: nothing was loaded, continued or destroyed."""
    lines = beside.minute_log()
    yield beside
    assert not beside.has_account()
    assert beside.minute_log() == lines
    assert [path.name for path in beside.daemon.log_dir.iterdir()] == ["codes.log"]


BAD_SEEDS = {
    "too short": SEED[:30].encode(),
    "an odd number of digits": SEED[:-1].encode(),
    "two of them": f"{SEED}\n{OTHER_SEED}\n".encode(),
    "a name before": f"SEED={SEED}".encode(),
    "binary": bytes.fromhex(OTHER_SEED),
    "base32": base64.b32encode(bytes.fromhex(SEED)),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", BAD_SEEDS)
def test_what_is_no_seed_is_refused_and_not_shown(untouched: OldService, kind: str) -> None:
    untouched.seed.write_bytes(BAD_SEEDS[kind])
    error = untouched.refused(code=6)
    assert f"{untouched.seed}: " in error
    assert "; a seed is 32 to 128 hex digits" in error
    shown = BAD_SEEDS[kind][:16].decode("latin-1")
    assert not shown or shown not in error


@pytest.mark.parametrize("which", ["seed", "log"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_an_old_file_that_cannot_be_read_is_named(untouched: OldService, kind: str, which: str) -> None:
    path = getattr(untouched, which)
    path.unlink()
    NO_FILES[kind](path)
    error = untouched.refused(code=7)
    assert str(path) in error
    if kind == "a symbolic link":
        assert f"name the file itself, {path.parent / 'target'}" in error


NO_LOGS = {
    "nothing": (b"", ""),
    "binary": (b"\0\xff" * 10, " (line 1 is "),
    "another log": (b"\n1.2.3.4 - GET /\n", " (line 2 is 1.2.3.4 - GET /)"),
    "the seed": (SEED.encode(), " (line 1 is …)"),
}


@pytest.mark.parametrize(("content", "shown"), NO_LOGS.values(), ids=NO_LOGS)
def test_what_is_not_the_old_log_is_refused_with_its_first_line(
    untouched: OldService, content: bytes, shown: str
) -> None:
    untouched.log.write_bytes(content)
    error = untouched.refused(code=6)
    assert f"{untouched.log} has no line like '2026-01-31 12:34:00 - 2FA Code: ...'{shown}" in error
    assert "to go on without it, leave out --log" in error


def test_a_log_with_codes_of_the_future_is_refused(untouched: OldService) -> None:
    untouched.log.write_text(OLD_LINES + "2131-01-31 05:30:01 - 2FA Code: 000009\nError: no seed\n")
    shown = datetime(2131, 1, 31, 5, 30, 1, tzinfo=UTC).astimezone().isoformat()
    assert f"a code of {shown}, which is in the future" in untouched.refused(code=6)


def test_a_log_of_many_years_is_refused_before_it_is_read(untouched: OldService) -> None:
    os.truncate(untouched.log, 257 * 1024 * 1024)
    assert "larger than 256 megabytes" in untouched.migrate().stderr


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--public-key=/nowhere.pem"], (7, "/nowhere.pem")),
        (["--public-key=data/seed.txt"], (6, "not a PEM file")),
        (["--account=../default"], (6, "an account name has")),
        (["--log-to=data/last_code.txt"], (6, "is the minute log itself")),
        (["--log-to=data/seed.txt"], (6, "data/seed.txt is the seed's file")),
        (["--log-to=/nowhere/codes.log"], (7, "there is no directory /nowhere")),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(
    untouched: OldService, more: list[str], expected: tuple[int, str]
) -> None:
    code, text = expected
    assert text in untouched.refused(*more, code=code)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--log-to=codes.log"], "--log-to needs --log"),
        (["--log=old.log", "--account=web"], "name the minute log of web with --log-to"),
    ],
)
def test_a_log_that_has_no_place_is_wrong_usage(untouched: OldService, more: list[str], said: str) -> None:
    before = untouched.content()
    done = untouched.migrate("--shred", *more, log=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert untouched.content() == before


def test_without_a_daemon_nothing_changes(old: OldService) -> None:
    before = old.content()
    done = old.migrate("--shred")
    assert (done.returncode, done.stdout) == (3, "")
    assert old.content() == before


@pytest.mark.parametrize("role", ["verify", "generate"])
def test_who_may_not_load_changes_nothing(old: OldService, role: str) -> None:
    user = as_user(UID)
    old.daemon.configure(f'[[access]]\nrole = "{role}"\nwho = [{UID}]\n')
    untouched = old.start()
    untouched.daemon.root.chmod(0o755)
    os.chown(untouched.data, UID, UID)
    os.chown(untouched.seed, UID, UID)
    assert "forbidden" in untouched.refused(log=False, code=4, command=user)


@pytest.mark.parametrize(
    ("seed", "parameters"),
    [(OTHER_SEED, []), (SEED, ["--digits=8"]), (SEED, ["--algorithm=SHA256"])],
    ids=["another seed", "other digits", "another algorithm"],
)
def test_an_account_that_makes_other_codes_is_left_alone_and_so_are_the_old_files(
    timed: OldService, seed: str, parameters: list[str]
) -> None:
    timed.load(seed, *parameters)
    wait_until(lambda: "2FA Code" in timed.minute_log(), "there is no line for the account")
    error = timed.refused(code=6)
    assert "error: default has another seed" in error
    assert "pki2factl remove default" in error
    assert timed.load(seed, *parameters) is False
    assert timed.daemon.ctl("remove", "default").returncode == 0
    assert timed.migrated()["changed"] is True
    timed.assert_makes_codes_of(SEED)


def test_with_the_key_of_another_host_nothing_is_destroyed_and_with_the_right_one_it_goes_on(
    beside: OldService, other_key: PrivateKey
) -> None:
    said = beside.minute_log()
    right = beside.public.read_bytes()
    beside.public.write_bytes(rsakeys.public_pem(other_key.public_key()))
    done = beside.migrate("--shred")
    assert (done.returncode, done.stdout) == (6, "")
    assert "bad_seal" in done.stderr
    assert not beside.has_account()
    assert (beside.seed.read_text(), beside.log.read_text()) == (SEED, OLD_LINES)
    beside.public.write_bytes(right)
    assert beside.migrated()["changed"] is True
    assert beside.minute_log().startswith(OLD_LINES + said)
    assert beside.minute_log().count(OLD_LINES) == 1
