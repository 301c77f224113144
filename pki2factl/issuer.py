"""Asking an issuer for a seed: one POST of JSON, and everything that its answer can be instead."""

import contextlib
import http.client
import io
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
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

    `timeout`, in seconds, bounds each attempt as a whole, from looking up the host's name to the last
    byte. Where no answer comes, or one of 500 and above, there are up to `retries` further attempts.
    Raises `IssuerUnavailable` and `IssuerRefused`.
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
    """One attempt, in a thread that is left behind when the time is up.

    Looking up a name cannot be interrupted, and a socket's own time-out starts again with each byte
    and each address of the host.
    """
    outcome: list[dict[str, Any] | Exception] = []

    def work() -> None:
        try:
            outcome.append(_answer(request))
        except Exception as error:  # whatever it is: it is raised again in the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise IssuerUnavailable(f"{request.full_url} did not answer within {timeout:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    opener = urllib.request.build_opener(_NoRedirects)
    url = request.full_url
    try:
        try:
            with opener.open(request) as response:
                body = _body(response)
                if len(body) < _BODY_LIMIT and response.length:  # http.client itself says nothing
                    raise http.client.IncompleteRead(body, response.length)
        except urllib.error.HTTPError as error:
            with error:
                raise _failure(url, error, _body(error.fp)) from None
    # ValueError: what urllib and http.client make of names, lengths and chunks that are none.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_answer(url, error) from None
    answer = _json(body)
    if answer is None:
        what = "a web page" if _is_page(body) else "something else than a JSON object"
        raise IssuerRefused(f"{url} answered with {what}; is the URL right?")
    return answer


def _body(response: Any) -> bytes:
    """An answer's body, up to the limit."""
    response.fp = io.BufferedReader(_Limited(response.fp))
    body: bytes = response.read(_BODY_LIMIT)
    return body


def _failure(url: str, error: urllib.error.HTTPError, body: bytes) -> IssuerUnavailable | IssuerRefused:
    """An answer that HTTP itself says is none."""
    location = error.headers.get("Location")
    if 300 <= error.code < 400 and location:
        with contextlib.suppress(ValueError):  # what is no URL is shown as it is
            location = urllib.parse.urljoin(url, location)
        location = _short(location, quoted=False)
        return IssuerRefused(f"{url} redirects to {location}; if that is the issuer, name it as --url")
    answer = _json(body)
    if answer is not None:
        said = _message(answer)
    else:
        said = "" if _is_page(body) else _short(body.decode("utf-8", "replace").strip(), quoted=False)
    reason = _short(error.reason, quoted=False)
    text = f"{url} answered {error.code} {reason}{said and f': {said}'}"
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
    return _short(", ".join(map(_short, answer)), quoted=False) or "nothing"


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


class _Limited(io.RawIOBase):
    """A stream that ends at the limit, whatever sizes http.client was told by the other side."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = _BODY_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._stream.read1(min(len(buffer), self._left))
        buffer[: len(part)] = part
        self._left -= len(part)
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other, unread: it may lead to whom nobody named."""

    def _left(self, *_: Any, **__: Any) -> None:
        return None

    http_error_301 = http_error_302 = http_error_303 = http_error_307 = http_error_308 = _left
