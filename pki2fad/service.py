"""The composition root: builds the parts, and carries out start, reload and stop."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any

from pki2fad import __version__, clock, envelope, files, listener, log, memory, paths, seedfiles
from pki2fad.access import OVERFLOW_ID, Access, Peer
from pki2fad.agent import Agent
from pki2fad.clock import Reading
from pki2fad.config import Config
from pki2fad.envelope import MasterKey, PrivateKey
from pki2fad.errors import (
    BadSeal,
    ConfigError,
    Pki2fadError,
    ProtectedKey,
    UnusablePath,
    UnusableState,
)
from pki2fad.keyring import Keyring
from pki2fad.minutelog import MinuteLog
from pki2fad.otp import Parameters
from pki2fad.process import UMASK
from pki2fad.seedfiles import SeedFile
from pki2fad.server import Server
from pki2fad.store import Store
from pki2fad.systemd import Notifier, watchdog_period
from pki2fad.throttle import Throttle
from pki2fad.timekeeper import Timekeeper
from pki2fad.vault import Vault, host_key

# With a new state file, files of seeds.d older than this (seconds) may be of accounts whose codes were
# used under an old state file; younger ones were made just now, for this start.
_SEED_FILE_IS_NEW = 120

# Seconds between two looks for deadlines of successors; they count without it.
_SETTLE_PERIOD = 60.0

_LOOK_FOR_USE = 1.0  # seconds between two looks whether the daemon is idle

# Descriptors that are not counted connections: the state, logs, the loop, those being accepted or refused.
_OTHER_DESCRIPTORS = 160


def check(config: Config) -> None:
    """Raise `ConfigError` if a name in the configuration is not known to this system."""
    _access(config)


def run(config: Config, reload_config: Callable[[], Config], started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads.

    `started` is called with the socket's path when requests are answered. Raises a `Pki2fadError` if the
    start fails; nothing is left behind then.
    """
    if os.geteuid() == OVERFLOW_ID:
        raise ConfigError(
            f"uid {OVERFLOW_ID} may be anybody and never has a role; run pki2fad as another user"
        )
    os.umask(UMASK)
    memory.forbid_dumps()
    with contextlib.ExitStack() as resources:
        files.make_directory(config.state_dir, 0o700)
        _check_state_dir(config.state_dir)
        lock = files.lock(
            os.path.join(config.state_dir, paths.LOCK_FILE),
            f"uses {config.state_dir}; stop it, or name another --state-dir",
        )
        resources.callback(os.close, lock)
        listening = resources.enter_context(listener.listening(config.socket))
        notifier = Notifier()
        resources.callback(notifier.close)
        asyncio.run(_serve(config, reload_config, started, listening, notifier))


async def _serve(
    config: Config,
    reload_config: Callable[[], Config],
    started: Callable[[str], None],
    listening: socket.socket,
    notifier: Notifier,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_failure)
    with contextlib.ExitStack() as resources:
        service: _Service
        stopped = asyncio.Event()
        for number, action in (
            (signal.SIGTERM, stopped.set),
            (signal.SIGINT, stopped.set),
            (signal.SIGHUP, lambda: service.reload()),  # noqa: PLW0108 - it is built below
        ):
            loop.add_signal_handler(number, action)  # carried out when the service is built
            resources.callback(loop.remove_signal_handler, number)
        service = _Service(config, reload_config, notifier, resources)
        await service.start(listening)
        started(listening.getsockname())
        await stopped.wait()
        await service.stop()


class _Service:
    """The parts of a running daemon."""

    def __init__(
        self,
        config: Config,
        reload_config: Callable[[], Config],
        notifier: Notifier,
        resources: contextlib.ExitStack,
    ) -> None:
        self._config = config
        self._reload_config = reload_config
        self._notifier = notifier
        reading = clock.read()
        access = _access(config)
        try:
            private = host_key(config.key)
        except ProtectedKey:
            private = None
            log.warning("locked", reason=f"{config.key} is protected; unlock with: pki2factl unlock")
        _make_log_directories(config)
        store = Store(os.path.join(config.state_dir, paths.STATE_FILE))
        resources.callback(store.close)
        self._store = store
        self._first_seed_files = list(seedfiles.read_all(config.seeds_dir))
        self._keyring = keyring = Keyring()
        self._vault = Vault(
            keyring, store, config.key, make_state=self._make_state, unlocked=self._after_unlock
        )
        resources.callback(self._vault.close)
        watch = store.watch(reading)
        self._timekeeper = Timekeeper(watch, store.keep_watch)
        counted = Reading(store.begin_boot(clock.boot_id(), reading), reading.boot)
        self._throttle = Throttle(store.throttle_secret(), store.throttle_slots(), counted)
        _fill(keyring, store, self._throttle)
        if private is not None:
            self._vault.open(private)
        keyring.floors = store.floors()
        self._agent = Agent(keyring, access, self._throttle, watch, keys=self._vault, started=reading)
        self._agent.file_digests = store.file_digests()
        self._set_throttling(config)
        self._server = Server(self._agent, store.keep, *_caps(config))
        self._minute_log = MinuteLog(self._agent, _own_peer(), config.minute_log.files)
        self._apply(self._first_seed_files)
        until = self._agent.unavailable_until(reading)
        if until is not None:
            log.warning("verify_waits", until=until, reason="codes may have been used that are not on record")

    async def start(self, listening: socket.socket) -> None:
        """Serve, say so, and begin the minute log and the watchdog."""
        await self._server.start(listening)
        self._notifier.ready(self._status())
        self._minute_log.start()
        self._timekeeper.start()
        self._lock_if_idle()
        self._settle()
        period = watchdog_period()
        if period is not None:
            self._ping(period)
        path = listening.getsockname()  # systemd may have passed another than the configured one
        log.info("ready", version=__version__, socket=path, accounts=self._agent.account_count)

    async def stop(self) -> None:
        """Answer what was read, and end."""
        self._notifier.stopping()
        log.info("stopping")
        self._minute_log.stop()
        await self._server.stop()
        self._timekeeper.stop()

    def reload(self) -> None:
        """Build the whole new configuration and swap it in, or keep the old one and say why."""
        self._notifier.reloading()
        trouble = ""
        try:
            try:
                config = self._reload_config()
                access = _access(config)
                _make_log_directories(config)
            except Pki2fadError as error:
                log.error("reload_failed", reason=error)
                trouble = f"; reload failed, the old configuration holds: {error}"
            else:
                self._swap(config, access)
            self._apply_seed_files()
        finally:  # whatever comes, systemd must not wait for the end of the reload for ever
            self._notifier.ready(self._status() + trouble)

    def _swap(self, config: Config, access: Access) -> None:
        for name in ("socket", "state_dir", "key"):
            if getattr(config, name) != getattr(self._config, name):
                log.warning("restart_needed", setting=name)
        self._config = config
        self._agent.access = access
        self._server.max_connections, self._server.max_connections_per_uid = _caps(config)
        self._minute_log.use(config.minute_log.files)
        self._set_throttling(config)
        log.info("reloaded")

    def _set_throttling(self, config: Config) -> None:
        self._throttle.enabled = config.throttle.enabled
        if not config.throttle.enabled:
            log.warning(
                "not_throttled", reason="[throttle] enabled = false: whoever guesses may go on guessing"
            )

    def _make_state(self, private: PrivateKey) -> MasterKey:
        """Let this key open the new state."""
        reading = clock.read()
        modified = [file.modified for file in self._first_seed_files]
        in_use = min(modified, default=reading.wall) < reading.wall - _SEED_FILE_IS_NEW
        master, public = MasterKey(), private.public_key()
        self._store.add_keyslot(
            envelope.fingerprint(public),
            master.wrap(public),
            [Parameters().period] if in_use else [],
            reading.wall,
        )
        self._keyring.floors = self._store.floors()
        return master

    def _after_unlock(self) -> None:
        """What waited for the keys; after the answer, since it changes the state."""
        asyncio.get_running_loop().call_soon(self._apply_seed_files)
        self._notifier.status(self._status())

    def _lock_if_idle(self) -> None:
        """Look every second whether nobody asked anything for as long as the configuration says."""
        asyncio.get_running_loop().call_later(_LOOK_FOR_USE, self._lock_if_idle)
        idle = self._config.lock.idle
        if idle and not self._keyring.locked and self._server.idle_for(clock.read()) >= idle:
            self._agent.lock()
            self._notifier.status(self._status())
            log.info("locked", reason=f"nobody asked anything for {idle} s")

    def _settle(self) -> None:
        """Make permanent what the deadlines of successors did; a failure is no harm, and told."""
        asyncio.get_running_loop().call_later(_SETTLE_PERIOD, self._settle)
        try:
            for edit in self._agent.due(clock.read()):
                self._server.edit(edit)
                log.info("successor_due", account=edit.account)
        except UnusableState as error:
            log.error("state_failed", reason=error)

    def _apply_seed_files(self) -> None:
        self._apply(seedfiles.read_all(self._config.seeds_dir))

    def _apply(self, seed_files: Iterable[SeedFile]) -> None:
        """Load those that are new or have changed; while the keys are locked, none."""
        if self._keyring.locked:
            return
        reading = clock.read()
        for file in seed_files:
            if file.digest == self._agent.file_digests.get(file.account):
                continue
            try:
                self._server.edit(self._agent.provision(file.account, file.sealed, file.digest, reading))
            except (BadSeal, UnusableState) as error:
                log.error("seed_ignored", path=file.path, reason=error)
            else:
                log.info("seed_loaded", path=file.path, account=file.account)

    def _status(self) -> str:
        count = self._agent.account_count
        return f"{count} account{'' if count == 1 else 's'}{', locked' if self._keyring.locked else ''}"

    def _ping(self, period: float) -> None:
        self._notifier.watchdog()
        asyncio.get_running_loop().call_later(period, self._ping, period)


def _access(config: Config) -> Access:
    try:
        return Access(config.access, os.geteuid())
    except ConfigError as error:
        raise ConfigError(f"{config.file}: {error}") from None


def _check_state_dir(path: str) -> None:
    if files.others_may_write(os.stat(path)):
        raise UnusablePath(
            f"{path} must belong to root or to the daemon's user, and nobody else may write it: whoever"
            " can, can put an old state back"
        )


def _fill(keyring: Keyring, store: Store, throttle: Throttle) -> None:
    """Take the accounts from the store."""
    for account in store.accounts():
        account.tally = throttle.as_loaded(account.tally)
        keyring.put(account)
    keyring.gone = store.gone()


def _make_log_directories(config: Config) -> None:
    for path in config.minute_log.files.values():
        files.make_directory(os.path.dirname(path), 0o700)


def _caps(config: Config) -> tuple[int, int]:
    """The caps of the server, lowered where there are not enough descriptors for them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = config.server.max_connections
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - _OTHER_DESCRIPTORS)
    if possible < wanted:
        log.warning("fewer_connections", wanted=wanted, possible=possible, reason="descriptor limit")
        # No uid may take all that there are.
        return possible, min(config.server.max_connections_per_uid, max(1, possible // 2))
    return wanted, config.server.max_connections_per_uid


def _own_peer() -> Peer:
    return Peer(os.getpid(), os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


def _log_loop_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.failure("loop_failed", context.get("exception"), message=context["message"])
