"""The forms in which a proof comes, where a file was made to be slow to read."""

import base64

import pytest

from pki2factl.issuing import prooftext
from pki2fad.errors import BadRequest

SEALED = bytes(range(256))
COMMIT = "0123456789abcdef" * 2 + "01234567"


def test_labels_are_found_behind_a_megabyte_of_other_lines() -> None:
    """A label sought from each line through all that follow would take hours: the test would not end."""
    lines = b"\n" + b"-\n" * 500_000
    text = lines + f"** Commit Hash: {COMMIT}\n".encode()
    text += b"> Encrypted Signature:\n" + base64.encodebytes(SEALED)
    assert prooftext.read(b"x" + text) == prooftext.Proof(SEALED, COMMIT)
    with pytest.raises(BadRequest, match="there is no proof"):
        prooftext.read(b"x" + lines)
