"""Every exception of pki2fad, one tree; each class says when it is raised.

There are two families. A `Refusal` is an answer of the daemon: one class for each code of the wire
(PROTOCOL.md), which the client raises again. All others say that there was no answer, or that a command or
the daemon cannot work with its files, keys or settings.

This module is on the client's path: it imports nothing.
"""


class Pki2fadError(Exception):
    """The root of the tree. Its text may be shown to users.

    `code` is for programs. `retry_after` is the number of seconds after which the same request may succeed,
    if that is known.
    """

    code = "failed"
    retry_after: int | None = None


class Refusal(Pki2fadError):
    """The daemon refused the request. `code` is one of the closed set of the wire."""

    code = "internal"

    def __init__(self, message: str = "", retry_after: int | None = None, *, is_answer: bool = False) -> None:
        super().__init__(message or self.code)
        self.retry_after = retry_after
        self.is_answer = is_answer  # it came from the daemon


class BadRequest(Refusal):
    """An argument is missing, unknown, given twice, of the wrong type or out of range."""

    code = "bad_request"


class UnknownMethod(Refusal):
    """The daemon has no method of that name."""

    code = "unknown_method"


class Forbidden(Refusal):
    """The peer, as the kernel attests it, has no role that allows this."""

    code = "forbidden"


class NoSuchAccount(Refusal):
    """No account has that name."""

    code = "no_such_account"


class AccountExists(Refusal):
    """A load found another seed or other parameters under that name, and had no `replace`."""

    code = "account_exists"


class BadSeal(Refusal):
    """A sealed seed did not open to a seed. The text is the same for all cryptographic reasons."""

    code = "bad_seal"


class Throttled(Refusal):
    """There were too many wrong codes. `retry_after` says when to try again."""

    code = "throttled"


class Locked(Refusal):
    """The daemon's key is locked: no seed can be opened."""

    code = "locked"


class Unavailable(Refusal):
    """The daemon cannot answer safely now: its state cannot be written, or its clock is behind."""

    code = "unavailable"


class Internal(Refusal):
    """The daemon failed. Its log says why."""

    code = "internal"


REFUSALS: dict[str, type[Refusal]] = {
    refusal.code: refusal
    for refusal in (
        BadRequest,
        UnknownMethod,
        Forbidden,
        NoSuchAccount,
        AccountExists,
        BadSeal,
        Throttled,
        Locked,
        Unavailable,
        Internal,
    )
}


class NotReachable(Pki2fadError):
    """No daemon answers on the socket. Nothing was sent."""

    code = "not_reachable"


class NobodyListens(NotReachable):
    """There is no socket, or nobody listens on it: no daemon runs."""


class Busy(NotReachable):
    """A daemon listens, but too many other connections wait to be accepted."""


class ConnectionLost(Pki2fadError):
    """The connection ended after a request may have left: nobody knows whether it was carried out."""

    code = "connection_lost"


class TimedOut(ConnectionLost):
    """No answer came in time. The request may still be carried out."""

    code = "timed_out"


class ProtocolError(Pki2fadError):
    """The other side sent something that is not MessagePack-RPC. The connection must be closed.

    `msgid` is that of the request at fault, None if none could be read.
    """

    code = "protocol_error"

    def __init__(self, message: str, msgid: int | None = None) -> None:
        super().__init__(message)
        self.msgid = msgid


class UnusablePath(Pki2fadError):
    """A file or directory cannot be found, made, read or written, or is not safe to use."""

    code = "unusable_path"


class UnusableKey(Pki2fadError):
    """A key file is not what is needed: not PEM, not RSA, too small, protected, readable by others."""

    code = "unusable_key"


class ProtectedKey(UnusableKey):
    """A private key is protected by a passphrase, and none was given."""

    code = "protected_key"


class WrongPassphrase(UnusableKey):
    """The passphrase given does not open a private key."""

    code = "wrong_passphrase"


class UnusableState(Pki2fadError):
    """The state file is damaged, of a newer version, sealed to another key, or cannot be written."""

    code = "unusable_state"


class ConfigError(Pki2fadError):
    """A setting is unknown, of the wrong type or out of range. The text names file and key."""

    code = "config_error"


class UnusableCommit(Pki2fadError):
    """There is no such commit, or it cannot be proved."""

    code = "unusable_commit"


class IssuerUnavailable(Pki2fadError):
    """An issuer cannot be reached, takes too long or fails. The same request may succeed later."""

    code = "issuer_unavailable"

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class IssuerRefused(Pki2fadError):
    """An issuer answered without a sealed seed for this key, or cannot be trusted (TLS)."""

    code = "issuer_refused"


class AlreadyRunning(Pki2fadError):
    """Another daemon holds the state directory or answers on the socket."""

    code = "already_running"


def said(error: Exception) -> str:
    """The text of an error for people. An error of the system gets its file, and loses its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
