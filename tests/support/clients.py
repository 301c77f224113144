"""Clients that others made, each in its own language: what is asked of one, and what it gives back."""

import base64
import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack

from support.daemon import environment
from support.languages import Programs, block, install_npm, run
from support.peers import missing, require

# What asks for a method, with arguments or `params` as they are: it gives the error, or None, and the result.
Ask = Callable[..., tuple[Any, Any]]

# Each program reads a call, `[method, params]`, from a line, and writes a line with `[error, result]`. Both
# are in hexadecimal, and as its own library reads and writes them.
_PERL = """
use strict;
use warnings;
use Data::MessagePack;
use IO::Socket::UNIX;
my $mp = Data::MessagePack->new;
$| = 1;
while (my $line = <STDIN>) { # each on its own connection: an answer is whole when that ends
    chomp $line;
    my $socket = IO::Socket::UNIX->new(Peer => $ENV{PKI2FAD_SOCKET}) or die "no daemon: $!";
    print $socket $mp->pack([0, 7, @{$mp->unpack(pack 'H*', $line)}]);
    $socket->flush;
    $socket->shutdown(1);
    my $answer = do { local $/; <$socket> };
    my ($kind, $msgid, $error, $result) = @{$mp->unpack($answer)};
    die "no answer" unless $kind == 1 && $msgid == 7;
    print unpack('H*', $mp->pack([$error, $result])), "\\n";
}
"""

_LUA = """
local mp, unix = require 'MessagePack', require 'socket.unix'
local socket, msgid = unix.stream(), 0
assert(socket:connect(os.getenv 'PKI2FAD_SOCKET'))
local answers = mp.unpacker(function() return (socket:receive(1)) end)
for line in io.lines() do
    local call = mp.unpack((line:gsub('..', function(two) return string.char(tonumber(two, 16)) end)))
    msgid = msgid + 1
    assert(socket:send(mp.pack {0, msgid, call[1], call[2]}))
    local _, answer = answers()
    assert(answer[1] == 1 and answer[2] == msgid)
    local packed = mp.pack {answer[3] or false, answer[4] == nil and false or answer[4]}
    print((packed:gsub('.', function(one) return string.format('%02x', one:byte()) end)))
    io.flush()
end
"""

_LINES = """
const { decode, encode } = require('@msgpack/msgpack');
const lines = require('readline').createInterface({ input: process.stdin });
const answerLines = async (call) => {
  for await (const line of lines) {
    const answer = await call(...decode(Buffer.from(line, 'hex')));
    process.stdout.write(`${Buffer.from(encode(answer)).toString('hex')}\\n`);
  }
};
"""

_NODE = f"""{_LINES}
const {{ Client, UnixClient }} = require('msgpack-rpc-node');
const client = new Client(UnixClient, process.env.PKI2FAD_SOCKET);
(async () => {{
  await client.connect();
  await answerLines((method, params) => client.call(method, ...params)
    .then((result) => [null, result], (error) => [error, null]));
  client.close();
}})();
"""

_NEOVIM = f"""{_LINES}
const {{ attach }} = require('neovim');
const socket = require('net').connect(process.env.PKI2FAD_SOCKET);
const client = attach({{ reader: socket, writer: socket }});
(async () => {{
  await answerLines((method, params) => client.request(method, params)
    .then((result) => [null, result], (error) => [error.message.split(': ').slice(1), null]));
  client.close();
}})();
"""

_PYTHON = """
import os, socket, sys
import msgpack, msgpackrpc

class Unix(msgpackrpc.Address):
    def unpack(self):
        return self.host

    def socket(self):
        made = socket.socket(socket.AF_UNIX)
        made.setblocking(False)
        return made

client = msgpackrpc.Client(Unix(os.environ["PKI2FAD_SOCKET"], None), unpack_encoding="utf-8")
for line in sys.stdin:
    method, params = msgpack.unpackb(bytes.fromhex(line), encoding="utf-8")
    try:
        answer = [None, client.call(method, *params)]
    except msgpackrpc.error.RPCError as error:
        answer = [error.args[0], None]
    print(msgpack.packb(answer, use_bin_type=True).hex(), flush=True)
"""

_NPM = {"msgpack-rpc-node": "msgpack-rpc-node@0.1.0-alpha.3", "neovim": "neovim@5.5.0"}
_PYPI = "msgpack-rpc-python==0.4.1"

# Languages with one type for text and bytes: the first sends all of it as bin, and the second as str.
_ONE_TYPE = ("perl", "lua")


class Clients:
    """The clients by name, each installed when it is first wanted."""

    def __init__(self, where: Path) -> None:
        self._where = where
        self._made: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def asking(self, name: str, path: Path) -> Iterator[Ask]:
        """The client, with the daemon that has this socket."""
        if name == "node":
            yield functools.partial(_ask_printed, Programs(self._where)["node"], path)
            return
        process = subprocess.Popen(
            self._command(name),
            env=environment(path.parent, PKI2FAD_SOCKET=str(path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            yield functools.partial(_ask, process, name not in _ONE_TYPE)
        assert process.returncode == 0

    def printed(self, name: str) -> list[str]:
        """The program that PROTOCOL.md prints for it."""
        *interpreter, program = self._command(name)
        return [*interpreter, _written(Path(program).parent, "printed.js", block(name))]

    def _command(self, name: str) -> list[str]:
        if name not in self._made:
            self._made[name] = _MAKERS[name](self._where)
        return self._made[name]


def _ask(
    process: "subprocess.Popen[str]",
    use_bin: bool,
    method: str,
    params: list[Any] | None = None,
    **args: Any,
) -> tuple[Any, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    call = [method, [args] if params is None else params]
    process.stdin.write(f"{msgpack.packb(call, use_bin_type=use_bin).hex()}\n")
    process.stdin.flush()
    answer = bytes.fromhex(process.stdout.readline())
    error, *result = _text(msgpack.unpackb(answer, raw=True))  # Lua leaves out what is nil at the end
    return error or None, result[0] if result else None


def _text(value: Any) -> Any:
    """With text as str, which some clients have as bytes."""
    if isinstance(value, dict):
        return {_text(name): _text(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_text(entry) for entry in value]
    with contextlib.suppress(UnicodeDecodeError, AttributeError):
        return value.decode()
    return value


def _ask_printed(command: list[str], path: Path, method: str, **args: Any) -> tuple[Any, Any]:
    """With the program that PROTOCOL.md prints, which takes words."""
    words = []
    for name, value in args.items():
        if isinstance(value, bytes):
            file = path.parent / name
            file.write_bytes(base64.encodebytes(value))
            words.append(f"{name}=@{file}")
        else:
            words.append(f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value)}")
    done = run(command, path, method, *words)
    if done.returncode == 1:
        return done.stderr.removeprefix("client: ").split(": "), None
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    if method == "backup":
        result["backup"] = base64.b64decode(result["backup"])
    return None, result


def _perl(where: Path) -> list[str]:
    perl = require("perl")
    _check([perl, "-MData::MessagePack", "-e1"], "libdata-messagepack-perl")
    return [perl, _written(where, "calls.pl", _PERL)]


def _lua(where: Path) -> list[str]:
    lua = require("lua5.3")
    _check([lua, "-e", "require 'MessagePack'"], "lua-messagepack")
    _check([lua, "-e", "require 'socket.unix'"], "lua-socket")
    return [lua, _written(where, "calls.lua", _LUA)]


def _npm(name: str, text: str, where: Path) -> list[str]:
    folder = where / name
    folder.mkdir(exist_ok=True)  # it is there where an attempt before failed
    install_npm(folder, _NPM[name])
    return [require("node"), _written(folder, "calls.js", text)]


def _python(where: Path) -> list[str]:
    """It needs old releases of tornado and msgpack, so an environment of its own, and at most Python 3.11."""
    folder = where / "python"
    python = sys.executable if sys.version_info < (3, 12) else require("python3.11")
    subprocess.run([python, "-m", "venv", folder], timeout=240, check=True)
    command = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", _PYPI]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode != 0:
        missing(f"{_PYPI}, from an index that pip can reach\n{done.stderr}")
    return [str(folder / "bin" / "python"), "-Wignore", _written(folder, "calls.py", _PYTHON)]


_MAKERS: dict[str, Callable[[Path], list[str]]] = {
    "perl": _perl,
    "lua": _lua,
    "msgpack-rpc-python": _python,
    "msgpack-rpc-node": functools.partial(_npm, "msgpack-rpc-node", _NODE),
    "neovim": functools.partial(_npm, "neovim", _NEOVIM),
}
NAMES = ("node", *_MAKERS)


def _check(command: list[str], package: str) -> None:
    if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0:
        missing(f"{package} (apt-get install {package})")


def _written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)
