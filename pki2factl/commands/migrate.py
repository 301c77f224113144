"""`pki2factl migrate`: takes over from the service that kept the seed in plain text on the disk.

Everything that needs no daemon is checked first. The log may be continued before a load is refused.
Nothing is destroyed before the daemon makes the codes of the same seed; then the log goes first and the
seed's file last. If it fails halfway, running it again does the rest, and nothing twice.
"""

import argparse
import contextlib
import os
import shlex

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.errors import AccountExists, BadRequest, NoSuchAccount, UnusablePath
from pki2fad.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = "take over the seed and the log of the old service; --shred destroys its files"

_CAVEAT = (
    "copies may be left in backups, snapshots and file-system journals, on flash storage, and in the images,"
    " layers and volumes of the old containers"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the files of the old service, and where they go."""
    parser.epilog = (
        "Stop the old service first. --shred overwrites the files named here with random bytes and removes"
        " them, unless they have changed since they were read; the seed's file goes last, and while it is"
        f" there this can be run again. It reaches no copies: {_CAVEAT}."
    )
    parser.add_argument("--seed-file", required=True, metavar="FILE", help="its seed, as hex digits")
    parser.add_argument("--log", metavar="FILE", help="its log of codes, which the minute log continues")
    parser.add_argument("--account", default="default", metavar="NAME")
    parser.add_argument(
        "--public-key",
        metavar="FILE",
        help="the host's public key (default: host.pub.pem in the config directory)",
    )
    parser.add_argument(
        "--log-to",
        metavar="FILE",
        help="the account's minute log (default: codes.log in the log directory, where the account default"
        " has it unless [minute_log] says otherwise)",
    )
    parser.add_argument("--shred", action="store_true", help="destroy the old files at the end")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Check, continue the log, load, compare, destroy."""
    if options.log_to and not options.log:
        options.usage_error("--log-to needs --log")
    if options.log and not options.log_to and options.account != "default":
        options.usage_error(f"name the minute log of {options.account} with --log-to")

    from pki2factl.takeover import oldlog
    from pki2fad.crypto import memory, rsakeys, sealing
    from pki2fad.host import files

    memory.forbid_dumps()
    key = options.public_key or os.path.join(paths.config_dir(), paths.PUBLIC_KEY)
    public = rsakeys.load_public(files.read(key), key)
    seed, seed_status = _read_seed(options.seed_file)
    old_files = [(options.seed_file, seed_status)]
    minute_log = None
    if options.log:
        minute_log = options.log_to or os.path.join(paths.log_dir(paths.state_dir()), paths.CODES_LOG)
        old_lines, log_status = oldlog.read(options.log, minute_log, seed_status)
        # Destroyed first: as long as the seed's file exists, all this can be run again.
        old_files.insert(0, (options.log, log_status))
    with Client(options.socket) as client:
        with contextlib.suppress(NoSuchAccount):
            _require_codes_of(seed, client, options)
        if minute_log:
            oldlog.put_before(old_lines, minute_log, client)
        changed = client.load(sealing.seal_seed(public, seed), options.account)
        _require_codes_of(seed, client, options)
    memory.wipe(seed)
    destroyed, failure = _destroyed(old_files) if options.shred else ([], {})
    left = [path for path, _ in old_files if path not in destroyed]
    _report(options, minute_log, left, destroyed, failure, changed=changed)
    return ui.FAILED if options.shred and left else ui.DONE


def _read_seed(path: str) -> tuple[bytearray, os.stat_result]:
    """The seed, and the status of its file."""
    from pki2factl.issuing import seedtext
    from pki2fad.host import files

    # No link is followed to either old file: the file that was named is the one to destroy.
    text, status = files.read_with_status(path, follow_links=False)
    try:
        return seedtext.seed(text), status
    except ValueError as error:
        raise BadRequest(f"{path}: {error}") from None


def _require_codes_of(seed: bytearray, client: Client, options: argparse.Namespace) -> None:
    """Raise `AccountExists` unless the daemon makes the code of this seed, `NoSuchAccount` without one."""
    from pki2fad.rules import otp

    made = client.generate(options.account)
    if not otp.equal(made.code, otp.make_code(seed, otp.Parameters(), made.step)):
        raise AccountExists(
            f"{options.account} has another seed than {options.seed_file}; nothing was destroyed; choose"
            " another --account, or remove the seed that is loaded with:"
            f" pki2factl remove {options.account}"
        )


def _destroyed(old_files: list[tuple[str, os.stat_result]]) -> "tuple[list[str], dict[str, Any]]":
    """Destroy them in order, up to the first failure; returns the destroyed ones, and the failure."""
    from pki2fad.host import files

    destroyed: list[str] = []
    for path, status in old_files:
        try:
            files.shred(path, status)
        except UnusablePath as error:
            ui.error(str(error))
            return destroyed, ui.failure(error.code, str(error))
        destroyed.append(path)
    return destroyed, {}


def _report(
    options: argparse.Namespace,
    minute_log: str | None,
    left: list[str],
    destroyed: list[str],
    failure: "dict[str, Any]",
    *,
    changed: bool,
) -> None:
    text = [f"loaded {options.account}" if changed else f"{options.account} has this seed already"]
    text += [f"continued {minute_log}"] if minute_log else []
    text += [f"destroyed {path}" for path in destroyed]
    text += [f"now to be destroyed: {path}" for path in left]
    data = {
        "account": options.account,
        "changed": changed,
        "log": minute_log,
        "plaintext": left,
        "destroyed": destroyed,
        **failure,
    }
    ui.result("\n".join(text), data, as_json=options.json)
    ui.hint(
        "stop the old service if it still runs: it accepts codes that are spent here, and writes its own log"
    )
    if left:
        without = " without --log" if options.log and options.log not in left else ""
        ui.hint(
            f"to destroy the rest, run this again with --shred{without}, or run: shred -u {shlex.join(left)}"
        )
    ui.hint(_CAVEAT)
