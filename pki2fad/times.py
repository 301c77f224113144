"""What people read of times: RFC 3339, local, with its offset; and from when on a clock is behind.

The minute log has a form of its own.
On the client's path.
"""

import time

# A clock that is more seconds behind what it was is reported: slews and the leap of a second are less.
CLOCK_BEHIND = 30


def moment(seconds: float) -> str:
    """A Unix time as text, for example `2026-01-31T12:34:56+01:00`."""
    return "".join(parts(seconds))


def parts(seconds: float) -> tuple[str, str]:
    """The text up to the whole second, and its offset: a fraction goes between them."""
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local), f"{offset[:3]}:{offset[3:]}"
