"""A TPM in software that behaves like /dev/tpmrm0: clients that leave sessions behind do not use it up.

systemd leaves its sessions to the kernel, which clears them up with the connection. swtpm alone is like
/dev/tpm0, and TSS connects to it for each command anew. So what goes before it here ends the oldest session
when a further one is started; a client needs two at a time.
"""

import contextlib
import ctypes.util
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# TPM 2.0 Library, part 2: the header of commands and responses, and what is looked for in them.
_HEADER = struct.Struct(">HII")  # tag, size in all, command or response code
_NO_SESSIONS = 0x8001
_FLUSH_CONTEXT, _START_AUTH_SESSION = 0x165, 0x176
_SUCCESS = 0
_SESSIONS = 2


@contextlib.contextmanager
def software_tpm(directory: Path) -> Iterator[None]:
    """A new TPM that listens on `tpm` in the directory, for TSS's `swtpm:path=`."""
    from support.daemon import wait_until  # neither is found where this file runs as a program
    from support.peers import missing, require

    for library in ("tss2-esys", "tss2-tcti-swtpm"):
        if ctypes.util.find_library(library) is None:
            missing("TSS (apt-get install libtss2-esys-3.0.2-0 libtss2-rc0 libtss2-tcti-swtpm0)")
    state, server = directory / "tpm.state", directory / "tpm.server"
    control = directory / "tpm.ctrl"  # TSS finds it by this name
    state.mkdir()
    subprocess.run(
        [require("swtpm_setup"), "--tpm2", "--tpmstate", state], capture_output=True, timeout=60, check=True
    )
    swtpm = [
        require("swtpm"), "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags=startup-clear",
        "--server", f"type=unixio,path={server}", "--ctrl", f"type=unixio,path={control}",
    ]  # fmt: skip
    before = [sys.executable, __file__, str(directory / "tpm"), str(server)]
    with _running(swtpm):
        wait_until(lambda: server.exists() and control.exists(), "the TPM does not listen")
        with _running(before):
            wait_until((directory / "tpm").exists, "nothing listens before the TPM")
            yield
    for path in (directory / "tpm", server, control):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[None]:
    """A program that ends with the context, or with us."""
    with subprocess.Popen(["setpriv", "--pdeathsig=KILL", *command], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def _serve(path: str, server: str) -> None:
    """One client after the other."""
    sessions: list[int] = []
    with socket.socket(socket.AF_UNIX) as tpm, socket.socket(socket.AF_UNIX) as listener:
        tpm.connect(server)
        listener.bind(path)
        listener.listen()
        while True:
            client, _ = listener.accept()
            with client:
                while command := _message(client):
                    client.sendall(_answer(tpm, command, sessions))


def _answer(tpm: socket.socket, command: bytes, sessions: list[int]) -> bytes:
    code = _HEADER.unpack_from(command)[2]
    if code != _START_AUTH_SESSION:
        return _exchange(tpm, command)
    if len(sessions) == _SESSIONS:
        oldest = struct.pack(">I", sessions.pop(0))
        _exchange(tpm, _HEADER.pack(_NO_SESSIONS, _HEADER.size + 4, _FLUSH_CONTEXT) + oldest)
    response = _exchange(tpm, command)
    if _HEADER.unpack_from(response)[2] == _SUCCESS:
        sessions.append(struct.unpack_from(">I", response, _HEADER.size)[0])
    return response


def _exchange(tpm: socket.socket, command: bytes) -> bytes:
    tpm.sendall(command)
    return _message(tpm)


def _message(stream: socket.socket) -> bytes:
    """The next command or response; nothing at the end."""
    message = stream.recv(_HEADER.size, socket.MSG_WAITALL)
    if len(message) < _HEADER.size:
        return b""
    return message + stream.recv(_HEADER.unpack(message)[1] - len(message), socket.MSG_WAITALL)


if __name__ == "__main__":
    _serve(*sys.argv[1:3])
