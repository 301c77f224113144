"""Of what a long request changes all is kept, or nothing, whatever comes between its pieces."""

import asyncio

import pytest
from support.agents import OTHER_SEED, SEED, reference_code
from support.bench import TIMEOUT, call, in_loop, receive
from support.longwork import (
    Slow,
    begin_restore,
    requests,
    send_and_wait,
    served,
)
from support.raw import REQUEST

from pki2fad.crypto import masterkey, rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.rules import clock
from pki2fad.rules.changes import Rotation
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import batch


@in_loop
async def test_an_edit_that_comes_between_ends_the_request_and_nothing_of_it_is_made(
    slow: Slow, replacing: bytes, host_key: PrivateKey
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        last = await begin_restore(long, replacing)
        before = {account.name: account.digest for account in slow.site.store.accounts()}
        sealed = sealing.seal_seed(host_key.public_key(), bytearray(OTHER_SEED))
        await send_and_wait(at, long, last)
        other.send([REQUEST, 1, "load", [{"account": "new", "sealed": sealed}]])
        assert (await receive(other, 1))[0][2] is None
        ((_, _, error, _),) = await receive(long, 1)
        assert error == ["unavailable", "unavailable: another change came between; try again", 1]
        after = {account.name: account.digest for account in slow.site.store.accounts()}
        assert after.pop("new")
        assert after == before
        assert before.items() <= {n: one.digest for n, one in slow.site.keyring.accounts.items()}.items()
        peer = await at.connect()
        last = await begin_restore(peer, replacing)
        peer.send(last)
        assert (await receive(peer, 1))[0][2] is None  # tried again it goes through


@in_loop
async def test_a_code_that_is_accepted_meanwhile_stays_spent_with_the_seed_that_is_replaced(
    slow: Slow, replacing: bytes
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        last = await begin_restore(long, replacing)
        old = slow.site.keyring.accounts["user7"]
        step = int(clock.wall() // 30)
        await send_and_wait(at, long, last)
        other.send([REQUEST, 1, "verify", [{"account": "user7", "code": reference_code(SEED, step)}]])
        assert (await receive(other, 1))[0][2:] == [None, {"valid": True}]
        assert (await receive(long, 1))[0][2] is None
    for gone in (slow.site.keyring.gone, slow.site.store.gone()):
        assert gone[old.digest][0] >= step


@in_loop
async def test_a_change_that_cannot_be_kept_leaves_everything_as_it_was(slow: Slow, replacing: bytes) -> None:
    async with served(slow) as at:
        peer = await at.connect()
        last = await begin_restore(peer, replacing)
        slow.site.store.file.database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON accounts WHEN new.name = 'user3999'"
            " BEGIN SELECT raise(ABORT, 'the disk is full'); END"
        )
        before = {name: account.digest for name, account in slow.site.keyring.accounts.items()}
        peer.send(last)
        ((_, _, error, _),) = await receive(peer, 1)
        assert error[0] == "unavailable"
        assert {name: one.digest for name, one in slow.site.keyring.accounts.items()} == before
        assert {account.name: account.digest for account in slow.site.store.accounts()} == before
        code = reference_code(SEED, int(clock.wall() // 30))
        assert await call(peer, "verify", account="user1", code=code) == (None, {"valid": True})


@pytest.mark.parametrize("where", ["while seeds are sealed", "while it is kept"])
@in_loop
async def test_a_lock_during_a_rotation_keeps_the_keys_locked_and_either_key_opens_the_state(
    slow: Slow, host_key: PrivateKey, other_key: PrivateKey, where: str
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        slow.go_on.clear()
        await send_and_wait(at, long, requests("rotate", host_key, other_key))
        if where == "while it is kept":
            assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        other.send([REQUEST, 1, "lock", []])
        assert (await receive(other, 1))[0][3] == {"locked": True}
        slow.go_on.set()
        ((_, _, error, _),) = await receive(long, 1)
        assert (error is None) is (where == "while it is kept")
        assert (await call(other, "generate", account="user1"))[0][0] == "locked"
    site = slow.site
    for key in (host_key,) if error else (host_key, other_key):
        site._key = key
        site.kill()
        assert site.call("generate", account="user1")["code"]


@pytest.mark.parametrize("where", ["while seeds are opened", "while it is kept"])
@in_loop
async def test_a_stop_gives_up_what_is_not_kept_and_nothing_has_changed(
    slow: Slow, replacing: bytes, where: str
) -> None:
    before = {account.name: account.digest for account in slow.site.store.accounts()}
    async with served(slow) as at:
        peer = await at.connect()
        last = await begin_restore(peer, replacing)
        slow.go_on.clear()
        await send_and_wait(at, peer, last)
        if where == "while it is kept":
            assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        reader = asyncio.create_task(asyncio.to_thread(lambda: list(peer.messages())))
        async with asyncio.timeout(TIMEOUT / 2):  # the store would wait for all of it
            await at.server.stop()
        ((_, _, error, _),) = await reader
        assert error == ["unavailable", "unavailable: the daemon stops"]
    slow.site.kill()
    assert {account.name: account.digest for account in slow.site.store.accounts()} == before


@in_loop
async def test_a_client_that_is_gone_does_not_end_what_it_asked_for(slow: Slow, replacing: bytes) -> None:
    async with served(slow) as at:
        gone, other = await at.connect(), await at.connect()
        last = await begin_restore(gone, replacing)
        await send_and_wait(at, gone, last)
        gone.close()
        other.send([REQUEST, 1, "recipients", []])  # waits for its turn behind it
        assert (await receive(other, 1))[0][2] is None
        expected = slow.site.keyring.seal("user5", bytearray(OTHER_SEED), Parameters()).digest
        assert slow.site.keyring.accounts["user5"].digest == expected


@in_loop
async def test_a_request_that_waits_while_the_daemon_is_locked_is_refused(
    slow: Slow, replacing: bytes, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    master = masterkey.MasterKey()
    entries = [batch.Unsealed("new", Parameters(), bytearray(OTHER_SEED))]
    loaded = batch.pack(entries, master.wrap(host_key.public_key()), master)
    async with served(slow) as at:
        long, *waiting = [await at.connect() for _ in range(10)]
        slow.go_on.clear()
        await send_and_wait(at, long, requests("rotate", host_key, other_key))
        assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)  # a lock before refuses it too
        arguments = {
            "recipients": {},
            "rotate_finish": {"fingerprint": rsakeys.fingerprint(host_key.public_key())},
            "load_batch": {"batch": loaded},
            "throttled": {},
        }
        asked = [[REQUEST, 1, name, [each]] for name, each in arguments.items()]
        asked += [
            requests(name, host_key, other_key) for name in ("accounts", "backup", "rotate", "clock_accept")
        ]
        asked.append(await begin_restore(waiting[-1], replacing))
        for peer, request in zip(waiting, asked, strict=True):
            await send_and_wait(at, peer, request)
        assert (await call(await at.connect(), "lock"))[0] is None
        slow.go_on.set()
        assert (await receive(long, 1))[0][2] is None
        for peer in waiting:
            assert (await receive(peer, 1))[0][2][0] == "locked"
        assert slow.kinds == [Rotation]
