"""Reads the host's private key from its file, which nobody else may be able to read."""

import os
import stat

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import ProtectedKey, UnusableKey, WrongPassphrase
from pki2fad.host import files, paths, trust

# The mode, at most, of a key's file that the `key_group` may read: nobody writes such a file in its place.
_FOR_GROUP = 0o440


def read(
    path: str, state: str, passphrase: bytes | None = None, *, key_group: int | None = None
) -> PrivateKey:
    """The host's private key, from a file that only its owner and the `key_group` can read.

    `state` is the state file that it opens. For want of a passphrase that of the credential
    `host.passphrase` is used, if systemd passed one. Raises `UnusableKey`, and `ProtectedKey` and
    `WrongPassphrase` (of a passphrase that was given), which are of its kind.
    """
    if not os.path.lexists(path):
        paths.require_no_state(state, path)
        raise UnusableKey(f"there is no key {path}; make one with: pki2factl init")
    pem, status = files.read_with_status(path)
    if not is_credential(path):
        _require_private(path, status, key_group)
    if passphrase is not None:
        return rsakeys.load_private(pem, path, passphrase)
    try:
        return rsakeys.load_private(pem, path, _passed_passphrase())
    except WrongPassphrase:
        raise ProtectedKey(
            f"{path} is protected by a passphrase, which is not that of the credential {paths.PASSPHRASE}"
        ) from None


def _require_private(path: str, status: os.stat_result, key_group: int | None) -> None:
    mode = stat.S_IMODE(status.st_mode)
    for_group = not mode & ~_FOR_GROUP
    if mode & 0o077 and not (for_group and status.st_gid == key_group):
        whose = f", group {status.st_gid}, which is not key_group of the settings" if for_group else ""
        raise UnusableKey(
            f"{path} can be read by others (mode {mode:04o}{whose}); mend it with: chmod 600 {path}"
        )
    why = trust.objection(status)
    if why is not None:
        raise UnusableKey(f"{path} {why}")


def _passed_passphrase() -> bytes | None:
    """The host key's passphrase, if systemd passed it; the line end is no part of it."""
    path = paths.credential(paths.PASSPHRASE)
    return None if path is None else files.read(path).removesuffix(b"\n").removesuffix(b"\r")


def is_credential(path: str) -> bool:
    """True for a file that systemd passed to the service."""
    return paths.credential(os.path.basename(path)) == path
