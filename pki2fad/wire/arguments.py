"""Reads arguments from clients of every generation of MessagePack: text, numbers and names.

Older clients have one type for text and bytes. Some languages have one type for all numbers, and one for maps
and arrays.
"""

from pki2fad.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# A method has at most thirteen. More are not built: building all that a message of 64 KiB can announce takes
# far longer than finding its end.
MOST = 16

_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})

_FORM = f"the parameters are one map of at most {MOST} arguments, which are scalars"

# Arguments that name an account, one of its authenticators or a caller, or prove one. A program that has no
# value for them does not mean `default`, nor all authenticators.
_NEVER_NIL = frozenset({"account", "accounts", "label", "origin", "code"})

_EXACT = 2**53  # a float has every whole number below it


def text(value: "Any") -> "Any":
    """A string of either type as text; anything else as it is."""
    return value.decode("utf-8", "surrogateescape") if type(value) is bytes else value


def msgid(value: "Any") -> int | None:
    """The msgid of a request, also if it came as a float; None if it is not one."""
    if type(value) is int:
        return value if 0 <= value < 2**32 else None
    if type(value) is not float or not 0 <= value < 2**32 or value % 1:
        return None
    return int(value)


def named(params: "Any") -> "dict[str, Any]":
    """The arguments by name, from parameters in which a map is a tuple of pairs. Raises `BadRequest`."""
    if type(params) is not list or len(params) > 1:
        raise BadRequest(_FORM)
    pairs = params[0] if params else ()
    if type(pairs) is not tuple:
        if pairs is None or pairs == []:  # an empty array is an empty map too, in Lua and PHP
            return {}
        raise BadRequest(_FORM)
    if len(pairs) > MOST:
        raise BadRequest(_FORM)
    found = {}
    for key, value in pairs:
        name = key if type(key) is str else _name(key)
        if name in found:
            raise BadRequest(f"the argument {name[:64]!a} is given twice")
        if type(value) not in _SCALARS:
            raise BadRequest(f"the argument {name[:64]!a} is not a scalar")
        found[name] = value
    return found


def _name(key: "Any") -> str:
    name = text(key)
    if type(name) is not str:
        raise BadRequest("the name of an argument must be a string")
    return name


def typed(given: "dict[str, Any]", kinds: "Mapping[str, type]", required: frozenset[str]) -> "dict[str, Any]":
    """The arguments in the types of the method, without those that are nil. Raises `BadRequest`."""
    args = {}
    for name, value in given.items():
        kind = kinds.get(name)
        if kind is None:
            raise BadRequest(f"this method has no argument {name[:64]!a}")
        if type(value) is kind:
            args[name] = value
        elif value is not None or name in _NEVER_NIL:
            args[name] = _as(kind, value)
            if type(args[name]) is not kind:
                raise BadRequest(f"the argument {name!r} is not of type {kind.__name__}")
    if not required <= args.keys():
        raise BadRequest(f"the argument {min(required - args.keys())!r} is missing")
    return args


def _as(kind: type, value: "Any") -> "Any":
    """The value in that type, if another generation sends it in another."""
    if kind is str:
        return text(value)
    if kind is bytes and type(value) is str:
        return value.encode("utf-8", "surrogateescape")  # the bytes as they came
    if kind is int and type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
