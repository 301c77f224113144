"""DER (X.690), as far as key files need it."""

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
SEQUENCE = 0x30

_MOST = 16  # elements side by side: no key has more than ten

_LONG = 0x80  # a bit of a length's first byte: the other bits count the bytes of the length


def element(tag: int, *contents: bytes) -> bytes:
    """One element around these contents."""
    content = b"".join(contents)
    size = len(content)
    if size < _LONG:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG | len(length))) + length + content


def integer(value: int) -> bytes:
    """An INTEGER, not below zero."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """The tag and the content of each element. Raises `ValueError` if one is cut off, or too many follow."""
    found: list[tuple[int, bytes]] = []
    while data:
        if len(found) == _MOST:
            raise ValueError("more elements than a key has")
        head, size = 2, data[1] if len(data) > 1 else len(data)
        if size & _LONG:
            head += size & ~_LONG
            size = int.from_bytes(data[2:head], "big")
        if len(data) < head + size:
            raise ValueError("DER that is cut off")
        found.append((data[0], data[head : head + size]))
        data = data[head + size :]
    return found


def contents(data: bytes) -> list[bytes]:
    """The contents of the elements, without the tags. Raises `ValueError`."""
    return [content for _, content in elements(data)]
