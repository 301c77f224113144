"""What came from one client and is not handled yet."""

from pki2fad.wire import messages
from pki2fad.wire.build import Message
from pki2fad.wire.decoder import Decoder

# Bytes that a request takes that was found and waits for its turn, with what is in it.
_FOUND_SIZE = 1024


class Inbox:
    """The messages of one client: those that were found, and the bytes in which others may be."""

    __slots__ = ("_decoder", "_found", "has_more")

    def __init__(self) -> None:
        self.has_more = False  # `next` may find some
        self._decoder = Decoder(messages.REQUEST, messages.REQUEST_LIMIT)
        self._found: list[Message] = []  # the last first

    def __bool__(self) -> bool:
        return bool(self._found) or self._decoder.partial

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        return self._decoder.held + _FOUND_SIZE * len(self._found)

    @property
    def waits_for(self) -> int | None:
        """The number of the message whose rest is waited for; None if there is no half one."""
        return self._decoder.count if self._decoder.partial and not self.has_more else None

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        self.has_more = True
        self._decoder.feed(data)

    def next(self) -> Message | None:
        """The next message; None until more is fed. Raises `ProtocolError`."""
        if not self._found:
            self._found = self._decoder.some()
            if not self._found:
                self.has_more = False
                return None
            self._found.reverse()
        message = self._found.pop()
        if not self._found and not self._decoder.partial:
            self.has_more = False
        return message

    def drop(self) -> None:
        """Find no more."""
        self.has_more = False
        self._found.clear()
