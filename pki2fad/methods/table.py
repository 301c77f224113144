"""The methods of the protocol as data: who may call each, and with which arguments."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pki2fad.errors import BadRequest, Throttled
from pki2fad.rules.access import ADMIN, ENROLL, GENERATE, MONITOR, REGISTRAR, VERIFY
from pki2fad.transfer import batch
from pki2fad.wire import arguments, forms
from pki2fad.wire.messages import Request

Arguments = dict[str, Any]  # of a request, by name

_NONE: Mapping[str, type] = MappingProxyType({})

# The outcomes of requests that were carried out. Others have the code of their refusal.
OK = "ok"
INVALID = "invalid"  # a code that was not good


class Method(NamedTuple):
    """One method. All arguments are optional, unless they are `required`."""

    name: str
    role: str | None  # None: everybody who reaches the socket
    arguments: Mapping[str, type] = _NONE
    required: frozenset[str] = frozenset()
    everywhere: bool = False  # the role for single accounts is not enough
    locked_too: bool = False  # also while the keys are locked
    or_admin: bool = False  # the role admin for all accounts is enough too
    or_its_admin: bool = False  # the role admin for its account is enough too
    own: bool = False  # without an account it is for that of the caller's own user name, by the role enroll
    own_by_code: bool = False  # with a code it is so too
    steady: bool = False  # the same for a whole second, unless accounts, keys or rights change
    about_all: bool = False  # without an account it is about all of them
    look: bool = False  # only looks at the daemon: not logged, since monitors ask all the time, and no use
    verdict: bool = False  # says whether a code was good
    long: bool = False  # its answer is large
    counted: tuple[str, ...] = ()  # from 0 on, so that a monitor sees the first one as a rise


_METHODS = (
    Method("generate", GENERATE, {"account": str, "label": str}, steady=True),
    Method(
        "verify",
        VERIFY,
        {"account": str, "code": str, "origin": str, "explain": bool},
        frozenset({"code"}),
        verdict=True,
        counted=(OK, INVALID, Throttled.code),
    ),
    # A sealed seed does not say which account it is for. With the role for one account alone, a caller could
    # load another account's sealed seed, which is no secret, under that one name and get its codes.
    Method(
        "load",
        ADMIN,
        {
            "account": str,
            "sealed": bytes,
            "algorithm": str,
            "digits": int,
            "period": int,
            "replace": bool,
            "successor": bool,
            "deadline": int,
            "cutover": bool,
            "label": str,
            "kind": str,
            "counter": int,
            "short": bool,
        },
        frozenset({"sealed"}),
        everywhere=True,
    ),
    Method("load_batch", ADMIN, {"batch": bytes, "replace": bool}, frozenset({"batch"}), everywhere=True),
    Method("remove", ADMIN, {"account": str, "label": str, "code": str}, own_by_code=True),
    Method("accounts", ADMIN, {"match": str, "after": str, "limit": int}),
    Method(
        "resync",
        ADMIN,
        {"account": str, "first": str, "second": str, "label": str},
        frozenset({"first", "second"}),
    ),
    Method(
        "throttled",
        ADMIN,
        {"account": str, "uid": int, "origin": str},
        everywhere=True,
        about_all=True,
    ),
    Method("unthrottle", ADMIN, {"account": str, "force": bool}, everywhere=True),
    Method("clock_accept", ADMIN, everywhere=True),
    Method("rotate", ADMIN, {"private": bytes}, frozenset({"private"}), everywhere=True),
    Method("rotate_finish", ADMIN, {"fingerprint": str}, frozenset({"fingerprint"}), everywhere=True),
    Method("recipients", ADMIN, everywhere=True),
    Method("backup", ADMIN, {"to": bytes}, frozenset({"to"}), everywhere=True, long=True),
    Method(
        "restore",
        ADMIN,
        {"upload": str, "offset": int, "part": bytes, "last": bool, "replace": bool},
        frozenset({"upload", "offset", "part"}),
        everywhere=True,
    ),
    Method("lock", ADMIN, everywhere=True, locked_too=True),
    Method("unlock", ADMIN, {"passphrase": str}, everywhere=True, locked_too=True),
    Method(
        "enroll",
        REGISTRAR,
        {
            "account": str,
            "label": str,
            "code": str,
            "kind": str,
            "algorithm": str,
            "digits": int,
            "period": int,
        },
        or_admin=True,
        own=True,
    ),
    Method(
        "enroll_confirm",
        REGISTRAR,
        {"account": str, "label": str, "code": str},
        frozenset({"code"}),
        or_admin=True,
        own=True,
        verdict=True,
    ),
    Method("exists", REGISTRAR, {"account": str}, frozenset({"account"}), or_its_admin=True),
    Method("recovery_create", ENROLL, {"account": str, "code": str}, or_admin=True),
    Method("status", None, locked_too=True, look=True),
    Method("metrics", MONITOR, everywhere=True, locked_too=True, look=True),
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _METHODS})

# Stands for every method that does not exist, in counts and in the log.
UNKNOWN = Method("unknown", None)


def is_administrative(name: str) -> bool:
    """True for a method that makes changes: its refusals and failures go to the audit too."""
    method = METHODS.get(name)
    return method is not None and (method.role in (ADMIN, ENROLL) or method.own)


def is_for_own(method: Method, args: Arguments) -> bool:
    """True for a request about the account of the caller's own user name."""
    return (method.own and "account" not in args) or (method.own_by_code and "code" in args)


def checked(method: Method, request: Request) -> Arguments:
    """The arguments, with the default account unless a batch names one. Raises `BadRequest`."""
    if request.args is None:
        raise BadRequest(request.fault)
    args = arguments.typed(request.args, method.arguments, method.required)
    if "label" in args and not forms.is_label(args["label"]):
        raise BadRequest(forms.LABEL_RULE)
    if "account" not in method.arguments or (method.about_all and "account" not in args):
        return args
    if "account" not in args and is_for_own(method, args):
        return args
    if "account" not in args and "sealed" in args and batch.is_batch(args["sealed"]):
        return args
    account = args.setdefault("account", forms.DEFAULT_ACCOUNT)
    if not forms.is_name(account):
        raise BadRequest(forms.NAME_RULE)
    return args
