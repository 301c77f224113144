"""`pki2factl proof`: proves which host made a commit, and checks such a proof.

A proof is the RSA-PSS signature of the 40 characters of the commit's hash, encrypted to the issuer.
"""

import argparse
import re

from pki2factl import ui

HELP = "make or check the proof of a commit"

_FULL_HASH = re.compile(r"[0-9a-f]{40}", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take one of two commands."""
    actions = parser.add_subparsers(metavar="create|verify", required=True)
    create = actions.add_parser("create", help="sign a commit and encrypt the signature to the issuer")
    create.add_argument("--to", required=True, metavar="ISSUER_PUBLIC", help="the issuer's public key")
    create.add_argument("--to-fingerprint", metavar="SHA256:...", help="refuse any other key")
    create.add_argument("--key", metavar="PRIVATE", help="default: host.pem in the config directory")
    create.add_argument("--commit", default="HEAD", metavar="REV", help="default: HEAD")
    create.add_argument("--out", metavar="FILE", help="write the proof there instead of printing it")
    create.set_defaults(act=_create)
    verify = actions.add_parser("verify", help="check a proof; the exit code is 0 if it is valid, 1 if not")
    verify.add_argument("--key", required=True, metavar="ISSUER_PRIVATE", help="the issuer's private key")
    verify.add_argument(
        "--from", required=True, dest="signer", metavar="PUBLIC", help="the host's public key"
    )
    verify.add_argument("--commit", default="HEAD", metavar="HASH", help="default: HEAD")
    verify.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="the proof: base64, JSON, or labelled lines; - or nothing: standard input",
    )
    verify.set_defaults(act=_verify)
    for action in (create, verify):
        action.add_argument(
            "--stdin", action="store_true", help="read the key's passphrase from standard input"
        )
        action.set_defaults(usage_error=action.error)
        action.add_argument("--repo", default=".", metavar="DIR", help="default: this directory")
        # else the default would override a --json before the command
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Carry out one of them."""
    status: int = options.act(options)
    return status


def _create(options: argparse.Namespace) -> int:
    import os

    from pki2factl.issuing import git, keypair
    from pki2fad.crypto import rsakeys, sealing
    from pki2fad.errors import UnusableKey
    from pki2fad.host import files, paths

    files.require_absent(options.out)
    path = options.key or os.path.join(paths.config_dir(), paths.PRIVATE_KEY)
    key = keypair.load(path, from_stdin=options.stdin)
    issuer = rsakeys.load_public(files.read(options.to), options.to)
    fingerprint = rsakeys.fingerprint(issuer)
    if options.to_fingerprint not in (None, fingerprint):
        raise UnusableKey(f"{options.to} is {fingerprint}, not {options.to_fingerprint}")
    sealing.check_holds(issuer, key.key_size // 8, options.to)
    commit = git.full_hash(options.repo, options.commit)
    for warning in git.warnings(options.repo, commit):
        ui.hint(warning)
    signature = sealing.sign(key, commit.encode())
    text = sealing.sealed_to_text(sealing.encrypt(issuer, signature))
    if options.out:
        files.create(options.out, text, files.PUBLIC)
    proof = text.decode().strip()
    data = {
        "commit": commit,
        "proof": proof,
        "key": rsakeys.fingerprint(key.public_key()),
        "to": fingerprint,
    }
    ui.result(options.out or proof, data, as_json=options.json)
    return ui.DONE


def _verify(options: argparse.Namespace) -> int:
    from pki2factl.issuing import git, keypair, prooftext
    from pki2fad.crypto import rsakeys, sealing
    from pki2fad.host import files

    text = ui.read_input(options.file)
    if options.stdin and options.file == "-":
        options.usage_error("--stdin is for the passphrase, so the proof has to be in a FILE")
    proof = prooftext.read(text)
    key = keypair.load(options.key, from_stdin=options.stdin)
    signer = rsakeys.load_public(files.read(options.signer), options.signer)
    commit = options.commit
    if _FULL_HASH.fullmatch(commit) is None:  # the issuer need not have the repository
        commit = git.full_hash(options.repo, commit)
    signature = sealing.decrypt(key, proof.sealed)
    is_named = proof.commit in (None, commit)
    valid = is_named and signature is not None and sealing.is_signed(signer, commit.encode(), signature)
    if not is_named:
        ui.hint(
            f"the proof is for the commit {proof.commit}, not for {commit}; choose a commit with --commit"
        )
    elif signature is None:
        ui.hint("the proof does not open with this key")
    elif not valid:
        ui.hint(f"it was checked against the commit {commit}; choose another with --commit")
    data = {
        "valid": valid,
        "commit": commit,
        "key": rsakeys.fingerprint(signer),
        "to": rsakeys.fingerprint(key.public_key()),
    }
    ui.result("valid" if valid else "invalid", data, as_json=options.json)
    return ui.DONE if valid else ui.NOT_VALID
