"""Whose turn it is: root's first, then each payer's by the time that was measured."""

import select
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from support.bench import in_loop

from pki2fad.rules.clock import Reading
from pki2fad.server.payer import QUANTUM, ROOT, STRANGERS, Payer, PayerKey
from pki2fad.server.turns import TURN, Turns

ONE, OTHER = PayerKey(4001, verify_only=False), PayerKey(4002, verify_only=False)


class Busy:
    """A connection that always has something to be done, which takes so long."""

    def __init__(self, at: "Table", payer: Payer, seconds: float, most: int = 1_000_000) -> None:
        self.payer = payer
        self.left = most
        self._at = at
        self._seconds = seconds
        ours, self._theirs = socket.socketpair()
        self._ours = at.open.enter_context(ours)
        at.open.enter_context(self._theirs)
        self.descriptor = ours.fileno()
        self.happened = 0

    def has_happened(self, events: int) -> bool:
        self.happened += 1
        return bool(events & select.EPOLLIN)

    def serve(self, _reading: Reading, _end: float) -> bool:
        self.left -= 1
        self._at.served.append(self.payer.key)
        self._at.now += self._seconds
        return self.left > 0

    def send(self) -> None:
        self._theirs.send(b"x")

    def answer(self) -> None:
        """Send something that the client takes."""
        self._ours.send(b"x")
        self._theirs.recv(1)


class Table:
    """Turns that are taken by hand."""

    def __init__(self) -> None:
        self.served: list[PayerKey | str] = []
        self.open = ExitStack()
        self.now = 1000.0
        self.turns = Turns(lambda: self.served.append("flush"), now=lambda: self.now)

    def busy(self, key: PayerKey, seconds: float, most: int = 1_000_000, payer: Payer | None = None) -> Busy:
        connection = Busy(self, payer or Payer(key), seconds, most)
        self.turns.add(connection)  # type: ignore[arg-type]
        self.turns.queue(connection)  # type: ignore[arg-type]
        return connection

    def take(self, count: int) -> list[PayerKey]:
        """The payers that are served in `count` turns."""
        self.served.clear()
        for _ in range(count):
            self.turns.turn()
        return [key for key in self.served if isinstance(key, PayerKey)]


@asynccontextmanager
async def table() -> AsyncIterator[Table]:
    made = Table()
    with made.open:
        yield made
        made.turns.close()


@in_loop
async def test_root_is_served_before_all_others() -> None:
    async with table() as at:
        for key in (STRANGERS, ONE, OTHER):
            at.busy(key, QUANTUM)
        root = at.busy(ROOT, QUANTUM / 10, most=3)
        assert at.take(1)[:3] == [ROOT] * 3
        assert root.left == 0


@in_loop
async def test_roots_answers_leave_before_another_is_served() -> None:
    async with table() as at:
        at.busy(ONE, QUANTUM / 10)
        at.busy(ROOT, 0, most=1)
        at.take(1)
        assert at.served[:3] == [ROOT, "flush", ONE]


@in_loop
async def test_nobodys_answers_wait_for_strangers() -> None:
    async with table() as at:
        at.busy(ONE, 0, most=1)
        at.busy(STRANGERS, QUANTUM / 10)
        at.take(1)
        assert at.served[:3] == [ONE, "flush", STRANGERS]


@in_loop
async def test_payers_get_the_same_time_and_not_the_same_number() -> None:
    async with table() as at:
        at.busy(ONE, QUANTUM / 20)
        at.busy(OTHER, QUANTUM * 2)
        served = at.take(100)
        cheap, dear = served.count(ONE), served.count(OTHER)
        assert 38 <= cheap / dear <= 42


@in_loop
async def test_all_connections_of_a_payer_have_the_time_of_one() -> None:
    async with table() as at:
        many = Payer(STRANGERS)
        for _ in range(50):
            at.busy(STRANGERS, QUANTUM / 5, payer=many)
        at.busy(ONE, QUANTUM / 5)
        served = at.take(100)
        assert served.count(ONE) >= 0.9 * served.count(STRANGERS)


@in_loop
async def test_a_payer_in_debt_is_not_served_until_its_debt_is_worked_off() -> None:
    async with table() as at:
        debtor = at.busy(ONE, 0)
        debtor.payer.credit = -100 * QUANTUM
        at.busy(OTHER, QUANTUM)
        served = at.take(40)
        assert 95 <= served.index(ONE) <= 101  # a quantum for each round of the other


@in_loop
async def test_who_is_alone_works_off_a_debt_at_once() -> None:
    async with table() as at:
        debtor = at.busy(ONE, QUANTUM / 10, most=1)
        debtor.payer.credit = -5 * QUANTUM
        assert at.take(1) == [ONE]


@in_loop
async def test_time_that_was_not_needed_is_not_saved() -> None:
    async with table() as at:
        idle = at.busy(ONE, 0, most=1)
        at.take(10)
        assert idle.payer.credit <= QUANTUM
        assert not idle.payer.ready


@in_loop
async def test_one_who_comes_in_the_middle_of_a_turn_is_served_in_it() -> None:
    async with table() as at:
        late = Busy(at, Payer(ROOT), 0, most=1)
        at.turns.add(late)  # type: ignore[arg-type]
        at.take(1)

        class Telling(Busy):
            def serve(self, reading: Reading, end: float) -> bool:
                if not at.served:
                    late.send()
                return super().serve(reading, end)

        telling = Telling(at, Payer(ONE), 0)
        at.turns.add(telling)  # type: ignore[arg-type]
        at.turns.queue(telling)  # type: ignore[arg-type]
        assert ROOT in at.take(1)


@in_loop
async def test_a_turn_ends_for_the_other_work_of_the_loop() -> None:
    async with table() as at:
        at.busy(ONE, QUANTUM)
        assert len(at.take(1)) == TURN / QUANTUM


@in_loop
async def test_what_is_ready_is_said_once_however_long_a_payer_waits() -> None:
    async with table() as at:
        sender = Busy(at, Payer(ONE), 0)
        at.turns.add(sender)  # type: ignore[arg-type]
        at.take(1)
        sender.happened = 0
        sender.payer.credit = -1.0
        sender.send()
        at.busy(OTHER, QUANTUM)
        at.take(20)
        assert sender.happened == 1


@in_loop
async def test_a_client_that_takes_an_answer_wakes_nobody_unless_room_is_waited_for() -> None:
    async with table() as at:
        taker = Busy(at, Payer(ONE), 0)
        at.turns.add(taker)  # type: ignore[arg-type]
        for room in (False, True, False):
            at.turns.watch(taker, room=room)  # type: ignore[arg-type]
            at.take(1)
            taker.happened = 0
            taker.answer()
            at.take(1)
            assert taker.happened == room
