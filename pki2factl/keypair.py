"""Making a key pair in two files, for the commands that do."""

import os

from pki2fad import envelope, files
from pki2fad.errors import UnusablePath

from . import ui


def make(private: str, public: str, bits: int, *, force: bool) -> str:
    """Make both files and return the key's fingerprint. Without `force` none may be there."""
    if os.path.realpath(private) == os.path.realpath(public):
        raise UnusablePath(f"{private} cannot hold both keys")
    if not force:
        files.require_absent(private, public)
    key = ui.with_spinner(f"making an RSA-{bits} key", lambda: envelope.generate_key(bits))
    write = files.replace if force else files.create
    for path in (private, public):
        files.make_directory(os.path.dirname(os.path.abspath(path)))
    write(private, envelope.private_pem(key), files.PRIVATE)
    write(public, envelope.public_pem(key.public_key()), files.PUBLIC)
    return envelope.fingerprint(key.public_key())
