"""What came from one client and is not handled yet."""

from pki2fad.wire import messages
from pki2fad.wire.build import Message
from pki2fad.wire.decoder import Decoder

# Bytes that a request takes that was found and waits for its turn, with what is in it.
_FOUND_SIZE = 1024


class Inbox:
    """The messages of one client: those that were found, and the bytes in which others may be."""

    __slots__ = ("_decoder", "_found", "has_more", "holds_some")

    def __init__(self) -> None:
        self.has_more = False  # `some` may find some
        self.holds_some = False  # there are messages, or bytes of one
        self._decoder = Decoder(messages.REQUEST, messages.REQUEST_LIMIT)
        self._found: list[Message] = []  # that were put back

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        return self._decoder.held + _FOUND_SIZE * len(self._found)

    @property
    def waits_for(self) -> int | None:
        """The number of the message whose rest is waited for; None if there is no half one."""
        return self._decoder.count if self._decoder.partial and not self.has_more else None

    def some(self, data: bytes = b"") -> list[Message]:
        """The next messages, a few at most; none until more is read. Raises `ProtocolError`.

        `data` are what was read, if `has_more` is false.
        """
        if self._found:
            found, self._found = self._found, []
        else:
            found = self._decoder.some(data)
        self.holds_some = self._decoder.partial
        self.has_more = self.holds_some and bool(found)
        return found

    def put_back(self, messages: list[Message]) -> None:
        """Give these next."""
        self._found = messages
        self.has_more = self.holds_some = True

    def drop(self) -> None:
        """Find no more."""
        self.has_more = False
        self._found.clear()
        self.holds_some = self._decoder.partial
