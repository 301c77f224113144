"""Memory for secrets: a locked page that is wiped at the end, no core dumps, and less garbage collection.

Python cannot wipe `str` or `bytes`, so secrets live in buffers. SECURITY.md says what that protects from.
"""

import contextlib
import ctypes
import gc
import mmap
import os
import resource
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_MEMFD_SECRET = 447  # the same on every architecture, like all calls since Linux 5.0
_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Forbid core dumps of this process, and ptrace by other processes of its user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from objects made in this block, also afterwards.

    Looking through all accounts again and again took a fifth of a start, and would delay answers.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def wipe(buffer: bytearray | memoryview) -> None:
    """Overwrite with zeros, in place."""
    buffer[:] = bytes(len(buffer))


class Wiping:
    """A context manager that wipes its buffer. A generator would take a microsecond more."""

    __slots__ = ("_buffer",)

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer

    def __enter__(self) -> bytearray:
        return self._buffer

    def __exit__(self, *_error: object) -> None:
        wipe(self._buffer)


class LockedPage:
    """A page that is never swapped, dumped or inherited. `close` wipes it.

    It uses memfd_secret if the kernel has it (its pages leave the kernel's own map), otherwise mlock.
    `locked` is False if neither was granted: then it is an ordinary page.
    """

    def __init__(self) -> None:
        self._map, self.locked = _secret_map() or _mlocked_map()
        self._map.madvise(mmap.MADV_DONTFORK)
        with contextlib.suppress(OSError):  # a secret memory file is never dumped anyway
            self._map.madvise(mmap.MADV_DONTDUMP)
        self.buffer = memoryview(self._map)

    def close(self) -> None:
        """Wipe the page and free it."""
        wipe(self.buffer)
        self.buffer.release()
        self._map.close()


def _secret_map() -> tuple[mmap.mmap, bool] | None:
    descriptor = _libc.syscall(_SYS_MEMFD_SECRET, os.O_CLOEXEC)
    if descriptor < 0:
        return None
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        return mmap.mmap(descriptor, mmap.PAGESIZE), True
    except OSError:  # this process may not lock more memory
        return None
    finally:
        os.close(descriptor)


def _mlocked_map() -> tuple[mmap.mmap, bool]:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return page, _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE)) == 0
