"""What is left to be done for a client, and whether its next message is handled."""

import enum


class Stage(enum.IntEnum):
    """What is left to be done for a client."""

    NEW = enum.auto()  # everything; nothing has come from it yet
    OPEN = enum.auto()  # everything
    FINISHED = enum.auto()  # it sends no more: what was read is handled, and answered
    ENDING = enum.auto()  # its answers are written
    CLOSED = enum.auto()  # nothing


class Pace(enum.Enum):
    """Whether the next message is handled."""

    GOING = enum.auto()
    WAITING = enum.auto()  # not before the answer of the last one is there
    LONG = enum.auto()  # not before a long answer, which is outside the pool, was taken


# The same by name: to look them up in their classes would be a tenth of what a short request takes.
NEW, OPEN, FINISHED, ENDING, CLOSED = Stage
GOING, WAITING, LONG = Pace
