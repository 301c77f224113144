"""Asking an issuer for a seed: one POST of JSON, and everything that its answer can be instead."""

import contextlib
import http.client
import json
import signal
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from pki2fad import __version__, envelope
from pki2fad.errors import BadSeal, IssuerRefused, IssuerUnavailable

from . import ui

_FIRST_DELAY = 1.0  # seconds before the second attempt; doubled for each that follows
_LONGEST_DELAY = 30.0
_BODY_LIMIT = 256 * 1024  # an answer has a kilobyte
_SHOWN = 300  # characters of the issuer's own message

# Under which of these the issuers in use, and common web frameworks, say what is wrong.
_MESSAGES = ("message", "error", "detail", "reason")


def ask(url: str, fields: dict[str, str], *, timeout: float, retries: int) -> dict[str, Any]:
    """The issuer's answer, a JSON object, to a POST of these fields.

    `timeout`, in seconds, bounds each attempt as a whole, once the host's name is looked up. Where no
    answer comes, or one of 500 and above, there are up to `retries` further attempts. Raises
    `IssuerUnavailable` and `IssuerRefused`.
    """
    request = urllib.request.Request(  # noqa: S310 - the command takes http and https alone
        url,
        json.dumps(fields).encode(),
        {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"pki2factl/{__version__}",
        },
    )
    delay = _FIRST_DELAY
    while True:
        try:
            return ui.with_spinner("asking the issuer", lambda: _attempt(request, timeout))
        except IssuerUnavailable as error:
            if retries == 0:
                raise
            ui.hint(f"{error}; trying again in {delay:.0f} s")
        time.sleep(delay)
        retries -= 1
        delay = min(2 * delay, _LONGEST_DELAY)


def sealed_seed(answer: dict[str, Any], status: str, field: str, size: int) -> bytes:
    """The sealed seed in an answer, checked to be of `size` bytes. Raises `IssuerRefused`.

    `status` and `field` are the names under which the answer has its status and the seed.
    """
    if status not in answer:
        raise IssuerRefused(f"the issuer's answer has no {status}; it has: {_names(answer)}")
    if answer[status] != "success":
        said = _message(answer)
        raise IssuerRefused(
            f"the issuer's {status} is {_short(answer[status])} and not 'success'{said and f': {said}'}"
        )
    text = answer.get(field)
    if not isinstance(text, str):
        raise IssuerRefused(f"the issuer's answer has no text {field!r}; it has: {_names(answer)}")
    try:
        sealed = envelope.sealed_from_text(text.encode("ascii"))
    except (BadSeal, UnicodeEncodeError):
        raise IssuerRefused(f"the issuer's {field} is not base64") from None
    if len(sealed) != size:
        raise IssuerRefused(
            f"the issuer's {field} has {len(sealed)} bytes, and the key {size}: it is sealed to another key,"
            " or cut off"
        )
    return sealed


def _attempt(request: urllib.request.Request, timeout: float) -> dict[str, Any]:
    opener = urllib.request.build_opener(_NoRedirects)
    url = request.full_url
    try:
        with _deadline(timeout):
            try:
                with opener.open(request) as response:
                    body = response.read(_BODY_LIMIT)
                    if len(body) < _BODY_LIMIT and response.length:  # http.client itself says nothing
                        raise http.client.IncompleteRead(body, response.length)
            except urllib.error.HTTPError as error:
                with error:
                    raise _failure(url, error, error.read(_BODY_LIMIT)) from None
    except _Expired:
        raise IssuerUnavailable(f"{url} did not answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _no_answer(url, error) from None
    answer = _json(body)
    if answer is None:
        what = "a web page" if _is_page(body) else "something else than a JSON object"
        raise IssuerRefused(f"{url} answered with {what}; is the URL right?")
    return answer


def _failure(url: str, error: urllib.error.HTTPError, body: bytes) -> IssuerUnavailable | IssuerRefused:
    """An answer that HTTP itself says is none."""
    location = error.headers.get("Location")
    if 300 <= error.code < 400 and location:
        location = urllib.parse.urljoin(url, location)
        return IssuerRefused(f"{url} redirects to {location}; if that is the issuer, name it as --url")
    answer = _json(body)
    if answer is not None:
        said = _message(answer)
    else:
        said = "" if _is_page(body) else _short(body.decode("utf-8", "replace").strip(), quoted=False)
    text = f"{url} answered {error.code} {error.reason}{said and f': {said}'}"
    return IssuerUnavailable(text) if error.code >= 500 else IssuerRefused(text)


def _no_answer(url: str, error: Exception) -> IssuerUnavailable | IssuerRefused:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return IssuerRefused(
            f"{url} is not to be trusted: {reason.verify_message}; if its certificate is of an authority of"
            " your own, name that authority's file in the environment variable SSL_CERT_FILE"
        )
    if isinstance(reason, ssl.SSLError):
        return IssuerRefused(f"{url} does not speak TLS as it should: {reason.reason or reason}")
    if isinstance(reason, OSError):
        return IssuerUnavailable(f"{url} cannot be reached: {reason.strerror or reason}")
    return IssuerUnavailable(f"{url} broke off its answer ({type(error).__name__})")


def _json(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body, None if it is anything else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _names(answer: dict[str, Any]) -> str:
    return ", ".join(_short(name) for name in answer) or "nothing"


def _is_page(body: bytes) -> bool:
    return body.lstrip().startswith(b"<")


def _message(answer: dict[str, Any]) -> str:
    """What the issuer itself says is wrong, in short."""
    for name in _MESSAGES:
        if answer.get(name):
            said = answer[name]
            return _short(said, quoted=not isinstance(said, str))
    return ""


def _short(value: object, *, quoted: bool = True) -> str:
    text = json.dumps(value, ensure_ascii=False) if quoted else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _Expired(Exception):
    """The time is up. Not an `OSError`: for that a host's next address would be tried."""


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `_Expired` in what takes longer: a socket's own time-out starts again with each byte."""

    def expire(_signal: int, _frame: object) -> None:
        raise _Expired

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other: it may lead to whom nobody named."""

    def redirect_request(self, *_: object) -> None:
        return None
