"""Reads and makes key pairs in files, and asks for their passphrases."""

import os
import sys

from pki2factl import ui
from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, ProtectedKey, UnusableKey, UnusablePath
from pki2fad.host import files, paths

_SHORTEST = 12  # characters of a passphrase: four words, or what a password manager makes


def load(path: str, passphrase: str = "", *, from_stdin: bool = False) -> PrivateKey:
    """Load a private key from a file. Asks on a terminal or standard input for a missing passphrase."""
    pem = files.read(path)
    try:
        return rsakeys.load_private(pem, path, to_bytes(passphrase) or None)
    except ProtectedKey:
        if not (from_stdin or sys.stdin.isatty()):
            raise
        passphrase = ui.passphrase(f"Passphrase of {path}: ", from_stdin=from_stdin)
        return rsakeys.load_private(pem, path, to_bytes(passphrase))


def require_not_sealed(path: str) -> None:
    """Raise `UnusableKey` if the host's private key is not in its file because systemd has it sealed."""
    sealed = paths.sealed_file(paths.PRIVATE_KEY)
    ours = os.path.abspath(path) == os.path.join(paths.config_dir(), paths.PRIVATE_KEY)
    if ours and os.geteuid() == 0 and not os.path.lexists(path) and os.path.lexists(sealed):
        raise UnusableKey(
            f"the key {path} is sealed in {sealed}; first put it back with: (umask 077;"
            f" systemd-creds decrypt --name={paths.PRIVATE_KEY} {sealed} {path})"
        )


def is_protected(path: str) -> bool:
    """True if the private key in a file has a passphrase."""
    try:
        rsakeys.load_private(files.read(path), path)
    except ProtectedKey:
        return True
    return False


def new_passphrase(*, from_stdin: bool, weak: bool) -> str:
    """Read the passphrase for a new key, twice on a terminal. Raises `BadRequest`.

    A short one is refused unless `weak` is true.
    """
    passphrase = ui.passphrase("New passphrase: ", from_stdin=from_stdin)
    if not passphrase:
        raise BadRequest("an empty passphrase protects nothing")
    if len(passphrase) < _SHORTEST and not weak:
        raise BadRequest(
            f"the passphrase has only {len(passphrase)} characters, and can be guessed from the key's file;"
            f" use at least {_SHORTEST}, or add --weak"
        )
    if not from_stdin and ui.passphrase("Once more: ") != passphrase:
        raise BadRequest("the two passphrases differ")
    return passphrase


def make_private(path: str, bits: int, passphrase: str, *, like: str) -> None:
    """Make a new private key's file, with the owner of the file `like`. It must not exist yet."""
    key = ui.with_spinner(f"making an RSA-{bits} key", lambda: rsakeys.generate_key(bits))
    files.create(path, rsakeys.private_pem(key, to_bytes(passphrase)), files.PRIVATE, like=os.stat(like))


def make(private: str, public: str, bits: int, *, force: bool, passphrase: str = "") -> str:
    """Make both files; returns the key's fingerprint. Without `force` neither may exist.

    A passphrase protects the private key's file.
    """
    if os.path.realpath(private) == os.path.realpath(public):
        raise UnusablePath(f"{private} cannot hold both keys")
    if not force:
        files.require_absent(private, public)
    key = ui.with_spinner(f"making an RSA-{bits} key", lambda: rsakeys.generate_key(bits))
    write = files.replace if force else files.create
    for path in (private, public):
        files.make_directory(os.path.dirname(os.path.abspath(path)))
    write(private, rsakeys.private_pem(key, to_bytes(passphrase)), files.PRIVATE)
    write(public, rsakeys.public_pem(key.public_key()), files.PUBLIC)
    return rsakeys.fingerprint(key.public_key())


def to_bytes(passphrase: str) -> bytes:
    """The bytes that were typed, even if they are not UTF-8."""
    return passphrase.encode("utf-8", "surrogateescape")
