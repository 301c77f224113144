"""Reads codes as people type them, `123 456` or `123-456`. On the client's path: it imports only forms."""

from pki2fad.wire import forms

_RECOVERY = 2 * forms.RECOVERY_HALF + 1  # characters of a recovery code, with the hyphen


def code(text: str) -> str:
    """The code without blanks, a line end, and one hyphen between digits.

    Anything else, several lines too, is kept for the daemon to refuse.
    """
    if len(text.splitlines()) > 1:
        return text
    joined = "".join(text.split())
    before, _, after = joined.partition("-")
    return before + after if is_digits(before) and is_digits(after) else joined


def two_codes(text: str) -> list[str]:
    """The codes in a text: one on each line, or two on one line. May return more or fewer than two."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        words = lines[0].split()
        half = len(words) // 2
        lines = words if len(words) % 2 else [" ".join(words[:half]), " ".join(words[half:])]
    return [code(line) for line in lines]


def behind_password(typed: bytes, digits: int) -> tuple[bytes, str]:
    """Split off the code behind a password: the last `digits` digits, or a recovery code with its hyphen."""
    line = typed.rstrip()
    last = line[-_RECOVERY:].decode("ascii", "replace")
    if "-" in last and forms.is_recovery_code(last):
        return line[:-_RECOVERY], last
    start = len(typed)
    while start and digits:
        start -= 1
        digits -= typed[start : start + 1].isdigit()
    return typed[:start], code(typed[start:].decode("utf-8", "replace"))


def is_digits(text: str) -> bool:
    """True if it has ASCII digits only, at least one."""
    return text.isascii() and text.isdigit()
