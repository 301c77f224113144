"""Asks an issuer for a seed: one POST of JSON, and every failure that can come back."""

import contextlib
import email.utils
import http.client
import io
import json
import math
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC
from email.message import Message
from typing import Any

from pki2factl import ui
from pki2fad import __version__
from pki2fad.crypto import sealing
from pki2fad.errors import BadSeal, IssuerRefused, IssuerUnavailable

_FIRST_DELAY = 1.0  # seconds before the second attempt; doubled for each that follows
_LONGEST_DELAY = 30.0
_BODY_LIMIT = 256 * 1024  # bytes; an answer has a kilobyte
_SHOWN = 300  # characters of the issuer's own message

# Names, in any case, under which the issuers in use and common web frameworks put their message.
_MESSAGES = ("message", "error", "detail", "msg", "errors", "details", "reason")


def ask(url: str, fields: dict[str, str], *, timeout: float, retries: int) -> dict[str, Any]:
    """The issuer's answer, a JSON object, to a POST of these fields.

    `timeout`, in seconds, bounds each attempt as a whole, from looking up the host's name to the last
    byte. Without an answer, or after status 429, 500 or above, there are up to `retries` further attempts.
    They wait for the issuer's `Retry-After`, if it ends within the time that all attempts may take.
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
    deadline = time.monotonic() + (1 + retries) * timeout
    while True:
        try:
            return ui.with_spinner("asking the issuer", lambda: _attempt(request, timeout))
        except IssuerUnavailable as error:
            asked = error.retry_after or 0
            if retries == 0 or (asked and time.monotonic() + asked > deadline):
                raise
            wait = max(delay, asked)
            ui.hint(f"{error}; trying again in {wait:.0f} s")
        time.sleep(wait)
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
            f"the issuer's {status} is {_short(answer[status])}, not 'success'{said and f': {said}'}"
        )
    text = answer.get(field)
    if not isinstance(text, str):
        raise IssuerRefused(f"the issuer's answer has no text {field!r}; it has: {_names(answer)}")
    try:
        sealed = sealing.sealed_from_text(text.encode("ascii"))
    except (BadSeal, UnicodeEncodeError):
        raise IssuerRefused(f"the issuer's {field} is not base64") from None
    if len(sealed) != size:
        raise IssuerRefused(
            f"the issuer's {field} has {len(sealed)} bytes, and the key {size}: it is sealed to another key,"
            " or cut off"
        )
    return sealed


def _attempt(request: urllib.request.Request, timeout: float) -> dict[str, Any]:
    """Make one attempt, in a thread that is left behind when the time is up.

    Looking up a name cannot be interrupted, and a socket's own time-out starts again with each byte
    and each address of the host.
    """
    outcome: list[dict[str, Any] | Exception] = []

    def work() -> None:
        try:
            outcome.append(_answer(request))
        except Exception as error:  # any error is raised again in the thread that waits
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
    # ValueError: urllib and http.client raise it for malformed names, lengths and chunks.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_answer(url, error) from None
    answer = _json(body)
    if answer is None:
        what = "a web page" if _is_page(body) else "something that is not a JSON object"
        raise IssuerRefused(f"{url} answered with {what}; is the URL right?")
    return answer


def _body(response: Any) -> bytes:
    """Read an answer's body, up to the limit."""
    response.fp = io.BufferedReader(_Limited(response.fp))
    body: bytes = response.read(_BODY_LIMIT)
    return body


def _failure(url: str, error: urllib.error.HTTPError, body: bytes) -> IssuerUnavailable | IssuerRefused:
    """The exception for an HTTP status that is no success."""
    location = error.headers.get("Location")
    if 300 <= error.code < 400 and location:
        with contextlib.suppress(ValueError):  # a broken one is shown as it is
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
    if error.code >= 500 or error.code == http.HTTPStatus.TOO_MANY_REQUESTS:
        return IssuerUnavailable(text, _retry_after(error.headers))
    return IssuerRefused(text)


def _retry_after(headers: Message) -> int | None:
    """The seconds of `Retry-After` (RFC 9110 section 10.2.3); a date counts by the issuer's own clock."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    moment = _unix_time(text)
    if moment is None:
        return None
    now = _unix_time(headers.get("Date", ""))
    return max(0, math.ceil(moment - (time.time() if now is None else now)))


def _unix_time(date: str) -> float | None:
    """The Unix time of an HTTP date, None if it is malformed."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # each for some malformed date
        return None


def _no_answer(url: str, error: Exception) -> IssuerUnavailable | IssuerRefused:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return IssuerRefused(
            f"the certificate of {url} is not trusted: {reason.verify_message}; for an authority of your own"
            " set SSL_CERT_FILE to its file"
        )
    if isinstance(reason, ssl.SSLError):
        return IssuerRefused(f"TLS with {url} failed: {reason.reason or reason}")
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
    """The issuer's own message, shortened; texts go before other values, for example numbers."""
    by_name = {name.lower(): said for name, said in answer.items() if said}
    found = [by_name[name] for name in _MESSAGES if name in by_name]
    for said in found:
        if isinstance(said, str):
            return _short(said, quoted=False)
    return _short(found[0]) if found else ""


def _short(value: object, *, quoted: bool = True) -> str:
    text = json.dumps(value, ensure_ascii=False) if quoted else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _Limited(io.RawIOBase):
    """A stream that ends at the limit, whatever size the issuer announces."""

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
    """Follows no redirect: it may lead to a host that the user did not name."""

    def _left(self, *_: Any, **__: Any) -> None:
        return None

    http_error_301 = http_error_302 = http_error_303 = http_error_307 = http_error_308 = _left
