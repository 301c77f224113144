"""Accounts in the JSON of batches and backups: one that is right, and what makes one wrong."""

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
