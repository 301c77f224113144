"""The next step after a failure: where the daemon is, who may ask it, and what was probably meant.

It is imported only after a failure.
"""

import argparse
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable

from pki2factl import ui
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    BadSeal,
    Busy,
    Forbidden,
    NoSuchAccount,
    NotReachable,
    Pki2fadError,
    TimedOut,
)
from pki2fad.host import paths, trust
from pki2fad.wire import forms


def after(error: Exception, options: argparse.Namespace) -> str | None:
    """What to do next, None if the error says all."""
    if isinstance(error, Pki2fadError) and error.retry_after is not None:
        return None if "try again at" in str(error) else f"try again in {ui.span(error.retry_after)}"
    about = next((about for kind, about in _HINTS if isinstance(error, kind)), None)
    return about(str(error), options) if about else None


def _about_replace(_message: str, options: argparse.Namespace) -> str | None:
    if "uri_out" in options and "label" in options:
        if options.label is not None:
            return "give another --label, or remove that authenticator first"
        whose = f" --account {options.account}" if options.account else ""
        return f"to add an authenticator to it: pki2factl enroll{whose} --label LABEL"
    if "replace" not in options:
        return None
    if getattr(options, "successor", False):
        return "--replace replaces the successor that is there"
    text = "with --replace the codes of the old seed stop working"
    if "successor" in options:
        text += "; with --successor they work until the first code of the new seed is accepted"
        text += "; with another --label the new seed is added beside it"
    return text


def _about_role(message: str, _options: argparse.Namespace) -> str | None:
    """How to get the role that a refusal names."""
    role = re.search(r"the role '(\w+)'", message)
    if role is not None:
        uid = os.geteuid()
        name = _user(uid)
        who = name if name == str(uid) else f'"{name}"'
        some = ', accounts = ["..."]' if role[1] == "registrar" else ""
        entry = f'[[access]] role = "{role[1]}", who = [{who}]{some}'
        return f"an administrator can grant it in pki2fad.toml: {entry}"
    if "this needs a code of an authenticator" in message:
        return "type it on a terminal, or give it with --stdin"
    if "only verify" in message:
        return f"ask on another socket, for example with --socket {paths.SYSTEM_SOCKET}"
    return None


def _about_sealed(message: str, options: argparse.Namespace) -> str | None:
    """How to load a sealed seed as it is, or a backup that is for another host."""
    sealed_for = re.search(r"the sealed seed is for ((\w+) \S+), not ", message)
    if sealed_for is not None and "cutover" in options:
        return f"to load it for {sealed_for[1]}, leave out --{sealed_for[2]}"
    if "this backup can be opened with the keys" in message and getattr(options, "key", "") is None:
        return "open it with the private half of one of them: --key PRIVATE.pem"
    return None


def _name_for_a_code(message: str, options: argparse.Namespace) -> str | None:
    """The right form of `pki2factl verify ann`."""
    for word in getattr(options, "code", None) or ():
        if word[:1].isalpha() and forms.is_name(word) and not _may_be_mistyped(word):
            return f"to check a code of the account {word}: pki2factl verify --account {word}"
    return _about_sealed(message, options)


def _may_be_mistyped(word: str) -> bool:
    """True for what may be a recovery code with a mistake in it: it must not get into a log as a name."""
    return any(map(str.isdigit, word)) and abs(len(word) - 2 * forms.RECOVERY_HALF) <= 2


def _code_for_a_name(_message: str, options: argparse.Namespace) -> str | None:
    """The right form of `pki2factl generate 123456`."""
    if not forms.is_code(getattr(options, "account", None)):
        return None
    return "the name looks like a code; to check one: pki2factl verify CODE --account NAME"


def _about_socket(_message: str, options: argparse.Namespace) -> str:
    """How to reach the daemon at the socket that was named, or at one of the usual ones."""
    usual = paths.usual_sockets()
    for named, source in (
        (options.socket, "--socket"),
        (os.environ.get("PKI2FAD_SOCKET"), "$PKI2FAD_SOCKET"),
    ):
        if named:
            known = os.path.dirname(named) in map(os.path.dirname, usual)
            return _in_the_way(named) or (_how_to_start() if known else _start_there(named, source))
    return next(filter(None, map(_in_the_way, usual)), None) or _how_to_start()


def _in_the_way(path: str) -> str | None:
    """Why the caller cannot connect to this path; None if it can, or if there is nothing."""
    try:
        status = os.stat(path)
    except PermissionError:
        return f"only root and the owner of its directory can reach {path}"
    except OSError:
        return None
    if not stat.S_ISSOCK(status.st_mode):
        return f"{path} is not a socket; name the daemon's with --socket"
    if os.access(path, os.W_OK, effective_ids=True):
        return None
    names = [*dict.fromkeys(("root", _user(status.st_uid)))]
    if trust.group_may_write(status):
        names.append(f"the group {_group(status.st_gid)}")
    return f"only {' and '.join(names)} can connect to {path}"


def _start_there(path: str, source: str) -> str:
    state = "nobody listens on" if os.path.lexists(path) else "there is no"
    start = f"{ui.beside_us('pki2fad')} --socket {path}"
    return f"{state} {path}; correct {source}, or start a daemon there with '{start}'"


def _how_to_start() -> str:
    if not ui.has_key():
        return (
            f"pki2fad has no key here yet: run '{ui.beside_us('pki2factl')} init', or name another"
            " socket with --socket"
        )
    return f"start it with '{ui.start_command()}', or name its socket with --socket"


def _user(uid: int) -> str:
    """The name of a user, or the uid if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    """The name of a group, or the gid if there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


# What is known after each kind of error. The first that fits counts.
_HINTS: "tuple[tuple[type[Exception], Callable[[str, argparse.Namespace], str | None]], ...]" = (
    (AccountExists, _about_replace),
    (Forbidden, _about_role),
    (BadRequest, _name_for_a_code),
    (BadSeal, _about_sealed),
    (NoSuchAccount, _code_for_a_name),
    (Busy, lambda *_: "it is busy; try again in a moment"),
    (NotReachable, _about_socket),
    (TimedOut, lambda *_: "it is busy or did not start; see systemctl status pki2fad, journalctl -u pki2fad"),
)
