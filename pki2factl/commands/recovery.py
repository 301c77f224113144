"""`pki2factl recovery create`: makes an account's recovery codes."""

import argparse
import os
import pwd
import sys

from pki2factl import ui
from pki2factl.login import readiness, typed
from pki2fad.client import Client

HELP = "make ten recovery codes for an account, in the place of its old ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the action, the account, and where the codes go."""
    parser.add_argument("action", choices=["create"], metavar="create", help="make new codes")
    parser.add_argument("account", metavar="ACCOUNT", help="its name; your own needs a code of it")
    parser.add_argument("--out", metavar="FILE", help="write the codes there instead of showing them")
    parser.add_argument("--stdin", action="store_true", help="read a code of the account from standard input")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    from pki2fad.crypto import memory
    from pki2fad.host import files

    if not options.out and (options.json or not sys.stdout.isatty()):
        options.usage_error("recovery codes are shown on a terminal only; write them with --out FILE")
    memory.forbid_dumps()
    files.require_absent(options.out)
    code = _read(options)
    if options.out:  # where nothing can be written, the old codes stay
        files.create(options.out, b"", files.PRIVATE)
    try:
        with Client(options.socket) as client:
            codes = client.recovery_create(options.account, code=code)
    except BaseException:
        if options.out:
            os.unlink(options.out)
        raise
    text = "\n".join(codes)
    if options.out:
        files.replace(options.out, text.encode() + b"\n", files.PRIVATE)
        data = {"account": options.account, "codes": len(codes)}
        ui.result(f"wrote {len(codes)} recovery codes to {options.out}", data, as_json=options.json)
    else:
        ui.secret(text, "the recovery codes are not shown", as_json=False)
        ui.flush()
        ui.hint("each is good once, in place of a code; earlier recovery codes are not good any more")
    return ui.DONE


def _read(options: argparse.Namespace) -> str | None:
    """A code of the account, None where none is needed: from administrators."""
    if options.stdin:
        return typed.code(ui.read_stdin().decode("utf-8", "replace"))
    if not sys.stdin.isatty() or not _is_own(options.account):
        return None
    readiness.require_somebody(options.socket)  # before a code is typed that nobody could check
    given = ui.ask(f"Code of {options.account}: ")
    return typed.code(given) if given else None


def _is_own(account: str) -> bool:
    """True for the account of an ordinary user who runs this."""
    try:
        return os.geteuid() != 0 and pwd.getpwuid(os.geteuid()).pw_name == account
    except KeyError:
        return False
