"""How a time is written everywhere but in the minute log: RFC 3339, local, with its offset.

On the client's path.
"""

import time


def moment(seconds: float) -> str:
    """A Unix time as text, for example `2026-01-31T12:34:56+01:00`."""
    return "".join(parts(seconds))


def parts(seconds: float) -> tuple[str, str]:
    """The text up to the whole second, and its offset: a fraction goes between them."""
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local), f"{offset[:3]}:{offset[3:]}"
