"""`pki2factl credential`: seals the host's key with systemd, so that it is not on disk in plain text."""

import argparse
import os
import shlex

from pki2factl import ui
from pki2fad.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HELP = "seal the host's key and its passphrase with systemd: print the commands, or run them"

_DROP_IN = "/etc/systemd/system/pki2fad.service.d/10-credential.conf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what it is sealed to, and how far to go."""
    parser.add_argument(
        "--with",
        dest="sealed_with",
        choices=("host", "tpm2", "host+tpm2"),
        default="host",
        help="what opens it: a secret in /var/lib/systemd, the TPM, or both (default: host)",
    )
    parser.add_argument("--private", metavar="FILE", help="default: host.pem in the config directory")
    parser.add_argument("--apply", action="store_true", help="run the commands instead of printing them")
    parser.add_argument(
        "--shred",
        action="store_true",
        help="overwrite and remove the key's own file, if the sealed key opens and is the same",
    )
    parser.add_argument(
        "--stdin", action="store_true", help="with --apply: read the passphrase from standard input"
    )


def run(options: argparse.Namespace) -> int:
    """Print it as a shell script, or do it and check it."""
    from pki2factl.issuing import keypair
    from pki2fad.crypto import memory
    from pki2fad.errors import UnusablePath
    from pki2fad.host import files

    private: str = os.path.abspath(options.private or os.path.join(paths.config_dir(), paths.PRIVATE_KEY))
    protected = keypair.is_protected(private)
    names = (paths.PRIVATE_KEY, paths.PASSPHRASE) if protected else (paths.PRIVATE_KEY,)
    if not (options.apply or options.shred):
        ui.result(
            _script(private, options.sealed_with, names),
            {
                "with": options.sealed_with,
                "drop_in": _drop_in(names),
                "files": [*map(paths.sealed_file, names), _DROP_IN],
            },
            as_json=options.json,
        )
        return ui.DONE
    if os.geteuid() != 0:
        raise UnusablePath(f"{paths.CREDSTORE} and the units belong to root; run this as root")
    memory.forbid_dumps()
    status = os.lstat(private)
    made: list[str] = []
    if options.apply:
        passphrase = (
            ui.passphrase(f"Passphrase of {private}: ", from_stdin=options.stdin) if protected else ""
        )
        keypair.load(private, passphrase)  # finds a wrong passphrase now instead of at the next start
        for name, secret in zip(names, (files.read(private), keypair.to_bytes(passphrase)), strict=False):
            made.append(_seal(name, secret, options.sealed_with))
        files.make_directory(os.path.dirname(_DROP_IN))
        files.replace(_DROP_IN, _drop_in(names).encode(), files.PUBLIC)
        made.append(_DROP_IN)
    if options.shred:
        _require_same(paths.PRIVATE_KEY, files.read(private))
        files.shred(private, status)
    text = [f"made {path}" for path in made] + ([f"removed {private}"] if options.shred else [])
    ui.result("\n".join(text), {"made": made, "removed": options.shred}, as_json=options.json)
    if options.apply:
        ui.hint("now run: systemctl daemon-reload && systemctl restart pki2fad")
    if not options.shred:
        ui.hint(f"{private} is still there; when the service has started, run: pki2factl credential --shred")
    return ui.DONE


def _drop_in(names: "Iterable[str]") -> str:
    lines = [f"LoadCredentialEncrypted={name}:{paths.sealed_file(name)}" for name in names]
    return "\n".join(["[Service]", *lines, ""])


def _script(private: str, sealed_with: str, names: "Iterable[str]") -> str:
    # In a subshell that ends where a step fails: the service must not look for a file that is missing.
    lines = ["(", "set -e", "umask 077", f"mkdir -p {paths.CREDSTORE}"]
    for name in names:
        encrypt = f"systemd-creds encrypt --with-key={sealed_with} --name={name}"
        sealed = paths.sealed_file(name)
        if name.endswith(".pem"):
            lines.append(f"{encrypt} {shlex.quote(private)} {sealed}")
        else:
            lines.append(f"systemd-ask-password -n 'Passphrase of the key:' | {encrypt} - {sealed}")
    lines += [
        "umask 022",
        f"mkdir -p {os.path.dirname(_DROP_IN)}",
        f"cat >{_DROP_IN} <<'END'\n{_drop_in(names)}END",
        "systemctl daemon-reload",
        "systemctl restart pki2fad",
        ")",
        "# When it has started: pki2factl credential --shred",
    ]
    return "\n".join(lines)


def _seal(name: str, secret: bytes, sealed_with: str) -> str:
    """Make the sealed credential and check that it opens; returns its path."""
    from pki2fad.host import files

    path = paths.sealed_file(name)
    sealed = _systemd_creds("encrypt", f"--with-key={sealed_with}", f"--name={name}", "-", "-", data=secret)
    files.make_directory(paths.CREDSTORE, 0o700)
    files.replace(path, sealed, files.PRIVATE)
    _require_same(name, secret)
    return path


def _require_same(name: str, secret: bytes) -> None:
    """Raise `UnusableKey` unless this is what the sealed credential holds."""
    from pki2fad.errors import UnusableKey

    path = paths.sealed_file(name)
    if _systemd_creds("decrypt", f"--name={name}", path, "-") != secret:
        raise UnusableKey(f"{path} holds another {name}; seal this one with --apply")


def _systemd_creds(*arguments: str, data: bytes = b"") -> bytes:
    """Run systemd-creds; returns its output. Raises `UnusableKey` with its error if it fails."""
    import subprocess

    from pki2fad.errors import UnusableKey

    try:
        done = subprocess.run(  # noqa: S603 - systemd's own program, and no shell
            ["systemd-creds", *arguments],  # noqa: S607 - where the system has it
            input=data,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise UnusableKey("there is no systemd-creds here; it comes with systemd 250 and newer") from None
    if done.returncode != 0:
        said = "; ".join(done.stderr.decode("utf-8", "replace").splitlines())
        raise UnusableKey(f"systemd-creds {arguments[0]} failed: {said}")
    return done.stdout
