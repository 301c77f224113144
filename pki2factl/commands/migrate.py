"""`pki2factl migrate`: take over from the service that kept the seed in plain text on the disk.

Everything is checked before anything changes, and nothing is destroyed before the daemon makes the
codes of the very seed. Whatever fails in between: running it again does the rest, and nothing twice.
"""

import argparse
import contextlib
import itertools
import operator
import os
import re
import shlex

from pki2fad import paths
from pki2fad.client import Client
from pki2fad.errors import AccountExists, BadRequest, NoSuchAccount, UnusablePath

from .. import ui

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

HELP = "take over the seed and the log of the old service, and destroy its files"

_CAVEAT = (
    "copies may be left in backups, snapshots and file-system journals, on flash storage, and in the images,"
    " layers and volumes of the old containers"
)

# Read whole, so there is a limit: a line a minute makes 22 MB a year.
_LOG_LIMIT = 256 * 1024 * 1024

_CODE_LINE = re.compile(rb"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - 2FA Code: \d{6}$", re.MULTILINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the old service left, and where it goes."""
    parser.epilog = (
        "Stop the old service first. --shred overwrites the files named here with random bytes, which hard"
        f" links to them show too, and removes them. It reaches no copies: {_CAVEAT}."
    )
    parser.add_argument("--seed-file", required=True, metavar="FILE", help="its seed, as hex digits")
    parser.add_argument("--log", metavar="FILE", help="its log of codes, to be continued by the minute log")
    parser.add_argument("--account", default="default", metavar="NAME")
    parser.add_argument(
        "--public-key", metavar="FILE", help="the host's; default: host.pub.pem in the config directory"
    )
    parser.add_argument(
        "--log-to", metavar="FILE", help="the account's minute log; default: codes.log in the log directory"
    )
    parser.add_argument("--shred", action="store_true", help="destroy the old files when all is done")


def run(options: argparse.Namespace) -> int:
    """Check, continue the log, load, compare, destroy."""
    from pki2fad import envelope, files, memory

    if options.log_to and not options.log:
        raise BadRequest("--log-to says where the log of --log is continued, and there is no --log")
    key = options.public_key or os.path.join(paths.config_dir(), paths.PUBLIC_KEY)
    public = envelope.load_public(files.read(key), key)
    seed = _read_seed(options.seed_file)
    log = None
    if options.log:
        log = options.log_to or os.path.join(paths.log_dir(paths.state_dir()), paths.CODES_LOG)
        old_lines = _read_old_log(options.log, log)
    with Client(options.socket) as client:
        with contextlib.suppress(NoSuchAccount):
            _require_codes_of(seed, client, options)
        if log:
            _continue(old_lines, log, client)
        changed = client.load(envelope.seal_seed(public, seed), options.account)
        _require_codes_of(seed, client, options)
    memory.wipe(seed)
    old_files = [path for path in (options.seed_file, options.log) if path]
    destroyed = _destroyed(old_files) if options.shred else []
    _report(options, log, old_files, destroyed, changed=changed)
    return ui.FAILED if options.shred and destroyed != old_files else ui.DONE


def _read_seed(path: str) -> bytearray:
    """The seed; an editor or `echo` may have left white space around it."""
    from pki2fad import envelope, files

    # No link is followed to either old file: what is named has to be what can be destroyed.
    text, _ = files.read_with_status(path, follow_links=False)
    try:
        return envelope.seed_from_hex(text.strip())
    except ValueError as error:
        raise BadRequest(f"{path}: {error}") from None


def _read_old_log(path: str, minute_log: str) -> bytes:
    """The old service's lines, whatever is in them; both logs are found to be usable before."""
    with _opened(path) as old, _opened_if_there(minute_log) as current:
        if current and os.path.samestat(os.fstat(old.fileno()), os.fstat(current.fileno())):
            raise BadRequest(
                f"{path} is the minute log itself: there is nothing to continue, leave --log away"
            )
        lines = old.read()
    if not _CODE_LINE.search(lines):
        raise BadRequest(
            f"{path} has no line like '2026-01-31 12:34:00 - 2FA Code: ...': it is not the old service's log"
        )
    return lines if lines.endswith(b"\n") else lines + b"\n"


@contextlib.contextmanager
def _opened(path: str, mode: str = "rb", owner: int | None = None) -> "Iterator[IO[bytes]]":
    """A log, to read or ("ab") to append to.

    The directory of the minute log is the daemon's, and we may be root: a link that was put there must
    not have us read a file for the daemon that it may not read itself, or write to one.
    """
    from pki2fad import files

    try:
        flags = os.O_RDONLY if mode == "rb" else os.O_WRONLY | os.O_APPEND
        descriptor = files.open_sole(path, flags, owner)
    except OSError as error:
        raise UnusablePath(f"cannot open {path}: {files.reason(error, path)}") from None
    with open(descriptor, mode) as file:
        if os.fstat(descriptor).st_size > _LOG_LIMIT:
            raise UnusablePath(f"{path} is larger than {_LOG_LIMIT >> 20} megabytes; continue a part of it")
        yield file


def _opened_if_there(path: str) -> "contextlib.AbstractContextManager[IO[bytes] | None]":
    return _opened(path) if os.path.lexists(path) else contextlib.nullcontext()


def _require_codes_of(seed: bytearray, client: Client, options: argparse.Namespace) -> None:
    """Raise `AccountExists` unless the daemon makes the code of this seed, `NoSuchAccount` without one."""
    from pki2fad import otp

    made = client.generate(options.account)
    if not otp.equal(made.code, otp.make_code(seed, otp.Parameters(), made.step)):
        raise AccountExists(
            f"{options.account} makes other codes than the seed in {options.seed_file}; nothing was"
            " destroyed; give another --account, or let go of the seed that is there with:"
            f" pki2factl remove {options.account}"
        )


def _continue(old_lines: bytes, path: str, client: Client) -> None:
    """Put the old lines before those of the minute log, in one step.

    This comes before the load: when the account appears the daemon writes a line at once, unless the
    file has a code for this minute, which may be in the old lines.
    """
    from pki2fad import files

    with _opened_if_there(path) as current:
        if current is None:
            directory = _status(os.path.dirname(os.path.abspath(path)))
            files.create(path, old_lines, files.PRIVATE, directory)
            return
        lines = current.read()
        joined = _joined(old_lines, lines)
        if joined == lines:
            return
        status = os.fstat(current.fileno())
        files.replace(path, joined, files.PRIVATE, status)
        # The daemon may have been writing to the file that is gone now. It does one thing after the
        # other: once it answers, such a line is whole, and the next goes to the new file.
        client.status()
        late = current.read()
    if late:
        with _opened(path, "ab", status.st_uid) as file:
            file.write(late)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UnusablePath(f"there is no directory {path} for the minute log: {error.strerror}") from None


def _joined(old_lines: bytes, lines: bytes) -> bytes:
    """The old lines, then the others; those that both begin with, since this ran before, once."""
    old, new = old_lines.splitlines(keepends=True), lines.splitlines(keepends=True)
    common = sum(itertools.takewhile(bool, map(operator.eq, old, new)))
    return b"".join(old + new[common:])


def _destroyed(old_files: list[str]) -> list[str]:
    """Destroy what can be destroyed; returns that, and says what could not."""
    from pki2fad import files

    destroyed = []
    for path in old_files:
        try:
            files.shred(path)
        except UnusablePath as error:
            ui.error(str(error))
        else:
            destroyed.append(path)
    return destroyed


def _report(
    options: argparse.Namespace,
    log: str | None,
    old_files: list[str],
    destroyed: list[str],
    *,
    changed: bool,
) -> None:
    left = [path for path in old_files if path not in destroyed]
    text = [f"loaded {options.account}" if changed else f"{options.account} has this seed already"]
    text += [f"continued {log}"] if log else []
    text += [f"destroyed {path}" for path in destroyed]
    text += [f"now to be destroyed: {path}" for path in left]
    data = {
        "account": options.account,
        "changed": changed,
        "log": log,
        "plaintext": left,
        "destroyed": destroyed,
    }
    ui.result("\n".join(text), data, as_json=options.json)
    ui.hint(
        "stop the old service if it still runs: it accepts codes that are spent here, and writes its own log"
    )
    if left:
        ui.hint(f"destroy what is left by running this again with --shred, or: shred -u {shlex.join(left)}")
    ui.hint(_CAVEAT)
