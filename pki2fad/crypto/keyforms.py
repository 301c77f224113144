"""The forms of key files: finds the keys that can be used, and says how to convert the others."""

import base64
import re
import shlex
from typing import NamedTuple, NoReturn

from pki2fad.crypto import der
from pki2fad.errors import UnusableKey

_BEGIN = b"-----BEGIN "
_LABEL = re.compile(rb"[A-Z0-9 ]+")
_END = b"-----END "
_DASHES = b"-----"
_PROTECTED = b"ENCRYPTED PRIVATE KEY"
_LINE = 64  # characters of base64, as RFC 7468 wants them
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_NUMBER_BYTES = 4
_SSH_RSA = b"ssh-rsa"
_PROTECTED_LINE = b"Proc-Type: 4,ENCRYPTED"  # in keys that OpenSSL wrote before PKCS#8


class Form(NamedTuple):
    """A form of key. The command converts the file `{0}`, in place or into the file `{1}`."""

    what: str
    private: bool
    command: str


_PRIVATE_KEY = Form("a private key", True, "")
_PUBLIC_KEY = Form("a public key", False, "")
_CERTIFICATE = Form("an X.509 certificate", False, "openssl x509 -in {0} -noout -pubkey > {1}")
_OPENSSH = Form("a private key in OpenSSH's form", True, "ssh-keygen -p -m PKCS8 -f {0}")
_OPENSSH_PUBLIC = Form("a public key in OpenSSH's form", False, "ssh-keygen -e -m PKCS8 -f {0} > {1}")

_OF_LABEL = {
    b"PUBLIC KEY": _PUBLIC_KEY,
    b"RSA PUBLIC KEY": _PUBLIC_KEY,
    b"CERTIFICATE": _CERTIFICATE,
    b"TRUSTED CERTIFICATE": _CERTIFICATE,
    b"CERTIFICATE REQUEST": Form("a certificate request", False, "openssl req -in {0} -noout -pubkey > {1}"),
}

# Keys in DER are one SEQUENCE. The tags of its elements tell the kind of key.
_OF_TAGS: dict[tuple[int, ...] | None, Form] = {
    (der.INTEGER, der.SEQUENCE, der.OCTET_STRING): Form(
        "a private key in DER", True, "openssl pkey -inform DER -in {0} -out {1}"
    ),
    (der.INTEGER,) * 9: Form(
        "a private key in DER (PKCS#1)", True, "openssl pkey -inform DER -in {0} -out {1}"
    ),
    (der.SEQUENCE, der.OCTET_STRING): Form(
        "a private key with a passphrase in DER",
        True,
        "openssl pkcs8 -topk8 -iter 1000000 -inform DER -in {0} -out {1}",
    ),
    (der.SEQUENCE, der.BIT_STRING): Form(
        "a public key in DER", False, "openssl pkey -pubin -inform DER -in {0} -out {1}"
    ),
    (der.INTEGER,) * 2: Form(
        "a public key in DER (PKCS#1)",
        False,
        "openssl rsa -RSAPublicKey_in -inform DER -in {0} -pubout -out {1}",
    ),
    (der.SEQUENCE, der.SEQUENCE, der.BIT_STRING): Form(
        "an X.509 certificate in DER", False, "openssl x509 -inform DER -in {0} -noout -pubkey > {1}"
    ),
}


class Block(NamedTuple):
    """A key in a PEM file."""

    label: bytes
    text: bytes  # with the lines that begin and end it
    body: bytes

    @property
    def is_protected(self) -> bool:
        """True for a private key with a passphrase."""
        return self.label == _PROTECTED or _PROTECTED_LINE in self.body

    @property
    def protected_pkcs8(self) -> bytes | None:
        """The DER of a private key that PKCS#8 protects, else None."""
        return _from_base64(self.body) if self.label == _PROTECTED else None


def protected_pem(data: bytes) -> bytes:
    """The PEM file of a private key that PKCS#8 protects, from its DER."""
    text = base64.b64encode(data)
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return b"\n".join((b"-----BEGIN %b-----" % _PROTECTED, *lines, b"-----END %b-----" % _PROTECTED, b""))


def private_key(data: bytes, path: str) -> Block:
    """The private key in a file, which may also have certificates. Raises `UnusableKey`."""
    blocks, _ = _blocks(data, path, private=True)
    keys = [block for block in blocks if block.label.endswith(b"PRIVATE KEY")]
    if len(keys) > 1:
        raise UnusableKey(f"{path} has {len(keys)} private keys; one is needed here")
    if not keys:
        _refuse(_form_of_block(blocks[0], path), path, private=True)
    if keys[0].label == b"OPENSSH PRIVATE KEY":
        _refuse(_form_of_openssh(keys[0], path), path, private=True)
    return keys[0]


def public_keys(data: bytes, path: str) -> list[Block]:
    """The public keys, at least one, in a file. Raises `UnusableKey`."""
    blocks, beside = _blocks(data, path, private=False)
    if any(block.label.endswith(b"PRIVATE KEY") for block in blocks):
        _refuse(_PRIVATE_KEY, path, private=False)
    keys = [block for block in blocks if _OF_LABEL.get(block.label) is _PUBLIC_KEY]
    if not keys:
        _refuse(_form_of_block(blocks[0], path), path, private=False)
    if beside:  # it may be a key that lost its first line, and would be missed
        raise UnusableKey(f"{path} has other text beside its keys; leave only the keys in it")
    return keys


def damaged(path: str) -> UnusableKey:
    """The refusal of a file that looks like a key's and has none."""
    return UnusableKey(f"{path} is damaged: no key can be read from it")


def _blocks(data: bytes, path: str, *, private: bool) -> tuple[list[Block], bool]:
    """All blocks of a PEM file, at least one, and whether there is text between or after them."""
    if _BEGIN not in data:
        form = _form_of_ssh_line(data, path) or _OF_TAGS.get(_tags(data))
        if form is None:
            raise UnusableKey(f"{path} is not a PEM file: it has no line that begins with '-----BEGIN'")
        _refuse(form, path, private=private)
    if b"\\n" in data:
        raise UnusableKey(
            f"{path} has the two characters \\n in place of line ends; repair it with:"
            f" sed -i 's/\\\\n/\\n/g' {shlex.quote(path)}"
        )
    before, *parts = data.split(_BEGIN)
    is_text = _END not in before and before.endswith((b"\n", b"\r"))
    blocks, beside = [], [] if is_text else [before]
    for part in parts:  # each byte is in one part, so the time grows with the file alone
        label, dashes, rest = part.partition(_DASHES)
        end = b"-----END %b-----" % label
        body, found, after = rest.partition(end)
        if not (found and _LABEL.fullmatch(label) and body[:1].isspace()):
            raise UnusableKey(f"{path} is damaged: a line that begins with '-----BEGIN' has no '-----END'")
        blocks.append(Block(label, b"".join((_BEGIN, label, dashes, body, end)), body))
        beside.append(after)
    return blocks, any(map(bytes.strip, beside))


def _form_of_block(block: Block, path: str) -> Form:
    """The form of a block that has no key, or a key of the wrong kind."""
    form = _OF_LABEL.get(block.label)
    if form is None:
        raise UnusableKey(f"{path} is a PEM file with {block.label.decode()}, and no key")
    if _tags(_from_base64(block.body)) is None:
        raise damaged(path)
    return form


def _form_of_openssh(block: Block, path: str) -> Form:
    """A private key of OpenSSH (its PROTOCOL.key), which has the public key in the clear."""
    data = _from_base64(block.body)
    try:
        _, _, _, rest = _strings(data.removeprefix(_OPENSSH_MAGIC), 3)
        public, _, rest = _strings(rest[_NUMBER_BYTES:], 2)
    except ValueError:
        raise damaged(path) from None
    if rest or not data.startswith(_OPENSSH_MAGIC):
        raise damaged(path)
    if _SSH_RSA not in public:
        raise UnusableKey(f"{path} is not an RSA key")
    return _OPENSSH


def _form_of_ssh_line(data: bytes, path: str) -> Form | None:
    """A public key of OpenSSH: its kind, base64, and a comment."""
    kind, _, more = data.strip().partition(b" ")
    if not kind.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return None
    if kind != _SSH_RSA:
        raise UnusableKey(f"{path} is not an RSA key")
    try:
        *_, rest = _strings(_from_base64(more.partition(b" ")[0]), 3)
    except ValueError:
        raise damaged(path) from None
    if rest:
        raise damaged(path)
    return _OPENSSH_PUBLIC


def _strings(data: bytes, count: int) -> list[bytes]:
    """SSH's strings (RFC 4251 section 5), and the bytes after them. Raises `ValueError`."""
    found = []
    for _ in range(count):
        end = _NUMBER_BYTES + int.from_bytes(data[:_NUMBER_BYTES], "big")
        if len(data) < end:
            raise ValueError("a string that is cut off")
        found.append(data[_NUMBER_BYTES:end])
        data = data[end:]
    return [*found, data]


def _tags(data: bytes) -> tuple[int, ...] | None:
    """The tags in a SEQUENCE in DER; None if it is something else or cut off."""
    try:
        ((tag, content),) = der.elements(data)
        return tuple(tag for tag, _ in der.elements(content)) if tag == der.SEQUENCE else None
    except ValueError:
        return None


def _refuse(form: Form, path: str, *, private: bool) -> NoReturn:
    """Raise `UnusableKey`, which names the form and the command that converts it."""
    if form.private is not private:
        raise UnusableKey(
            f"{path} is {form.what}; the {'private' if private else 'public'} key is needed here"
        )
    command = form.command.format(shlex.quote(path), shlex.quote(f"{path}.pem"))
    raise UnusableKey(f"{path} is {form.what}; convert it with: {command}")


def _from_base64(text: bytes) -> bytes:
    """The bytes; none if it is not base64, which is damage like any other here."""
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError:
        return b""
