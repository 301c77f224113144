"""`pki2factl proof`, with openssl alone on the other side."""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import peers
from support.daemon import ctl

VECTORS = Path(__file__).parents[1] / "vectors"
ISSUER, ISSUER_PUBLIC = VECTORS / "issuer-8192.pem", VECTORS / "issuer-8192.pub.pem"

OAEP = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"]
PSS = ["rsa_padding_mode:pss", "rsa_pss_saltlen:478", "rsa_mgf1_md:sha256"]  # 512 - 32 - 2: the largest

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Proof = Callable[..., "subprocess.CompletedProcess[str]"]


def openssl(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [peers.require("openssl"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def options(flag: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (flag, value)]


def git(repo: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.invalid"]
    command = [peers.require("git"), "-C", str(repo), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's key of 4096 bits, as openssl makes it."""
    path = tmp_path_factory.mktemp("keys")
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096", "-out", path / "host.pem")
    openssl("pkey", "-in", path / "host.pem", "-pubout", "-out", path / "host.pub.pem")
    return path


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A work tree with two commits that are on a remote."""
    remote, repo = tmp_path / "remote", tmp_path / "repo"
    for made in (remote, repo):
        made.mkdir()
    git(remote, "init", "--quiet", "--bare")
    git(repo, "init", "--quiet", "--initial-branch=main")
    for message in ("first", "second"):
        git(repo, "commit", "--quiet", "--allow-empty", "--message", message)
    git(repo, "remote", "add", "origin", str(remote))
    git(repo, "push", "--quiet", "origin", "main")
    return repo


@pytest.fixture
def create(repo: Path, keys: Path) -> Proof:
    def create(*more: object, to: Path = ISSUER_PUBLIC) -> "subprocess.CompletedProcess[str]":
        given = ["--to", to, "--key", keys / "host.pem", "--repo", repo, *more]
        return ctl(repo.parent, "proof", "create", *map(str, given))

    return create


@pytest.fixture
def verify(repo: Path, keys: Path) -> Proof:
    def verify(proof: str, *more: object, signer: Path | None = None) -> "subprocess.CompletedProcess[str]":
        given = ["--key", ISSUER, "--from", signer or keys / "host.pub.pem", "--repo", repo, *more]
        return ctl(repo.parent, "proof", "verify", *map(str, given), input=proof)

    return verify


def test_openssl_opens_a_proof_and_checks_its_signature(create: Proof, repo: Path, keys: Path) -> None:
    done = create()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) == 1369  # one line
    sealed, signature, message = (repo.parent / name for name in ("sealed", "signature", "message"))
    sealed.write_bytes(base64.b64decode(done.stdout.strip(), validate=True))
    message.write_text(git(repo, "rev-parse", "HEAD"))
    files = ["-inkey", ISSUER, "-in", sealed, "-out", signature]
    openssl("pkeyutl", "-decrypt", *files, *options("-pkeyopt", OAEP))
    assert signature.stat().st_size == 512
    check = ["-verify", keys / "host.pub.pem", "-signature", signature, *options("-sigopt", PSS)]
    assert openssl("dgst", "-sha256", *check, message).stdout == "Verified OK\n"


@pytest.mark.parametrize(("revision", "status"), [("HEAD", 0), ("HEAD~1", 1)])
def test_a_proof_that_openssl_made_is_verified(
    verify: Proof, repo: Path, keys: Path, revision: str, status: int
) -> None:
    sealed, signature, message = (repo.parent / name for name in ("sealed", "signature", "message"))
    message.write_text(git(repo, "rev-parse", revision))
    sign = ["-sign", keys / "host.pem", "-out", signature, *options("-sigopt", PSS)]
    openssl("dgst", "-sha256", *sign, message)
    files = ["-pubin", "-inkey", ISSUER_PUBLIC, "-in", signature, "-out", sealed]
    openssl("pkeyutl", "-encrypt", *files, *options("-pkeyopt", OAEP))
    done = verify(base64.encodebytes(sealed.read_bytes()).decode().replace("\n", ""))
    assert (done.stdout, done.returncode) == (["valid\n", "invalid\n"][status], status)


@pytest.mark.slow
def test_what_is_no_proof_of_this_commit_by_this_host_is_invalid(
    create: Proof, verify: Proof, repo: Path
) -> None:
    proof = create().stdout
    assert verify(proof).returncode == 0
    assert verify(proof, "--commit", git(repo, "rev-parse", "HEAD")).returncode == 0
    assert verify(proof, "--commit", "HEAD~1").returncode == 1
    assert verify(proof, "--commit", "0" * 40).returncode == 1
    assert verify(proof, signer=ISSUER_PUBLIC).returncode == 1
    for damaged in (
        "AAAA",
        proof[8:],
        base64.b64encode(bytes(1024)).decode(),
        proof[:9].swapcase() + proof[9:],
    ):
        done = verify(damaged)
        assert (done.stdout, done.returncode) == ("invalid\n", 1)
        assert "does not open" in done.stderr


FORMS = {
    "bare": "{proof}",
    "line breaks": "{wrapped}",
    "CR LF": "{wrapped_crlf}",
    "a byte order mark": "\ufeff{proof}\r\n",
    "labelled": "Commit Hash: {commit}\nEncrypted Signature: {proof}\n",
    "labelled, on the next line": "Commit Hash: {commit}\nEncrypted Signature:\n{proof}\n",
    "labelled, blank lines": "Commit Hash:\n{commit}\n\nEncrypted Signature (single):\n\n{proof}\nDone.\n",
    "labelled, with line breaks": "Commit Hash: {commit}\nEncrypted Signature: {wrapped}\n=====\n",
    "labelled, CR LF": "Commit Hash: {commit}\r\nEncrypted Signature:\r\n{wrapped_crlf}",
    "labelled, the other way round": "Encrypted Signature: {proof}\nCommit Hash: {commit}\n",
    "labelled, without a hash": "Encrypted Signature (single line): {proof}",
    "Markdown": "# Proof\n\n- **Commit Hash:** `{commit}`\n- **Encrypted Signature:** `{proof}`\n",
    "upper case": "COMMIT HASH: {upper}\nENCRYPTED SIGNATURE: {proof}\n",
}


def in_form(form: str, proof: str, commit: str) -> str:
    wrapped = "".join(f"{proof[start : start + 76]}\n" for start in range(0, len(proof), 76))
    crlf = wrapped.replace("\n", "\r\n")
    values = {
        "proof": proof,
        "wrapped": wrapped,
        "wrapped_crlf": crlf,
        "commit": commit,
        "upper": commit.upper(),
    }
    return FORMS[form].format(**values)


@pytest.fixture(scope="module")
def made(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A proof of the commit 0123…, from openssl alone."""
    directory = tmp_path_factory.mktemp("made")
    message, signature, sealed = (directory / name for name in ("message", "signature", "sealed"))
    message.write_text(COMMIT)
    sign = ["-sign", keys / "host.pem", "-out", signature, *options("-sigopt", PSS)]
    openssl("dgst", "-sha256", *sign, message)
    files = ["-pubin", "-inkey", ISSUER_PUBLIC, "-in", signature, "-out", sealed]
    openssl("pkeyutl", "-encrypt", *files, *options("-pkeyopt", OAEP))
    return base64.b64encode(sealed.read_bytes()).decode()


@pytest.mark.parametrize("form", FORMS)
def test_a_proof_is_verified_in_every_form(verify: Proof, made: str, form: str) -> None:
    done = verify(in_form(form, made, COMMIT), "--commit", COMMIT)
    assert (done.stdout, done.stderr, done.returncode) == ("valid\n", "", 0)


@pytest.mark.parametrize("form", [form for form in FORMS if "{commit}" in FORMS[form]])
def test_a_hash_beside_the_proof_has_to_be_the_commits(verify: Proof, made: str, form: str) -> None:
    other = COMMIT[::-1]
    done = verify(in_form(form, made, other), "--commit", COMMIT)
    assert (done.stdout, done.returncode) == ("invalid\n", 1)
    assert f"for the commit {other}, not for {COMMIT}" in done.stderr


def test_what_create_prints_as_json_is_verified(create: Proof, verify: Proof, repo: Path) -> None:
    printed = create("--json").stdout
    assert verify(printed).stdout == "valid\n"
    assert verify(json.dumps(json.loads(printed), indent=2)).stdout == "valid\n"
    done = verify(printed, "--commit", "HEAD~1")
    assert (done.stdout, done.returncode) == ("invalid\n", 1)
    assert f"for the commit {git(repo, 'rev-parse', 'HEAD')}" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "hello",
        "AAAA!",
        "no proof: here",
        "{",
        "{}",
        '{"proof": 5}',
        '{"proof": ""}',
        '{"proof": "AAAA", "commit": "HEAD"}',
        '{"proof": "AAAA", "commit": 5}',
        "Commit Hash: 0123456789abcdef0123456789abcdef01234567\n",
        "Encrypted Signature:\n",
        "Encrypted Signature: !\n",
        "Encrypted Signature: AAAA\nEncrypted Signature: AAAA\n",
        "Commit Hash: none\nEncrypted Signature: AAAA\n",
    ],
)
def test_what_holds_no_proof_is_an_error_and_never_invalid(verify: Proof, text: str) -> None:
    done = verify(text, "--commit", COMMIT)
    assert (done.stdout, done.returncode) == ("", 6)
    assert done.stderr.startswith("pki2factl: error: ")
    assert "Traceback" not in done.stderr


def test_a_key_that_is_too_small_for_a_signature_is_refused_with_the_size_it_needs(
    create: Proof, keys: Path, repo: Path
) -> None:
    done = create("--out", repo.parent / "proof", to=keys / "host.pub.pem")
    assert (done.returncode, done.stdout) == (6, "")
    assert "4096 bits" in done.stderr
    assert "4624" in done.stderr
    assert not (repo.parent / "proof").exists()


def test_another_key_than_the_one_pinned_is_refused(create: Proof) -> None:
    shown = json.loads(create("--json").stdout)["to"]
    assert create("--to-fingerprint", shown).returncode == 0
    other = create("--to-fingerprint", shown[:-1] + "~")
    assert (other.returncode, other.stdout) == (6, "")
    assert shown in other.stderr


def test_json_names_commit_proof_and_keys(create: Proof, verify: Proof, repo: Path) -> None:
    made = json.loads(create("--json", "--commit", "HEAD~1").stdout)
    assert made["commit"] == git(repo, "rev-parse", "HEAD~1")
    checked = json.loads(verify(made["proof"], "--commit", "HEAD~1", "--json").stdout)
    assert checked == {"valid": True, **{name: made[name] for name in ("commit", "key", "to")}}


def test_a_proof_is_written_where_it_is_told_and_never_over_something(create: Proof, repo: Path) -> None:
    out = repo.parent / "proof"
    assert create("--out", out).stdout == f"{out}\n"
    written = out.read_bytes()
    assert len(written) == 1369
    assert create("--out", out).returncode == 7
    assert out.read_bytes() == written


def test_a_tree_that_is_not_clean_and_a_commit_on_no_remote_are_warned_of(create: Proof, repo: Path) -> None:
    assert create().stderr == ""
    (repo / "new").touch()
    assert "uncommitted" in create().stderr
    git(repo, "add", "new")
    git(repo, "commit", "--quiet", "--message", "third")
    done = create()
    assert done.returncode == 0
    assert "not on any remote" in done.stderr
    assert "uncommitted" not in done.stderr


@pytest.mark.parametrize("revision", ["nonsense", "--all", "HEAD:", ""])
def test_what_git_does_not_know_as_a_commit_is_refused(create: Proof, revision: str) -> None:
    done = create(f"--commit={revision}")
    assert (done.returncode, done.stdout) == (6, "")
    assert "Traceback" not in done.stderr


def test_a_text_that_only_speaks_of_a_signature_is_told_what_is_missing(verify: Proof) -> None:
    done = verify("# About\n- Encrypted Signature: <base64>\n" + "text\n" * 1000, "--commit", COMMIT)
    assert done.returncode == 6
    assert "no base64 follows 'Encrypted Signature'" in done.stderr
    assert "empty" not in done.stderr
