"""Opens backups by their description, with openssl and cryptography and nothing of pki2fad."""

import base64
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from support.peers import require

_MAGICS = (b"pki2fad backup 1\n", b"pki2fad backup 2\n")
_MAGIC_BYTES = 17


def header_of(backup: bytes) -> tuple[dict[str, str], bytes, bytes]:
    """The slots, what the content is bound to, and the content."""
    assert backup.startswith(_MAGICS)
    begin = _MAGIC_BYTES + 4
    end = begin + int.from_bytes(backup[_MAGIC_BYTES:begin], "big")
    return json.loads(backup[begin:end])["slots"], backup[:end], backup[end:]


def fingerprint(key: rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def unwrap(wrapped: bytes, private_key: Path) -> bytes:
    """What is in a slot, by openssl. Raises `CalledProcessError`."""
    options = [
        "rsa_padding_mode:oaep",
        "rsa_oaep_md:sha256",
        "rsa_mgf1_md:sha256",
        f"rsa_oaep_label:{b'pki2fad master key'.hex()}",
    ]
    command = [require("openssl"), "pkeyutl", "-decrypt", "-inkey", str(private_key)]
    for option in options:
        command += ["-pkeyopt", option]
    return subprocess.run(command, input=wrapped, capture_output=True, check=True).stdout


def open_backup(backup: bytes, key: rsa.RSAPrivateKey, private_key: Path) -> tuple[bytes, Any]:
    """The master key and the content of a backup, whose key is in a file too."""
    slots, bound, sealed = header_of(backup)
    master = unwrap(base64.b64decode(slots[fingerprint(key)]), private_key)
    return master, json.loads(AESGCM(master).decrypt(sealed[:12], sealed[12:], bound))


def seed_of(account: dict[str, Any], master: bytes) -> bytes:
    """The seed of an authenticator in the content, of either version."""
    version, more = ("2", ["label", "kind"]) if "label" in account else ("1", [])
    fields = ["name", *more, "algorithm", "digits", "period"]
    bound = "\0".join([f"pki2fad account {version}", *(str(account[name]) for name in fields)])
    sealed = base64.b64decode(account["sealed"])
    return AESGCM(master).decrypt(sealed[:12], sealed[12:], bound.encode())
