"""`pki2factl request-seed`, against an issuer on a real socket that gives every kind of answer."""

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support import issuer as issuers
from support import peers
from support.daemon import Daemon, ctl, environment
from support.issuer import Answer, Exchange, Issuer, json_of, page
from support.raw import Seed

from pki2fad.crypto import rsakeys

ASKED = ["--student-id", "S-1", "--repo-url", "https://git.example/s/1.git"]
CONTRACT = {"student_id": "S-1", "github_repo_url": "https://git.example/s/1.git"}

Done = "subprocess.CompletedProcess[str]"
Request = Callable[..., Done]


@pytest.fixture
def public_key(tmp_path: Path, host_key: rsa.RSAPrivateKey) -> Path:
    path = tmp_path / "host.pub.pem"
    path.write_bytes(rsakeys.public_pem(host_key.public_key()))
    return path


@pytest.fixture
def request_seed(tmp_path: Path, public_key: Path) -> Request:
    """Runs the command once for each answer of an issuer, without waiting between attempts."""

    def request_seed(url: str, *more: str, retries: int = 0, **env: str) -> Done:
        given = ["--url", url, *ASKED, "--public-key", str(public_key), f"--retries={retries}", *more]
        if url.startswith("http://"):
            given.append("--insecure-http")
        return ctl(tmp_path, "request-seed", *given, env={"no_proxy": "*", **env})

    return request_seed


@pytest.fixture
def sealed(host_key: rsa.RSAPrivateKey) -> str:
    return base64.b64encode(Seed().sealed(host_key)).decode()


def refused(done: Done, status: int, *said: str) -> None:
    """Check that nothing came out, and what was said."""
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    for text in said:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr


def test_what_is_sent_is_the_contracts_and_the_answer_is_printed(
    request_seed: Request, sealed: str, public_key: Path
) -> None:
    with Issuer(json_of(status="success", encrypted_seed=sealed)) as issuer:
        done = request_seed(issuer.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sealed}\n", "")
    assert issuer.requests == [{**CONTRACT, "public_key": public_key.read_text()}]
    assert b"PUBLIC KEY-----\\nMII" in issuer.bodies[0]  # escaped once
    assert b"\\\\n" not in issuer.bodies[0]


def test_a_key_with_other_line_ends_is_sent_as_the_contract_has_it(
    request_seed: Request, sealed: str, public_key: Path
) -> None:
    pem = public_key.read_bytes()
    public_key.write_bytes(b"# the host's\r\n" + pem.replace(b"\n", b"\r\n"))
    with Issuer(json_of(status="success", encrypted_seed=sealed)) as issuer:
        assert request_seed(issuer.url).returncode == 0
    assert issuer.requests[0]["public_key"] == pem.decode()


def test_the_answer_is_written_where_it_is_told_and_never_over_something(
    request_seed: Request, sealed: str, tmp_path: Path
) -> None:
    out = tmp_path / "seed.sealed"
    with Issuer(json_of(status="success", encrypted_seed=f" {sealed}\n")) as issuer:
        assert request_seed(issuer.url, "--out", str(out)).stdout == f"{out}\n"
        assert out.read_text() == f"{sealed}\n"
        out.write_text("mine")
        refused(request_seed(issuer.url, "--out", str(out)), 7, "exists already")
        assert out.read_text() == "mine"
        assert len(issuer.requests) == 1  # not asked in vain


def test_the_issuers_base64_may_have_line_breaks(request_seed: Request, sealed: str) -> None:
    wrapped = base64.encodebytes(base64.b64decode(sealed)).decode()
    with Issuer(json_of(status="success", encrypted_seed=wrapped)) as issuer:
        assert request_seed(issuer.url).stdout == f"{sealed}\n"


def test_with_load_the_daemon_has_the_account(
    request_seed: Request, daemon: Daemon, host_key: rsa.RSAPrivateKey
) -> None:
    seed = Seed()
    text = base64.b64encode(seed.sealed(host_key)).decode()
    env = {"PKI2FAD_SOCKET": str(daemon.start().socket)}
    with Issuer(json_of(status="success", encrypted_seed=text)) as issuer:
        assert request_seed(issuer.url, "--load", **env).stdout == "loaded default\n"
        named = json.loads(request_seed(issuer.url, "--load", "--account=a", "--json", **env).stdout)
        again = json.loads(request_seed(issuer.url, "--load", "--account=a", "--json", **env).stdout)
    assert (named["account"], named["changed"], again["changed"]) == ("a", True, False)
    with daemon.client() as client:
        for account in ("default", "a"):
            code = client.generate(account)
            assert code.code == seed.code(code.step)


def test_a_load_that_fails_says_where_the_seed_is(
    request_seed: Request, daemon: Daemon, host_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    env = {"PKI2FAD_SOCKET": str(daemon.start().socket)}
    with daemon.client() as client:
        client.load(Seed().sealed(host_key))
    text = base64.b64encode(Seed().sealed(host_key)).decode()
    with Issuer(json_of(status="success", encrypted_seed=text)) as issuer:
        done = request_seed(issuer.url, "--load", **env)
        assert (done.returncode, done.stdout) == (6, f"{text}\n")
        assert "account_exists" in done.stderr
        assert "is printed" in done.stderr
        failure = json.loads(request_seed(issuer.url, "--load", "--json", **env).stdout)
        assert (failure["error"], failure["sealed"]) == ("account_exists", text)
        out = tmp_path / "seed.sealed"
        refused(request_seed(issuer.url, "--load", f"--out={out}", **env), 6, "account_exists", str(out))
        assert out.read_text() == f"{text}\n"


def test_without_a_daemon_to_load_into_the_issuer_is_not_asked(request_seed: Request, tmp_path: Path) -> None:
    with Issuer(page()) as issuer:
        done = request_seed(issuer.url, "--load", PKI2FAD_SOCKET=str(tmp_path / "none"))
        refused(done, 3, "no daemon answers")
        assert issuer.requests == []


def test_fields_are_renamed_and_added(request_seed: Request, sealed: str) -> None:
    renamed = ["student_id=matriculation", "encrypted_seed=seed", "status=result", "course=PKI=1", "empty="]
    more = [part for field in renamed for part in ("--field", field)]
    with Issuer(json_of(result="success", seed=sealed)) as issuer:
        assert request_seed(issuer.url, *more).stdout == f"{sealed}\n"
    (asked,) = issuer.requests
    assert asked.pop("public_key")
    assert asked == {
        "matriculation": "S-1",
        "github_repo_url": CONTRACT["github_repo_url"],
        "course": "PKI=1",
        "empty": "",
    }


LONG = "x" * 10_000


def chunks(exchange: Exchange, begin: bytes, megabytes: int = 0, status: int = 200) -> None:
    """An answer of chunks that begins so, and then so much white space."""
    head = b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n" % status
    exchange.wfile.write(head + begin)
    for _ in range(megabytes):
        exchange.wfile.write(b" " * 1024 * 1024)
    if megabytes:
        exchange.server.released.wait()  # who reads on has to wait for the end


ANSWERS: dict[str, tuple[Answer, int, tuple[str, ...]]] = {
    "404 with JSON": (json_of(404, message="no such student\x1b[2J"), 6, ("404", "no such student\\x1b")),
    "422 of FastAPI": (json_of(422, detail=[{"msg": "field required"}]), 6, ("422", "field required")),
    "400 with text": (lambda e: e.reply(400, b"repository unknown", "text/plain"), 6, ("400", "unknown")),
    "403 with a page": (page(403), 6, ("403 Forbidden",)),
    "500": (json_of(500, error="out of seeds"), 5, ("500", "out of seeds")),
    "503 with a page": (page(503), 5, ("503",)),
    "429": (json_of(429, Message="slowly"), 5, ("429 Too Many Requests: slowly",)),
    "an error in upper case": (json_of(400, ERROR="no such user"), 6, (": no such user",)),
    "a detail with a capital": (json_of(409, Detail="asked before", error=True), 6, (": asked before",)),
    "an error of several parts": (json_of(400, error={"code": 7, "text": "x"}), 6, ('"text": "x"',)),
    "a long message": (json_of(400, error=LONG), 6, ("xxx…",)),
    "a redirect": (
        lambda e: e.reply(302, b"", Location="https://elsewhere.example/"),
        6,
        ("redirects to https://elsewhere.example/",),
    ),
    "a redirect on the same host": (
        lambda e: e.reply(308, b"", Location="/other"),
        6,
        ("redirects to http://127.0.0.1:", "/other;"),
    ),
    "a redirect to no URL": (lambda e: e.reply(302, b"", Location="http://["), 6, ("redirects to http://[",)),
    "a long redirect": (lambda e: e.reply(307, b"", Location=f"http://{LONG}/"), 6, ("redirects to", "xxx…")),
    "a redirect to nowhere": (lambda e: e.reply(301, b""), 6, ("301",)),
    "a long reason": (lambda e: e.wfile.write(f"HTTP/1.1 400 {LONG}\r\n\r\n".encode()), 6, ("xxx…",)),
    "a chunk of less than nothing": (lambda e: chunks(e, b"-5\r\nxx"), 5, ("broke off",)),
    "a chunk of no size": (lambda e: chunks(e, b"\xff\r\nxx"), 5, ("broke off",)),
    "an endless chunk": (lambda e: chunks(e, b"-1\r\n", 64), 5, ("broke off",)),
    "an endless chunk of a failure": (lambda e: chunks(e, b"-1\r\n", 64, 400), 5, ("broke off",)),
    "many names": (json_of(**dict.fromkeys(map(str, range(20_000)), 0)), 6, ("no status", "…")),
    "a deep message": (
        lambda e: e.reply(200, b'{"status": "error", "message": %s%s}' % (b"[" * 980, b"]" * 980)),
        6,
        (),
    ),
    "a web page": (page(), 6, ("a web page", "URL right")),
    "nothing": (lambda e: e.reply(200, b""), 6, ("that is not a JSON object",)),
    "half of it": (lambda e: e.reply(200, b'{"status": "succ'), 6, ("JSON",)),
    "a list": (lambda e: e.reply(200, b"[1, 2]"), 6, ("JSON object",)),
    "far too much": (lambda e: e.reply(200, b'["' + b"x" * 10**6 + b'"]'), 6, ("JSON",)),
    "deep JSON": (lambda e: e.reply(200, b"[" * 100_000), 6, ("JSON",)),
    "no status": (json_of(encrypted_seed="AAAA"), 6, ("no status", '"encrypted_seed"')),
    "another status": (json_of(status="error", message="too late"), 6, ('"error"', "too late")),
    "no field": (json_of(status="success", seed="AAAA"), 6, ("'encrypted_seed'", '"seed"')),
    "a number": (json_of(status="success", encrypted_seed=5), 6, ("'encrypted_seed'",)),
    "not base64": (json_of(status="success", encrypted_seed="%%%%"), 6, ("not base64",)),
    "half base64": (json_of(status="success", encrypted_seed="AAA"), 6, ("not base64",)),
    "not ASCII": (json_of(status="success", encrypted_seed="ÄÄÄÄ"), 6, ("not base64",)),
    "too short": (json_of(status="success", encrypted_seed="AAAA"), 6, ("has 3 bytes", "384")),
    "for a larger key": (
        json_of(status="success", encrypted_seed=base64.b64encode(bytes(512)).decode()),
        6,
        ("has 512 bytes", "384", "another key"),
    ),
    "cut off by the server": (
        lambda e: e.reply(200, b"{}", **{"Content-Length": "100", "Connection": "close"}),
        5,
        ("broke off",),
    ),
}


@pytest.mark.parametrize(("answer", "status", "said"), ANSWERS.values(), ids=ANSWERS)
def test_every_other_answer_is_told_apart_and_nothing_is_written(
    request_seed: Request, tmp_path: Path, answer: Answer, status: int, said: tuple[str, ...]
) -> None:
    def reply(exchange: Exchange) -> None:
        answer(exchange)
        exchange.close_connection = True

    before = sorted(tmp_path.iterdir())
    with Issuer(reply) as issuer:
        done = request_seed(issuer.url, "--out", str(tmp_path / "out"))
        assert len(issuer.requests) == 1
    refused(done, status, *said)
    assert len(done.stderr) < 1000
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_what_fails_for_now_is_tried_again_and_what_is_refused_is_not(
    request_seed: Request, sealed: str
) -> None:
    fails, gives = json_of(503, error="busy"), json_of(status="success", encrypted_seed=sealed)
    with Issuer(fails, gives) as issuer:
        done = request_seed(issuer.url, retries=1)
        assert (done.returncode, done.stdout) == (0, f"{sealed}\n")
        assert "busy; trying again in 1 s" in done.stderr
        assert issuer.requests == issuer.requests[:1] * 2
    with Issuer(fails, fails, json_of(404)) as issuer:
        done = request_seed(issuer.url, retries=3)
        refused(done, 6, "trying again in 1 s", "trying again in 2 s", "404")
        assert len(issuer.requests) == 3


def busy(status: int, retry_after: str, date: str = "Sun, 06 Nov 1994 08:49:37 GMT") -> Answer:
    """An answer that says when to come again; its clock is far behind ours."""

    def reply(exchange: Exchange) -> None:
        exchange.send_response_only(status)
        exchange.send_header("Date", date)
        exchange.send_header("Retry-After", retry_after)
        exchange.send_header("Content-Length", "0")
        exchange.end_headers()

    return reply


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [
        ("2", 2),
        ("0", 1),
        ("Sun, 06 Nov 1994 08:49:39 GMT", 2),
        ("Sunday, 06-Nov-94 08:49:39 GMT", 2),
        ("Sun Nov  6 08:49:39 1994", 2),
        ("Sun, 06 Nov 1994 08:49:30 GMT", 1),
        ("soon", 1),
        ("99999999999", 1),
        ("-5", 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_an_issuer_that_says_when_to_come_again_is_waited_for(
    request_seed: Request, sealed: str, status: int, retry_after: str, wait: int
) -> None:
    with Issuer(busy(status, retry_after), json_of(status="success", encrypted_seed=sealed)) as issuer:
        begun = time.monotonic()
        done = request_seed(issuer.url, retries=1)
        assert time.monotonic() - begun >= wait
    assert (done.returncode, done.stdout) == (0, f"{sealed}\n")
    assert f"answered {status} " in done.stderr
    assert f"; trying again in {wait} s\n" in done.stderr


@pytest.mark.parametrize("retry_after", ["3600", "Sun, 06 Nov 1994 09:49:37 GMT"])
def test_what_would_take_longer_than_all_attempts_may_is_left_for_later(
    request_seed: Request, retry_after: str
) -> None:
    with Issuer(busy(429, retry_after)) as issuer:
        done = request_seed(issuer.url, "--json", retries=3)
        assert len(issuer.requests) == 1
    failure = json.loads(done.stdout)
    assert (done.returncode, failure["error"], failure["retry_after"]) == (5, "issuer_unavailable", 3600)
    assert "hint: try again in 3600 s (60 minutes)\n" in done.stderr
    assert "trying again" not in done.stderr


def test_an_issuer_that_stays_busy_is_left_after_the_last_attempt(request_seed: Request) -> None:
    with Issuer(busy(503, "1")) as issuer:
        done = request_seed(issuer.url, retries=1)
        assert len(issuer.requests) == 2
    refused(done, 5, "503", "hint: try again in 1 s")


def test_an_issuer_that_is_silent_or_drips_is_timed_out(request_seed: Request, tmp_path: Path) -> None:
    def silent(exchange: Exchange) -> None:
        exchange.server.released.wait()

    def drips(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", "1000000")
        exchange.end_headers()
        while not exchange.server.released.wait(0.02):
            exchange.wfile.write(b" ")

    for answer in (silent, drips):
        with Issuer(answer) as issuer:
            done = request_seed(issuer.url, "--timeout=0.5", f"--out={tmp_path / 'out'}")
            refused(done, 5, "did not answer within 0.5 s")
            assert not (tmp_path / "out").exists()


def test_the_time_out_is_for_all_addresses_of_a_host_together(tmp_path: Path) -> None:
    script = """
import socket, sys
silent = [("127.0.0.1", int(port)) for port in sys.argv[1:]]
family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
socket.getaddrinfo = lambda *_, **__: [(*family, address) for address in silent]
from pki2fad.errors import IssuerUnavailable
from pki2factl.issuing import issuer
try:
    issuer.ask("http://issuer.invalid/", {}, timeout=0.5, retries=0)
except IssuerUnavailable as error:
    print(error)
"""
    with socket.socket() as full, socket.socket() as waiting, socket.socket() as silent:
        for listening in (full, silent):
            listening.bind(("127.0.0.1", 0))
            listening.listen(0)
        waiting.connect(full.getsockname())  # there is no room for another one
        ports = [str(listening.getsockname()[1]) for listening in (full, silent)]
        command = [sys.executable, "-P", "-c", script, *ports]
        env = environment(tmp_path, no_proxy="*")
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=env, check=False)
    assert done.stdout == "http://issuer.invalid/ did not answer within 0.5 s\n", done.stderr


def test_the_time_out_is_for_looking_up_the_host_too(tmp_path: Path) -> None:
    script = """
import socket, threading
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
from pki2fad.errors import IssuerUnavailable
from pki2factl.issuing import issuer
try:
    issuer.ask("http://issuer.invalid/", {}, timeout=0.5, retries=0)
except IssuerUnavailable as error:
    print(error)
"""
    command = [sys.executable, "-P", "-c", script]
    env = environment(tmp_path, no_proxy="*")
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=env, check=False)
    assert done.stdout == "http://issuer.invalid/ did not answer within 0.5 s\n", done.stderr


def test_where_nobody_listens_or_no_such_host_is_the_issuer_cannot_be_reached(
    request_seed: Request, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and not listening
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        done = request_seed(url, f"--out={tmp_path / 'out'}", retries=1)
        refused(done, 5, url, "Connection refused", "trying again in 1 s")
    assert not (tmp_path / "out").exists()
    refused(request_seed("http://issuer.invalid/"), 5, "http://issuer.invalid/", "cannot be reached")


def test_https_is_trusted_if_its_certificate_is(request_seed: Request, sealed: str, tmp_path: Path) -> None:
    trusted = issuers.certificate(tmp_path / "trusted.pem")
    gives = json_of(status="success", encrypted_seed=sealed)
    with Issuer(gives, certificate=trusted) as issuer:
        assert request_seed(issuer.url, SSL_CERT_FILE=str(trusted)).stdout == f"{sealed}\n"
        done = request_seed(issuer.url, f"--out={tmp_path / 'out'}", retries=3)
        refused(done, 6, "is not trusted", "self-signed", "SSL_CERT_FILE")
        assert "trying again" not in done.stderr
        assert not (tmp_path / "out").exists()
        plain = issuer.url.replace("https:", "http:")
        refused(request_seed(plain), 5, "cannot be reached")
    other = issuers.certificate(tmp_path / "other.pem", "DNS:other.example")
    with Issuer(gives, certificate=other) as issuer:
        done = request_seed(issuer.url, SSL_CERT_FILE=str(other))
        refused(done, 6, "is not trusted", "IP address mismatch")
    with Issuer(gives) as issuer:
        refused(request_seed(issuer.url.replace("http:", "https:")), 6, "TLS with")
        assert issuer.requests == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--url", "http://issuer.example/"], "--insecure-http"),
        (["--url", "issuer.example/seed"], "a full URL"),
        (["--url", "file:///etc/passwd"], "a full URL"),
        (["--url", "https:///seed"], "a full URL"),
        (["--url", "https://issuer.example:99999/"], "a full URL"),
        (["--url", "https://issuer.example/a b"], "a full URL"),
        (["--url", "https://issuer..example/"], "a full URL"),
        (["--url", "https://issuer%2e%2eexample/"], "a full URL"),
        (["--url", "https://issuer%0d%0a.example/"], "a full URL"),
        (["--url", "https://issuer%20.example/"], "a full URL"),
        (["--url", f"https://{'x' * 64}.example/"], "a full URL"),
        (["--url", "https://me:hunter2@issuer.example/"], "name or password"),
        (["--timeout", "0"], "--timeout"),
        (["--timeout", "nan"], "--timeout"),
        (["--retries", "11"], "--retries"),
        (["--retries", "-1"], "--retries"),
        (["--account", "a"], "--load"),
        (["--field", "course"], "NAME=VALUE"),
        (["--field", "=1"], "NAME=VALUE"),
        (["--field", "student_id="], "NAME=VALUE"),
        (["--field", "student_id=public_key"], "two fields"),
        (["--field", "student_id=id", "--field", "id=5"], "two fields"),
    ],
)
def test_what_cannot_work_is_wrong_usage(tmp_path: Path, given: list[str], said: str) -> None:
    usual = ["--url", "https://issuer.invalid/", *ASKED, "--public-key", str(tmp_path / "none")]
    refused(ctl(tmp_path, "request-seed", *usual, *given), 2, said)


def write_literal(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\\n"))


def write_small(path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    path.write_bytes(rsakeys.public_pem(key.public_key()))


def write_elliptic(path: Path) -> None:
    command = [peers.require("openssl"), "genpkey", "-algorithm", "ED25519"]
    key = subprocess.run(command, capture_output=True, check=True).stdout
    command = [peers.require("openssl"), "pkey", "-pubout", "-out", str(path)]
    subprocess.run(command, input=key, check=True)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"no key at all"), "not a PEM file"),
        (lambda path: path.write_bytes(b"ssh-rsa AAAA"), "damaged"),
        (write_literal, "two characters \\n"),
        (write_small, "2048 bits"),
        (write_elliptic, "not an RSA key"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "damaged"),
    ],
    ids=["no PEM", "a piece of an SSH key", "literal line ends", "small", "elliptic", "cut off"],
)
def test_a_bad_public_key_is_never_sent(
    request_seed: Request, public_key: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(public_key)
    with Issuer(page()) as issuer:
        refused(request_seed(issuer.url), 6, str(public_key), said)
        assert issuer.requests == []


def test_the_private_key_is_never_sent(
    request_seed: Request, public_key: Path, host_key: rsa.RSAPrivateKey
) -> None:
    public_key.write_bytes(rsakeys.private_pem(host_key))
    with Issuer(page()) as issuer:
        refused(request_seed(issuer.url), 6, "is a private key")
        assert issuer.requests == []
