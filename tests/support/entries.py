"""Authenticators in the JSON of batches and backups: right ones, and what makes one wrong."""

import base64
from typing import Any

GOOD = {
    "name": "default",
    "algorithm": "SHA1",
    "digits": 6,
    "period": 30,
    "sealed": base64.b64encode(bytes(60)).decode(),
}
WRONG: list[dict[str, Any]] = [
    {"name": "../x"},
    {"name": ""},
    {"name": 5},
    {"name": ["a"]},
    {"algorithm": "MD5"},
    {"algorithm": ["SHA1"]},
    {"digits": True},
    {"digits": 9},
    {"period": 0},
    {"period": 30.0},
    {"sealed": ""},
    {"sealed": base64.b64encode(bytes(43)).decode()},
    {"sealed": base64.b64encode(bytes(93)).decode()},
    {"sealed": None},
    {"sealed": "#"},
    {"more": 1},
]

# The same for version 2, where `GOOD` has these too.
GOOD_2 = GOOD | {"label": "main", "kind": "totp", "short": False}
TOKEN = GOOD | {"label": "token", "kind": "hotp", "period": 0, "short": False}
WRONG_2: list[dict[str, Any]] = [
    *WRONG,
    {"label": ""},
    {"label": "-x"},
    {"label": "x" * 33},
    {"label": ["main"]},
    {"label": None},
    {"kind": "motp"},
    {"kind": ["totp"]},
    {"kind": "hotp"},
    {"period": None},
    {"short": True},
    {"short": 0},
    {"short": False, "sealed": base64.b64encode(bytes(28 + 15)).decode()},
    {"short": True, "sealed": base64.b64encode(bytes(28 + 9)).decode()},
]


def readable(seed: bytes) -> list[bytes]:
    """What nobody may read in a batch or a backup of these tests."""
    return [
        seed,
        seed.hex().encode(),
        base64.b64encode(seed),
        b"deploy",
        b"default",
        b"SHA512",
        b"token",
        b"hotp",
    ]
