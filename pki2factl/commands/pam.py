"""`pki2factl pam`: tells pam_exec whether a login has a good code.

It runs as root, with a code and names from the network. So it ignores its environment except the PAM_*
variables of pam_exec, has a deadline, and gives its reasons to the log of logins alone. It runs for each
login, so it imports little: argparse only for help and for wrong arguments.
"""

import contextlib
import os
import signal
import sys

from pki2factl import ui
from pki2factl.login import typed
from pki2fad.client import Client
from pki2fad.errors import BadRequest, NobodyListens, NoSuchAccount, Pki2fadError, Refusal, TimedOut
from pki2fad.host import paths, trust
from pki2fad.host.logline import line
from pki2fad.wire import forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterator
    from typing import Any

HELP = "check the code of a login; run by pam_exec with expose_authtok"

_TIMEOUT = 5.0  # seconds; people give up a login that takes longer
_MOST_PATIENT = 60.0
_LOG_TIMEOUT = 1.0  # seconds for the log, after which this ends in any case
_LINE_LIMIT = 1000  # characters; more is lost in many logs
_INPUT_LIMIT = 4096  # bytes; pam_exec gives at most 512 (PAM_MAX_RESP_SIZE)


class Options:
    """The arguments on the line of the PAM stack, and their defaults."""

    def __init__(self, given: "dict[str, Any]") -> None:
        self.socket: str | None = given.get("socket")
        self.account: str | None = given.get("account")
        self.map: str | None = given.get("map")
        self.suffix: int = given.get("suffix", 0)
        self.timeout: float = given.get("timeout", _TIMEOUT)
        self.fail_open: bool = given.get("fail_open", False)


def digits(text: str) -> int:
    """The value of --suffix. Raises `ValueError`."""
    if text not in map(str, forms.CODE_DIGITS):
        raise ValueError
    return int(text)


def seconds(text: str) -> float:
    """The value of --timeout. Raises `ValueError`."""
    number = float(text)
    if not 0 < number <= _MOST_PATIENT:
        raise ValueError
    return number


# Option -> the function that turns its text into its value, or raises ValueError.
_VALUES: "dict[str, Callable[[str], Any]]" = {
    "--account": str,
    "--map": str,
    "--suffix": digits,
    "--timeout": seconds,
}


def add_arguments(parser: "ArgumentParser") -> None:
    """Take the account, the form of the input, and what happens without a daemon."""
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--account", metavar="NAME", help="the account (default: the user's name)")
    whose.add_argument(
        "--map", metavar="FILE", help="a file with the account of each user: lines USER ACCOUNT"
    )
    parser.add_argument(
        "--suffix",
        type=digits,
        default=0,
        metavar="DIGITS",
        help="the user types their password, and then a code of 6, 7 or 8 digits",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=_TIMEOUT,
        metavar="SECONDS",
        help="refuse after this time (default: 5)",
    )
    parser.add_argument(
        "--fail-open", action="store_true", help="let everybody in while no daemon listens on the socket"
    )


def quick_options(arguments: "list[str]", socket: "str | None" = None) -> Options | None:
    """Parse the arguments after `pam` as argparse would, without importing it.

    None if argparse has to print something: help, or an error.
    """
    given: dict[str, Any] = {"socket": socket}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument == "--fail-open":
            given["fail_open"] = True
            continue
        if name not in _VALUES:
            return None
        value = value if equals else next(rest, "-")
        if value.startswith("-"):
            return None
        try:
            given[name[2:]] = _VALUES[name](value)
        except ValueError:
            return None
    return None if "account" in given and "map" in given else Options(given)


def run(options: "Any") -> int:
    """Decide, by the exit status. The reason goes to the log of logins, not to the user."""
    if not sys.stderr.isatty():  # pam_exec's `stdout` would show it to the user
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for good
    if not sys.flags.isolated:  # the environment may have changed the interpreter already
        _log("refused", f"not isolated: start it as {sys.executable} -I -m pki2factl pam")
        return ui.USAGE
    try:
        with _deadline(options.timeout):
            return _decide(options)
    except (Pki2fadError, OSError) as error:
        code = f"{error.code}: " if isinstance(error, Refusal) else ""
        _log("refused", f"{code}{error}")
        return ui.exit_code(error)
    except Exception as error:  # a bug: its text may hold anything, so it is not shown
        _log("refused", f"internal error ({type(error).__name__}); please report it")
        return ui.FAILED


@contextlib.contextmanager
def _deadline(seconds: float) -> "Iterator[None]":
    """End whatever takes longer, in the system or here, with `TimedOut`."""

    def expire(*_: object) -> None:
        raise TimedOut(f"there was no answer within {seconds:g} s")

    signal.signal(signal.SIGALRM, expire)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # our parent may have blocked it
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _decide(options: "Any") -> int:
    if _item("TYPE") != "auth":
        raise BadRequest("this is only for 'auth' lines of pam_exec")
    user = _item("USER")
    if not user:
        raise BadRequest("PAM_USER is empty; pam_exec sets it")
    password, code = _split(_typed(), options.suffix)
    account = _account(user, options)
    origin = _item("RHOST") or None  # a login at the console has none
    if origin is not None and len(origin) > forms.ORIGIN_LIMIT:
        raise BadRequest("PAM_RHOST is too long for an address")
    if options.suffix:
        from pki2factl.login import password as passwords

        if not passwords.is_right(user, password):
            _log("refused", "the password is wrong")
            return ui.NOT_VALID
    try:
        valid = _verify(code, account, origin, options)
    except NobodyListens as error:
        if not options.fail_open:
            raise
        _log("let_in_without_a_code", str(error))
        return ui.DONE
    if not valid:
        _log("refused", "the code is not valid", account=account)
    return ui.DONE if valid else ui.NOT_VALID


def _verify(code: str, account: str, origin: str | None, options: "Any") -> bool:
    """Ask the first daemon that listens. Raises `NobodyListens` only if none does on any socket."""
    missing = []
    for path in [options.socket] if options.socket else paths.system_sockets():
        try:
            servers = trust.owners(path)
            with Client(path, options.timeout, servers=servers) as client:
                return client.verify(code, account, origin=origin)
        except FileNotFoundError:
            missing.append(f"there is no {path}")
        except NobodyListens:
            missing.append(f"nothing listens on {path}")
    raise NobodyListens(f"no daemon answers; {', and '.join(missing)}")


def _item(name: str) -> str:
    return os.environ.get(f"PAM_{name}", "")


def _typed() -> bytes:
    """The input that pam_exec passes on; some versions end it with a NUL."""
    typed = bytearray()
    while len(typed) <= _INPUT_LIMIT and (more := os.read(0, _INPUT_LIMIT)):
        typed += more
    if len(typed) > _INPUT_LIMIT:
        raise BadRequest("the input is too long")
    return bytes(typed).removesuffix(b"\0").removesuffix(b"\n")


def _split(given: bytes, suffix: int) -> "tuple[bytes, str]":
    """The password (empty without --suffix) and the code."""
    if suffix:
        password, code = typed.behind_password(given, suffix)
    else:
        password, code = b"", typed.code(given.decode("utf-8", "replace"))
    is_good = forms.is_code(code) and len(code) == (suffix or len(code))
    if not is_good and not forms.is_recovery_code(code):
        raise BadRequest("the input is not a code" if not suffix else "the input does not end with a code")
    return password, code


def _account(user: str, options: "Any") -> str:
    from pki2factl.login import accountmap

    if options.map is not None:
        try:
            return accountmap.read(options.map)[user]
        except KeyError:
            raise NoSuchAccount(f"{options.map} has no line for this user") from None
    account: str = options.account if options.account is not None else user
    if not forms.is_name(account):
        raise BadRequest("this is not a valid account name")
    return account


def _log(event: str, reason: str, **fields: object) -> None:
    """Write one line to the log of logins. If that takes too long, the process ends, which is a refusal."""
    import syslog

    # What others choose freely comes last: a long one hides nothing else.
    told = {
        "rhost": _item("RHOST"),
        "service": _item("SERVICE"),
        "reason": reason,
        "user": _item("USER"),
        **fields,
    }
    text = line(event, {name: value for name, value in told.items() if value})
    text = text[:_LINE_LIMIT]
    if sys.stderr.isatty():
        ui.error(text)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _LOG_TIMEOUT)
    syslog.openlog("pki2factl", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE if event == "refused" else syslog.LOG_WARNING, text)
