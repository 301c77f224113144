"""What is in the memory of a live process, as root sees it."""

import base64
import contextlib
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.peers import require_root

_CHUNK = 16 * 1024 * 1024
_OVERLAP = 4096


def hits(pid: int, secrets: Mapping[str, bytes]) -> dict[str, int]:
    """How often each secret is found, in bytes, hex digits or base32, by its name; nothing if it is not."""
    require_root()
    forms = {name: _forms(secret) for name, secret in secrets.items()}
    pattern = re.compile(b"|".join(re.escape(form) for of in forms.values() for form in of))
    found: dict[str, int] = {}
    for chunk in _memory(pid):
        for match in pattern.finditer(chunk):
            name = next(name for name, of in forms.items() if match[0] in of)
            found[name] = found.get(name, 0) + 1
    return found


def master_key(state_file: Path, key: rsa.RSAPrivateKey) -> bytes:
    """The master key of a state, opened without the project's own code."""
    with contextlib.closing(sqlite3.connect(f"file:{state_file}?mode=ro", uri=True)) as database:
        ((wrapped,),) = database.execute("SELECT wrapped FROM keyslots")
    sha256 = hashes.SHA256()
    return key.decrypt(wrapped, padding.OAEP(padding.MGF1(sha256), sha256, b"pki2fad master key"))


def _forms(secret: bytes) -> list[bytes]:
    text = secret.hex()
    base32 = base64.b32encode(secret).rstrip(b"=")
    return [secret, text.encode(), text.upper().encode(), base32, base32.lower()]


def _memory(pid: int) -> Iterator[bytes]:
    """Every readable part of the memory, in overlapping chunks."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in maps:
            bounds, mode, *_ = line.split()
            if "r" not in mode or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            while start < end:
                with contextlib.suppress(OSError):  # a secret memory file refuses even root
                    mem.seek(start)
                    yield mem.read(min(_CHUNK, end - start))
                start += _CHUNK - _OVERLAP if end - start > _CHUNK else _CHUNK
