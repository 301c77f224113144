"""The forms in which a proof comes: bare, as JSON, and labelled, as services of the old family write it."""

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
    """The encrypted signature, and the full hash of its commit if that stands beside it."""

    sealed: bytes
    commit: str | None


def read(text: bytes) -> Proof:
    """The proof in a text. Raises `BadRequest` if there is none."""
    text = text.removeprefix(codecs.BOM_UTF8).strip()
    if not text:
        raise BadRequest("there is no proof in it: it is empty")
    if text.startswith(b"{"):
        return _of_json(text)
    if _LABEL.search(text):
        return _labelled(text)
    return Proof(_sealed(text), None)


def _of_json(text: bytes) -> Proof:
    try:
        data: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("there is no proof in it: it begins like JSON, and is none") from None
    proof, commit = data.get("proof"), data.get("commit")
    if not isinstance(proof, str):
        raise BadRequest("there is no proof in it: the JSON has no text 'proof'")
    if commit is not None and not isinstance(commit, str):
        raise BadRequest("the 'commit' of the JSON is no hash")
    return Proof(_sealed(proof.encode()), None if commit is None else _hash(commit.encode()))


def _labelled(text: bytes) -> Proof:
    """What follows each label up to the next one; only the base64 is taken from it."""
    _, *parts = _LABEL.split(text)
    values = [(label.lower(), value) for label, value in zip(parts[::2], parts[1::2], strict=True)]
    hashes = {_hash(value) for label, value in values if label == b"commit hash"}
    proofs = [value for label, value in values if label == b"encrypted signature"]
    if len(proofs) != 1 or len(hashes) > 1:
        raise BadRequest(f"one proof is expected, and it has {len(proofs)} of {len(hashes)} commits")
    found = _BASE64.match(proofs[0])
    if found is None:
        raise BadRequest("there is no proof in it: no base64 stands behind 'Encrypted Signature'")
    return Proof(_sealed(found[1]), next(iter(hashes), None))


def _hash(text: bytes) -> str:
    found = _HASH.match(text)
    if found is None:
        raise BadRequest("the hash of the commit in it is not 40 hex digits")
    return found[1].decode().lower()


def _sealed(text: bytes) -> bytes:
    try:
        return sealing.sealed_from_text(text)
    except BadSeal as error:
        raise BadRequest(f"there is no proof in it: {error}") from None
