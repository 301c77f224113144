"""`pki2factl request-seed`: gets a seed from an issuer, sealed to this host's key."""

import argparse
import os
import urllib.parse

from pki2factl import ui

HELP = "get a seed from an issuer, sealed to this host's key"

# The contract's names, and what an issuer may call them instead.
_ASKED = ("student_id", "github_repo_url", "public_key")
_ANSWERED = ("status", "encrypted_seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the issuer, the fields of the request, and what to do with the answer."""
    parser.set_defaults(kept={})  # printed with a failure
    parser.add_argument("--url", required=True, metavar="URL", help="the issuer's URL")
    parser.add_argument("--student-id", required=True, metavar="ID", help="the student's id")
    parser.add_argument(
        "--repo-url", required=True, metavar="URL", help="the URL of the student's repository"
    )
    parser.add_argument("--public-key", metavar="FILE", help="default: host.pub.pem in the config directory")
    parser.add_argument("--out", metavar="FILE", help="write the sealed seed there instead of printing it")
    parser.add_argument("--load", action="store_true", help="load it into the daemon")
    parser.add_argument("--account", metavar="NAME", help="with --load (default: default)")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"for issuers with other names: for {', '.join(_ASKED + _ANSWERED)} VALUE is the issuer's name;"
        " any other NAME is sent with this VALUE",
    )
    parser.add_argument(
        "--timeout", type=float, default=20.0, metavar="S", help="seconds for each attempt (default: 20)"
    )
    parser.add_argument(
        "--retries",
        type=int,
        choices=range(11),
        default=3,
        metavar="N",
        help="further attempts, 0 to 10 (default: 3); it waits 1 s before the first, then longer, or for the"
        " issuer's Retry-After if that is within the time for all attempts",
    )
    parser.add_argument(
        "--insecure-http", action="store_true", help="allow http://, where anybody on the network can answer"
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Ask the issuer, check the answer, and keep the seed."""
    _check(options)
    names, added = _fields(options)

    from pki2factl.issuing import issuer
    from pki2fad.crypto import rsakeys, sealing
    from pki2fad.host import files, paths

    path = options.public_key or os.path.join(paths.config_dir(), paths.PUBLIC_KEY)
    key = rsakeys.load_public(files.read(path), path)
    files.require_absent(options.out)
    if options.load:
        _check_daemon(options)
    pem = rsakeys.public_pem(key).decode()
    asked = dict(zip(_ASKED, (options.student_id, options.repo_url, pem), strict=True))
    fields = {names[name]: value for name, value in asked.items()} | added
    answer = issuer.ask(options.url, fields, timeout=options.timeout, retries=options.retries)
    sealed = issuer.sealed_seed(answer, names["status"], names["encrypted_seed"], key.key_size // 8)
    text = sealing.sealed_to_text(sealed)
    if options.out:
        files.create(options.out, text, files.PUBLIC)
    data = {"sealed": text.decode().strip(), "fingerprint": rsakeys.fingerprint(key), "out": options.out}
    said = [options.out] if options.out else []
    if options.load:
        account = options.account or "default"
        data |= {"account": account, "changed": _load(options, text, account)}
        said.append(f"loaded {account}")
    ui.result("\n".join(said) or data["sealed"], data, as_json=options.json)
    return ui.DONE


def _check(options: argparse.Namespace) -> None:
    """Refuse wrong arguments before anything is read or sent."""
    try:
        url = urllib.parse.urlsplit(options.url)
        host = urllib.parse.unquote(url.hostname or "")  # as it is looked up
        host.encode("idna")  # UnicodeError is a ValueError
        usable = bool(host) and url.port != 0 and options.url.isascii()
        usable = usable and f"{options.url}{host}".isprintable() and " " not in f"{options.url}{host}"
    except ValueError:
        usable = False
    if not usable or url.scheme not in ("http", "https"):
        options.usage_error("--url has to be a full URL, for example https://issuer.example/...")
    if url.username is not None:
        options.usage_error("--url has a user name or password, which others can see; leave it out")
    if url.scheme == "http" and not options.insecure_http:
        options.usage_error(
            "--url is http://, where anybody on the network can answer; to allow it, add --insecure-http"
        )
    if not 0 < options.timeout <= 3600:
        options.usage_error("--timeout has to be above 0 and at most 3600 seconds")
    if options.account is not None and not options.load:
        options.usage_error("--account needs --load")


def _fields(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """The issuer's names of the contract's fields, and the fields that are added."""
    names = {name: name for name in _ASKED + _ANSWERED}
    added: dict[str, str] = {}
    for given in options.field:
        name, equals, value = given.partition("=")
        if not (name and equals and (value or name not in names)):
            options.usage_error(f"--field has to be NAME=VALUE, not {given!r}")
        (names if name in names else added)[name] = value
    sent = [names[name] for name in _ASKED]
    if len({*sent, *added}) != len(sent) + len(added):
        options.usage_error("--field gives one name to two fields")
    return names, added


def _check_daemon(options: argparse.Namespace) -> None:
    """Raise if there is no daemon or the caller may not load, before the issuer is asked."""
    from pki2fad.client import Client

    with Client(options.socket) as client:
        client.accounts(limit=1)


def _load(options: argparse.Namespace, text: bytes, account: str) -> bool:
    from pki2fad.client import Client
    from pki2fad.crypto import sealing
    from pki2fad.errors import Pki2fadError

    try:
        with Client(options.socket) as client:
            return client.load(sealing.sealed_from_text(text), account)
    except Pki2fadError:  # an issuer may give one seed, once
        if options.json:
            options.kept["sealed"] = text.decode().strip()
        elif not options.out:
            ui.result(text.decode().strip(), None, as_json=False)
        where = f"in {options.out}" if options.out else "printed"
        ui.hint(f"the sealed seed is {where}; load it with: pki2factl load")
        raise
