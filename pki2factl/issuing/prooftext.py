"""Reads a proof in any of its forms: bare, as JSON, or labelled, as the old services write it."""

import codecs
import json
import re
from typing import Any, NamedTuple

from pki2fad.crypto import sealing
from pki2fad.errors import BadRequest, BadSeal

_LABEL = re.compile(rb"^[^\w\n]*(commit hash|encrypted signature)[^:\n]*:", re.IGNORECASE | re.MULTILINE)
_HASH = re.compile(rb"[\s*`]*([0-9a-f]{40})[\s*`]*", re.IGNORECASE)
_BASE64 = re.compile(rb"[\s*`]*((?:[A-Za-z0-9+/]+[ \t\r]*\n?[ \t]*)+={0,2})")


class Proof(NamedTuple):
    """The encrypted signature, and the full hash of its commit if the text has it."""

    sealed: bytes
    commit: str | None


def read(text: bytes) -> Proof:
    """Read the proof in a text. Raises `BadRequest` if there is none."""
    text = text.removeprefix(codecs.BOM_UTF8).strip()
    if not text:
        raise BadRequest("there is no proof: the input is empty")
    if text.startswith(b"{"):
        return _of_json(text)
    if _LABEL.search(text):
        return _labelled(text)
    return Proof(_sealed(text), None)


def _of_json(text: bytes) -> Proof:
    try:
        data: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("there is no proof: the input begins like JSON, but is not JSON") from None
    proof, commit = data.get("proof"), data.get("commit")
    if not isinstance(proof, str):
        raise BadRequest("there is no proof: the JSON has no text 'proof'")
    if commit is not None and not isinstance(commit, str):
        raise BadRequest("'commit' in the JSON is not a hash")
    return Proof(_sealed(proof.encode()), None if commit is None else _hash(commit.encode()))


def _labelled(text: bytes) -> Proof:
    """Read labelled lines: the value of a label ends at the next one; only its base64 is used."""
    _, *parts = _LABEL.split(text)
    values = [(label.lower(), value) for label, value in zip(parts[::2], parts[1::2], strict=True)]
    hashes = {_hash(value) for label, value in values if label == b"commit hash"}
    proofs = [value for label, value in values if label == b"encrypted signature"]
    if len(proofs) != 1 or len(hashes) > 1:
        raise BadRequest(f"one proof is expected, but there are {len(proofs)} for {len(hashes)} commits")
    found = _BASE64.match(proofs[0])
    if found is None:
        raise BadRequest("there is no proof: no base64 follows 'Encrypted Signature'")
    return Proof(_sealed(found[1]), next(iter(hashes), None))


def _hash(text: bytes) -> str:
    found = _HASH.match(text)
    if found is None:
        raise BadRequest("the commit hash beside the proof is not 40 hex digits")
    return found[1].decode().lower()


def _sealed(text: bytes) -> bytes:
    try:
        return sealing.sealed_from_text(text)
    except BadSeal as error:
        raise BadRequest(f"there is no proof: {error}") from None
