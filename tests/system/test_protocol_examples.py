"""What PROTOCOL.md prints is what happens; its programs are in test_languages.py."""

import re
import socket

import msgpack
from support import peers
from support.daemon import Daemon, code_of
from support.documents import PROTOCOL, run


def test_a_seed_is_sealed_with_openssl_as_shown(shell: Daemon) -> None:
    peers.require("openssl")
    recipe = re.search(
        r'^ {4}(printf %s "\$HEX" .*?\| base64)$', PROTOCOL.read_text(), re.DOTALL | re.MULTILINE
    )
    assert recipe is not None
    seed = bytes(range(32))
    script = f"HEX={seed.hex()}; ({recipe[1]}) | tee config/seeds.d/b.sealed | pki2factl load --account a"
    assert run(script, shell.root, shell.socket) == "loaded a\n"
    assert (shell.seeds_dir / "b.sealed").read_text().count("\n") > 1
    shell.reload()
    with shell.client() as client:
        code = client.generate("b")
        assert code.code == client.generate("a").code == code_of(seed, code.step)


def test_the_exchange_in_hex_is_what_is_on_the_wire(shell: Daemon) -> None:
    request, response = (
        bytes.fromhex(
            "".join(re.findall(r"^ {4,}((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: {2,}|$)", part, re.MULTILINE))
        )
        for part in PROTOCOL.read_text().partition("## One exchange")[2].strip().rsplit("\n\n", 1)
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(shell.socket))
        connection.sendall(request)
        received = connection.recv(4096)
    assert msgpack.unpackb(request) == [0, 1, "verify", [{"code": "123456"}]]
    assert received == response or msgpack.unpackb(received)[3] == {"valid": True}
