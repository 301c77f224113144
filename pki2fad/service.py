"""The composition root: builds the parts, and carries out start, reload and stop."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterable
from typing import Any

from pki2fad import __version__, clock, envelope, files, listener, log, memory, paths, seedfiles
from pki2fad.access import OVERFLOW_ID, Access, Peer
from pki2fad.agent import Agent
from pki2fad.config import Config
from pki2fad.envelope import MasterKey, PrivateKey
from pki2fad.errors import (
    BadSeal,
    ConfigError,
    Pki2fadError,
    UnusableKey,
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

# With a new state file, files of seeds.d older than this (seconds) may be of accounts whose codes were
# used under an old state file; younger ones were made just now, for this start.
_SEED_FILE_IS_NEW = 120

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
        private = _host_key(config.key)
        _make_log_directories(config)
        store = Store(os.path.join(config.state_dir, paths.STATE_FILE))
        resources.callback(store.close)
        seed_files = list(seedfiles.read_all(config.seeds_dir))
        master = _master_key(store, private, config, seed_files, reading)
        resources.callback(master.close)
        if not master.locked:
            log.warning("not_locked", reason="no memory could be locked; the master key may be swapped")
        keyring = Keyring(master)
        _fill(keyring, store, config)
        keyring.floors = store.begin_boot(clock.boot_id(), reading.wall)
        self._agent = Agent(keyring, access, lambda sealed: envelope.open_seed(private, sealed), reading)
        self._agent.file_digests = store.file_digests()
        self._server = Server(self._agent, store.keep, *_caps(config))
        self._minute_log = MinuteLog(self._agent, _own_peer(), config.minute_log.files)
        self._apply(seed_files, reading)
        until = self._agent.unavailable_until(reading)
        if until is not None:
            log.warning("verify_waits", until=until, reason="codes may have been used that are not on record")

    async def start(self, listening: socket.socket) -> None:
        """Serve, say so, and begin the minute log and the watchdog."""
        await self._server.start(listening)
        self._notifier.ready(self._status())
        self._minute_log.start()
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
            self._apply(seedfiles.read_all(self._config.seeds_dir), clock.read())
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
        log.info("reloaded")

    def _apply(self, seed_files: Iterable[SeedFile], reading: clock.Reading) -> None:
        """Load those that are new or have changed."""
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
        return f"{count} account{'' if count == 1 else 's'}"

    def _ping(self, period: float) -> None:
        self._notifier.watchdog()
        asyncio.get_running_loop().call_later(period, self._ping, period)


def _access(config: Config) -> Access:
    try:
        return Access(config.access, os.geteuid())
    except ConfigError as error:
        raise ConfigError(f"{config.file}: {error}") from None


def _host_key(path: str) -> PrivateKey:
    """The host's private key, from a file that only its owner can read. Raises `UnusableKey`."""
    if not os.path.lexists(path):
        raise UnusableKey(f"there is no key {path}; make one with: pki2factl init")
    pem, status = files.read_with_status(path)
    passed = paths.credential(os.path.basename(path)) == path
    if not passed and status.st_mode & 0o077:
        raise UnusableKey(
            f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); mend it with:"
            f" chmod 600 {path}"
        )
    if not passed and status.st_uid not in (0, os.geteuid()):
        raise UnusableKey(f"{path} belongs to uid {status.st_uid}, neither to root nor to the daemon's user")
    return envelope.load_private(pem, path)


def _check_state_dir(path: str) -> None:
    if files.others_may_write(os.stat(path)):
        raise UnusablePath(
            f"{path} must belong to root or to the daemon's user, and nobody else may write it: whoever"
            " can, can put an old state back"
        )


def _master_key(
    store: Store,
    private: PrivateKey,
    config: Config,
    seed_files: list[SeedFile],
    reading: clock.Reading,
) -> MasterKey:
    """The key of the state, which is made with a new state."""
    public = private.public_key()
    fingerprint = envelope.fingerprint(public)
    slots = store.keyslots()
    if not slots:
        master = MasterKey()
        in_use = any(file.modified < reading.wall - _SEED_FILE_IS_NEW for file in seed_files)
        distrusted = [Parameters().period] if in_use else []
        store.add_keyslot(fingerprint, master.wrap(public), distrusted, reading.wall)
        return master
    try:
        return MasterKey.unwrap(private, slots[fingerprint])
    except (KeyError, UnusableKey):
        raise UnusableState(
            f"the state in {config.state_dir} is sealed to another key: {', '.join(slots)}; {config.key}"
            f" is {fingerprint}. It was left as it is"
        ) from None


def _fill(keyring: Keyring, store: Store, config: Config) -> None:
    """Take the accounts from the store; one that was changed from outside stops the start."""
    for account in store.accounts():
        try:
            keyring.check(account)
        except BadSeal as error:
            raise UnusableState(
                f"the state in {config.state_dir} is damaged: account {account.name!r}: {error}"
            ) from None
        keyring.accounts[account.name] = account
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
