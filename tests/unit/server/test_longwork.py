"""Long requests go in pieces, between which others are answered."""

import asyncio

import pytest
from support.agents import SEED, reference_code, unpacked
from support.bench import TIMEOUT, call, in_loop, receive
from support.longwork import (
    MANY,
    STATUS,
    Slow,
    arrives,
    begin_restore,
    is_answered,
    long_requests,
    requests,
    send_and_wait,
    served,
)
from support.raw import REQUEST

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.rules import clock
from pki2fad.rules.changes import ClockEdit, Edits, Rotation


@pytest.mark.parametrize("method", ["accounts", "backup", "rotate", "clock_accept"])
@in_loop
async def test_others_are_answered_before_a_long_request_that_came_first(
    slow: Slow, host_key: PrivateKey, other_key: PrivateKey, method: str
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        long.send(requests(method, host_key, other_key))
        other.send(STATUS)
        await arrives(other)
        assert not is_answered(long)
        ((_, _, error, result),) = await receive(long, 1)
        assert error is None
        assert result


@in_loop
async def test_others_are_answered_before_a_restore_that_came_first(slow: Slow, replacing: bytes) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        last = await begin_restore(long, replacing)
        await send_and_wait(at, long, last)
        other.send(STATUS)
        await arrives(other)
        assert not is_answered(long)
        ((_, _, error, result),) = await receive(long, 1)
        assert error is None
        assert len(result["changed"]) == MANY
    assert {account.digest for account in slow.site.store.accounts()} == {
        account.digest for account in slow.site.keyring.accounts.values()
    }


@in_loop
async def test_what_comes_behind_a_long_request_on_its_connection_waits_for_it(slow: Slow) -> None:
    async with served(slow) as at:
        peer = await at.connect()
        peer.send([REQUEST, 1, "accounts", []], STATUS, [REQUEST, 8, "accounts", []])
        answers = await receive(peer, 3)
        assert [msgid for _, msgid, _, _ in answers] == [1, 7, 8]
        assert len(answers[0][3]) == len(answers[2][3]) == MANY


@in_loop
async def test_long_requests_of_several_clients_are_carried_out_one_after_the_other(
    slow: Slow, replacing: bytes, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    async with served(slow) as at:
        first, second, third = [await at.connect() for _ in range(3)]
        last = await begin_restore(first, replacing)
        slow.go_on.clear()
        await send_and_wait(at, first, last)
        await send_and_wait(at, second, requests("rotate", host_key, other_key))
        await send_and_wait(at, third, requests("clock_accept", host_key, other_key))
        assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        assert slow.kinds == [Edits]
        assert long_requests(at) == 3
        slow.go_on.set()
        for peer in (first, second, third):
            ((_, _, error, _),) = await receive(peer, 1)
            assert error is None
        assert slow.kinds == [Edits, Rotation, ClockEdit]


@in_loop
async def test_while_the_store_is_in_use_others_are_answered_and_what_has_to_be_kept_waits(
    slow: Slow, replacing: bytes, host_key: PrivateKey
) -> None:
    sealed = sealing.seal_seed(host_key.public_key(), bytearray(SEED))
    async with served(slow) as at:
        long, other, waiting = [await at.connect() for _ in range(3)]
        assert (await call(other, "load", account="apart", sealed=sealed))[0] is None
        last = await begin_restore(long, replacing)
        slow.go_on.clear()
        long.send(last)
        assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        step = int(clock.wall() // 30)
        waiting.send([REQUEST, 1, "verify", [{"account": "apart", "code": reference_code(SEED, step)}]])
        assert (await call(other, "generate", account="user1"))[0] is None
        error, _ = await call(other, "verify", account="user1", code=reference_code(SEED, step))
        assert error == ["unavailable", "unavailable: the account is being changed; try again", 1]
        error, _ = await call(other, "remove", account="user1")
        assert error == ["unavailable", "unavailable: many accounts are being changed; try again", 1]
        assert not is_answered(waiting)
        assert not is_answered(long)
        slow.go_on.set()
        assert (await receive(waiting, 1))[0][3] == {"valid": True}
        assert (await receive(long, 1))[0][2] is None
        kept = {account.name: account.last_step for account in slow.site.store.accounts()}
        assert kept["apart"] >= step


@in_loop
async def test_a_client_that_reads_slowly_gets_all_of_a_long_answer(slow: Slow, host_key: PrivateKey) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        to = rsakeys.public_pem(host_key.public_key())
        long.send([REQUEST, 1, "backup", [{"to": to}]], STATUS)
        await arrives(long)
        assert (await call(other, "status"))[0] is None  # the long one is on its way meanwhile
        (_, _, error, result), (_, msgid, _, _) = await receive(long, 2)
        assert error is None
        assert msgid == 7
    assert (
        len(unpacked(result["backup"], slow.site.agent._admin._keys.open_backup(result["backup"])).records)
        == MANY
    )


@in_loop
async def test_a_long_answer_to_a_connection_that_was_closed_keeps_no_other_from_leaving(slow: Slow) -> None:
    async with served(slow) as at:
        long = await at.connect()
        await send_and_wait(at, long, [REQUEST, 1, "accounts", []])
        at.connection.close()
        error, accounts = await call(await at.connect(), "accounts")
        assert error is None
        assert len(accounts) == MANY
