"""Landlock: the daemon gives up executing files when it starts.

systemd's filter of system calls cannot forbid that, since systemd itself executes the daemon under it.
"""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

# The same on every architecture, like all calls since Linux 5.0.
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_ACCESS_FS_EXECUTE = 1

_PR_SET_NO_NEW_PRIVS = 38


def forbid_exec() -> bool:
    """Forbid this thread and its children to execute files, and to trace processes that still can.

    Returns False, and changes nothing, if the kernel has no Landlock (Linux 5.13).
    """
    # A right that is handled, and that no rule allows for a file, is forbidden for all files.
    handled = ctypes.c_uint64(_LANDLOCK_ACCESS_FS_EXECUTE)
    size = ctypes.c_size_t(ctypes.sizeof(handled))
    ruleset = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(handled), size, 0)
    if ruleset < 0:
        return False
    try:
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(_libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)
