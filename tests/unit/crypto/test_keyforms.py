"""Key files in other forms, made by openssl and ssh-keygen: each is named, and the command converts it."""

import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from support import peers

from pki2fad.crypto import der, keyforms, rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import UnusableKey

OPENSSL = {
    "private.der": "pkcs8 -topk8 -nocrypt -outform DER",
    "private-pkcs1.der": "rsa -traditional -outform DER",
    "protected.der": "pkcs8 -topk8 -outform DER -passout pass:horse",
    "public.der": "pkey -pubout -outform DER",
    "public-pkcs1.der": "rsa -RSAPublicKey_out -outform DER",
    "certificate.pem": "req -x509 -subj /CN=host -days 1",
    "certificate.der": "req -x509 -subj /CN=host -days 1 -outform DER",
    "request.pem": "req -new -subj /CN=host",
}

NAMED = {
    "private.der": "a private key in DER",
    "private-pkcs1.der": "a private key in DER (PKCS#1)",
    "protected.der": "a private key with a passphrase in DER",
    "openssh": "a private key in OpenSSH's form",
    "openssh-protected": "a private key in OpenSSH's form",
    "public.der": "a public key in DER",
    "public-pkcs1.der": "a public key in DER (PKCS#1)",
    "certificate.pem": "an X.509 certificate",
    "certificate.der": "an X.509 certificate in DER",
    "request.pem": "a certificate request",
    "openssh.pub": "a public key in OpenSSH's form",
}
PRIVATE = [
    name for name in NAMED if name.startswith(("private", "protected")) or name.endswith(("ssh", "ted"))
]
PUBLIC = [name for name in NAMED if name not in PRIVATE]


def run(*command: object) -> bytes:
    peers.require(str(command[0]))
    return subprocess.run([*map(str, command)], capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, host_key: PrivateKey) -> dict[str, bytes]:
    """The host's key in all these forms."""
    directory = tmp_path_factory.mktemp("forms")
    pem = directory / "host.pem"
    pem.write_bytes(rsakeys.private_pem(host_key))
    pem.chmod(0o600)
    made = {}
    for name, how in OPENSSL.items():
        command, *more = how.split()
        made[name] = run("openssl", command, "-key" if command == "req" else "-in", pem, *more)
    for name, passphrase in (("openssh", ""), ("openssh-protected", "horse")):
        path = directory / name
        path.write_bytes(pem.read_bytes())
        path.chmod(0o600)
        run("ssh-keygen", "-p", "-q", "-P", "", "-N", passphrase, "-f", path)
        made[name] = path.read_bytes()
    made["openssh.pub"] = run("ssh-keygen", "-y", "-f", pem)
    return made


def refusal(data: bytes, path: str, *, private: bool) -> str:
    with pytest.raises(UnusableKey) as caught:
        (rsakeys.load_private if private else rsakeys.load_public)(data, path)
    assert str(caught.value).startswith(f"{path} ")
    return str(caught.value)


@pytest.mark.parametrize("name", NAMED)
def test_a_key_in_another_form_is_named_and_the_command_converts_it(
    name: str, files: dict[str, bytes], host_key: PrivateKey, tmp_path: Path
) -> None:
    path = tmp_path / f"the {name}"  # the command is right for a path with a space, too
    path.write_bytes(files[name])
    path.chmod(0o600)
    private = name in PRIVATE
    message = refusal(path.read_bytes(), str(path), private=private)
    begin, _, command = message.partition("; convert it with: ")
    assert begin == f"{path} is {NAMED[name]}"
    if command.startswith("ssh-keygen -p"):  # what they ask for at a terminal
        command += f" -P '{'horse' if 'protected' in name else ''}' -N ''"
    elif "protected" in name:
        command += " -passin pass:horse -passout pass:horse"
    subprocess.run(command, shell=True, check=True, capture_output=True)
    made = tmp_path / f"the {name}.pem"
    pem = (made if made.exists() else path).read_bytes()
    if private:
        protected = name == "protected.der"
        key = rsakeys.load_private(pem, "made", b"horse" if protected else None)
        assert key.private_numbers() == host_key.private_numbers()
        assert not rsakeys.is_cheap(pem, "made")
    else:
        assert rsakeys.load_public(pem, "made").public_numbers() == host_key.public_key().public_numbers()


@pytest.mark.parametrize("name", NAMED)
def test_a_key_in_another_form_and_of_the_wrong_kind_is_called_that(
    name: str, files: dict[str, bytes]
) -> None:
    needed = "public" if name in PRIVATE else "private"
    message = refusal(files[name], "FILE", private=name not in PRIVATE)
    what = "a private key" if name.startswith("openssh") and name in PRIVATE else NAMED[name]
    assert message == f"FILE is {what}; the {needed} key is needed here"


@pytest.mark.parametrize("name", NAMED)
def test_a_key_in_another_form_that_is_cut_off_is_not_called_healthy(
    name: str, files: dict[str, bytes]
) -> None:
    """Of PEM a line is missing, of others the end."""
    lines = files[name].splitlines(keepends=True)
    if files[name].startswith(b"-----"):
        cut = b"".join(lines[:4] + lines[5:])
    else:
        cut = files[name][: len(files[name]) // 2]
        if name.endswith(".pub"):
            cut = files[name][:200]
    message = refusal(cut, "FILE", private=name in PRIVATE)
    assert "convert" not in message
    assert "is damaged" in message if not name.endswith(".der") else "is not a PEM file" in message


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_key_of_openssh_that_is_not_rsa_is_called_that(kind: str, tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key")
    for name, private in (("key", True), ("key.pub", False)):
        message = refusal((tmp_path / name).read_bytes(), "FILE", private=private)
        assert message == "FILE is not an RSA key"


def test_a_private_key_beside_its_certificate_is_found(files: dict[str, bytes], host_key: PrivateKey) -> None:
    pem = files["certificate.pem"] + rsakeys.private_pem(host_key)
    assert rsakeys.load_private(pem, "FILE").private_numbers() == host_key.private_numbers()


def test_the_older_form_of_a_public_key_is_used(host_key: PrivateKey, tmp_path: Path) -> None:
    path = tmp_path / "host.pem"
    path.write_bytes(rsakeys.private_pem(host_key))
    pem = run("openssl", "rsa", "-in", path, "-RSAPublicKey_out")
    assert pem.startswith(b"-----BEGIN RSA PUBLIC KEY-----")
    assert rsakeys.load_public(pem, "FILE").public_numbers() == host_key.public_key().public_numbers()


def test_two_keys_where_one_is_needed_are_refused(host_key: PrivateKey, other_key: PrivateKey) -> None:
    private = rsakeys.private_pem(host_key) + rsakeys.private_pem(other_key)
    public = rsakeys.public_pem(host_key.public_key()) + rsakeys.public_pem(other_key.public_key())
    assert refusal(private, "FILE", private=True) == "FILE has 2 private keys; one is needed here"
    assert refusal(public, "FILE", private=False) == "FILE has 2 public keys; one is needed here"


@given(data=strategies.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_is_in_a_file_it_is_a_key_or_a_refusal(
    files: dict[str, bytes], data: strategies.DataObject
) -> None:
    pem = keyforms.protected_pem(files["protected.der"])
    content = data.draw(strategies.sampled_from([*files.values(), pem, b"", b"0\x80", b"ssh-rsa "]))
    at, end = (data.draw(strategies.integers(0, len(content))) for _ in range(2))
    changed = content[:at] + data.draw(strategies.binary(max_size=40)) + content[end:]
    for load in (rsakeys.load_private, rsakeys.load_public, rsakeys.is_cheap):
        with contextlib.suppress(UnusableKey):
            load(changed, "FILE")


def test_pem_of_something_else_is_named() -> None:
    pem = run("openssl", "ecparam", "-name", "prime256v1")
    for private in (True, False):
        assert refusal(pem, "FILE", private=private) == "FILE is a PEM file with EC PARAMETERS, and no key"


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("label", [b"A", b"PRIVATE KEY"])
def test_a_megabyte_of_openings_is_refused_like_one(label: bytes, *, private: bool) -> None:
    """A search for the end of each in all that follows would take many minutes: the test would not end."""
    opening = b"-----BEGIN %b-----\n" % label
    for data in (opening, opening * (2**20 // len(opening))):
        assert refusal(data, "FILE", private=private) == (
            "FILE is damaged: a line that begins with '-----BEGIN' has no '-----END'"
        )


def test_blocks_are_found_apart_from_what_stands_beside_them(host_key: PrivateKey) -> None:
    pem = rsakeys.public_pem(host_key.public_key())
    without_a_start = pem.partition(b"\n")[2]
    for data in (b"x" + pem, pem + b"x", pem + b"x\n" + pem, without_a_start + pem, pem + without_a_start):
        assert refusal(data, "FILE", private=False) == (
            "FILE has other text beside its keys; leave only the keys in it"
        )
    for data in (b"\n" + pem + b" \n", pem + b"\n" + pem, b"# the host's\r\n" + pem):
        assert rsakeys.load_publics(data, "FILE")[0].public_numbers() == (
            host_key.public_key().public_numbers()
        )
    for data in (pem.replace(b"-----END", b"-----BEGIN"), pem.replace(b"KEY-----\n", b"KEY-----")):
        assert "is damaged" in refusal(data, "FILE", private=False)


def test_der_with_more_elements_than_a_key_has_is_not_taken_apart() -> None:
    number = der.integer(1)
    assert len(der.elements(number * 16)) == 16
    with pytest.raises(ValueError, match="more elements"):
        der.elements(number * 20_000)
    assert "is not a PEM file" in refusal(der.element(der.SEQUENCE, number * 20_000), "FILE", private=True)
