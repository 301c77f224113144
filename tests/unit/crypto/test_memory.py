"""The locked page, as the kernel sees it, and no core dumps: each in a process of its own."""

import contextlib
import ctypes
import gc
import os
import subprocess
import sys
import weakref

import pytest
from support import peers

from pki2fad.crypto import memory

_SYS_MEMFD_SECRET = 447

# The three kinds of page that a system may grant.
PAGES = {
    "the best there is": """
from pki2fad.crypto.memory import LockedPage
page = LockedPage()
""",
    # memfd_secret takes a descriptor, and there is none left.
    "mlock": """
import os, resource
from pki2fad.crypto.memory import LockedPage
free = os.open("/dev/null", os.O_RDONLY)
os.close(free)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
page = LockedPage()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
""",
    "no memory may be locked": """
import resource
from pki2fad.crypto.memory import LockedPage
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
page = LockedPage()
""",
}

ADDRESS = """
import ctypes
address = ctypes.addressof(ctypes.c_char.from_buffer(page.buffer))
"""

# The name and the flags of the mapping that the page is in: proc(5), smaps.
SHOW_MAPPING = (
    ADDRESS
    + """
inside = False
with open("/proc/self/smaps") as smaps:
    for line in smaps:
        words = line.split()
        if "-" in words[0]:
            start, _, end = words[0].partition("-")
            inside = int(start, 16) <= address < int(end, 16)
            name = words[5] if len(words) > 5 else "-"
        elif inside and words[0] == "VmFlags:":
            print(page.locked, name, *words[1:])
page.close()
"""
)

# A second view of the same memory, which stays when the page is given back.
SHOW_AFTER_CLOSE = (
    ADDRESS
    + """
import mmap
mremap = ctypes.CDLL(None, use_errno=True).mremap
mremap.restype = ctypes.c_void_p
mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
view = mremap(address, 0, mmap.PAGESIZE, 1)
page.buffer[:] = b"s" * mmap.PAGESIZE
print(ctypes.string_at(view, mmap.PAGESIZE).count(b"s") == mmap.PAGESIZE)
page.close()
print(ctypes.string_at(view, mmap.PAGESIZE) == bytes(mmap.PAGESIZE))
"""
)

SHOW_FATE_OF_A_CHILD = """
import os, signal
page.buffer[0] = 1
child = os.fork()
if child == 0:
    page.buffer[0]
    os._exit(0)
_, status = os.waitpid(child, 0)
print(os.WIFSIGNALED(status) and signal.Signals(os.WTERMSIG(status)).name, page.buffer[0])
page.close()
"""


def run(script: str) -> list[str]:
    """The words that a script prints. Root gives up its capabilities, so that limits count for it."""
    command = [sys.executable, "-P", "-c", script]
    if os.geteuid() == 0:
        command = [peers.require("setpriv"), "--bounding-set=-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def kernel_has_secret_memory() -> bool:
    descriptor = ctypes.CDLL(None).syscall(_SYS_MEMFD_SECRET, os.O_CLOEXEC)
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def test_the_page_is_secret_memory_where_the_kernel_has_it() -> None:
    locked, name, *flags = run(PAGES["the best there is"] + SHOW_MAPPING)
    assert (name == "/secretmem") == kernel_has_secret_memory()
    assert locked == "True"
    assert "lo" in flags


def test_the_page_is_locked_where_there_is_no_secret_memory() -> None:
    locked, name, *flags = run(PAGES["mlock"] + SHOW_MAPPING)
    assert (locked, name != "/secretmem") == ("True", True)
    assert "lo" in flags


def test_a_page_that_could_not_be_locked_says_so() -> None:
    locked, _, *flags = run(PAGES["no memory may be locked"] + SHOW_MAPPING)
    assert locked == "False"
    assert "lo" not in flags


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_is_in_no_core_dump_and_in_no_child(kind: str) -> None:
    flags = run(PAGES[kind] + SHOW_MAPPING)
    assert {"dd", "dc"} <= set(flags)


@pytest.mark.parametrize("kind", PAGES)
def test_a_forked_child_dies_where_it_reads_the_page(kind: str) -> None:
    assert run(PAGES[kind] + SHOW_FATE_OF_A_CHILD) == ["SIGSEGV", "1"]


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_is_all_zeros_when_it_is_given_back(kind: str) -> None:
    assert run(PAGES[kind] + SHOW_AFTER_CLOSE) == ["True", "True"]


def test_a_closed_page_cannot_be_read() -> None:
    page = memory.LockedPage()
    buffer = page.buffer
    page.close()
    with pytest.raises(ValueError, match="released"):
        buffer[0]


def test_wiping_leaves_zeros_in_place() -> None:
    buffer = bytearray(b"seed")
    memory.wipe(buffer)
    assert buffer == bytes(4)


def test_a_part_is_wiped_without_the_rest() -> None:
    buffer = bytearray(b"seed rest")
    memory.wipe(memoryview(buffer)[:4])
    assert buffer == b"\0\0\0\0 rest"


def test_dumps_and_tracing_are_forbidden() -> None:
    script = """
import ctypes, resource
from pki2fad.crypto.memory import forbid_dumps
PR_GET_DUMPABLE = 3
libc = ctypes.CDLL(None)
print(libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
forbid_dumps()
print(*resource.getrlimit(resource.RLIMIT_CORE), libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
"""
    assert run(script) == ["1", "0", "0", "0"]


@pytest.mark.parametrize("end", ["done", "failed"])
def test_what_is_made_uncollected_is_left_alone_and_what_comes_after_is_collected(end: str) -> None:
    class Part:
        itself: object

    def cycle() -> weakref.ref[Part]:
        part = Part()
        part.itself = part
        return weakref.ref(part)

    try:
        with contextlib.suppress(KeyError), memory.uncollected():
            assert not gc.isenabled()
            start = cycle()
            if end == "failed":
                raise KeyError
        assert gc.isenabled()
        later = cycle()
        gc.collect()
        assert start() is not None
        assert later() is None
    finally:
        gc.unfreeze()
        gc.collect()
    assert start() is None
