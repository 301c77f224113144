"""A seed as text, in every form that is unmistakable, for each of the commands that take one."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.daemon import Daemon, ctl
from support.oldservice import SEED, OldService

from pki2fad.crypto.rsakeys import PrivateKey

MARK = b"\xef\xbb\xbf"
FORMS = {
    "as it is": SEED.encode(),
    "a byte order mark and CR LF": MARK + SEED.encode() + b"\r\n",
    "blanks around it": b"\t " + SEED.encode() + b" \n\n",
    "upper case": SEED.upper().encode(),
    "0x": b"0x" + SEED.encode(),
    "0X and upper case": b"0X" + SEED.upper().encode(),
    "the value of a JSON object": json.dumps({"seed": SEED}).encode(),
    "one value of several": json.dumps(
        {"status": "success", "n": 1, "hex_seed": f"0x{SEED.upper()}"}
    ).encode(),
    "JSON of several lines": MARK + json.dumps({"seed": SEED}, indent=2).encode().replace(b"\n", b"\r\n"),
}
OF_A_LINE = {kind: form for kind, form in FORMS.items() if b"\n" not in form.strip()}


def secret(uri: str) -> str:
    """The seed in an otpauth: URI, as hex digits."""
    (base32,) = parse_qs(urlsplit(uri).query)["secret"]
    return base64.b32decode(base32 + "=" * (-len(base32) % 8)).hex()


def sealed_alone(home: Path, text: bytes) -> str:
    """The seed that `seal` takes from a text."""
    (home / "seed").write_bytes(text)
    with (home / "seed").open("rb") as file:
        done = ctl(home, "seal", "--to=host.pub.pem", "--seed-stdin", "--uri-out=uri", stdin=file)
    assert done.returncode == 0, done.stderr
    return secret((home / "uri").read_text().strip())


def sealed_in_a_batch(home: Path, text: bytes) -> str:
    """The seed that `seal-batch` takes from a file."""
    (home / "list").write_bytes(text)
    done = ctl(home, "seal-batch", "list", "--to=host.pub.pem", "--out=all.batch", "--uri-out=uri")
    assert done.returncode == 0, done.stderr
    return secret((home / "uri").read_text().strip())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_seal_takes_the_seed_in_any_form(home: Path, form: bytes) -> None:
    assert sealed_alone(home, form) == SEED


@pytest.mark.parametrize("form", OF_A_LINE.values(), ids=OF_A_LINE)
def test_seal_batch_takes_it_behind_a_name(home: Path, form: bytes) -> None:
    line = b"ann\t" + form.removeprefix(MARK).strip()
    assert sealed_in_a_batch(home, (MARK if form.startswith(MARK) else b"") + line + b" \r\n") == SEED


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_migrate_takes_it_from_a_file(daemon: Daemon, host_key: PrivateKey, form: bytes) -> None:
    old = OldService(daemon, host_key).start()
    old.seed.write_bytes(form)
    assert old.migrated("--shred", log=False)["changed"] is True
    old.assert_makes_codes_of(SEED)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(("take", "before"), [(sealed_alone, ""), (sealed_in_a_batch, "ann ")])
def test_a_file_of_windows_in_utf_16_is_read(
    home: Path, take: Callable[[Path, bytes], str], before: str, encoding: str
) -> None:
    assert take(home, f"\N{BYTE ORDER MARK}{before}{SEED}\r\n".encode(encoding)) == SEED
