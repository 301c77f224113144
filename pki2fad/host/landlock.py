"""What the daemon gives up at its start, of itself: to execute any file.

systemd's filter of system calls cannot take that away, since systemd itself has to execute the daemon.
"""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

# The same on every architecture, as all calls since Linux 5.0.
_SYS_LANDLOCK_CREATE_RULESET = 444
_SYS_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_ACCESS_FS_EXECUTE = 1

_PR_SET_NO_NEW_PRIVS = 38


def forbid_exec() -> bool:
    """From now on neither this thread nor what it starts can execute a file, or trace who still can.

    False where the kernel has no Landlock (Linux 5.13), and all is as it was.
    """
    # What is handled, and allowed for no file by a rule, is forbidden for all of them.
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
