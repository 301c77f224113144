"""Making a key pair in two files, for the commands that do."""

import os

from pki2fad import envelope, files
from pki2fad.errors import UnusablePath

from . import ui


def make(private: str, public: str, bits: int, *, force: bool) -> str:
    """Make both files and return the key's fingerprint. Without `force` none may be there."""
    for path in (private, public):
        if os.path.lexists(path) and not force:
            raise UnusablePath(f"{path} exists already; it is never overwritten without --force")
    key = ui.with_spinner(f"making an RSA-{bits} key", lambda: envelope.generate_key(bits))
    write = files.replace if force else files.create
    write(private, envelope.private_pem(key), files.PRIVATE)
    write(public, envelope.public_pem(key.public_key()), files.PUBLIC)
    return envelope.fingerprint(key.public_key())
