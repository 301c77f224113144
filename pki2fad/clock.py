"""One look at the clocks, and the name of this boot.

Below the server and the minute log nothing reads a clock: a `Reading` is passed in.
"""

import os
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks at one moment, in seconds."""

    wall: float  # Unix time, as RFC 6238 counts it
    boot: float  # CLOCK_BOOTTIME: nobody sets it, and it goes on in suspend


def read() -> Reading:
    """Look at the clocks now."""
    return Reading(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


def boot_id() -> str | None:
    """What the kernel calls this boot, or None where it cannot be read.

    `$PKI2FAD_BOOT_ID` goes before: a test cannot reboot, and a container shares its host's.
    """
    given = os.environ.get("PKI2FAD_BOOT_ID")
    if given:
        return given
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except OSError:
        return None
