"""The service: builds its parts, starts them, swaps their settings and stops them."""

import asyncio
import contextlib
import math
import os
from collections.abc import Callable

from pki2fad import __version__
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.daemon import limits
from pki2fad.daemon.config import Config
from pki2fad.daemon.housekeeping import Housekeeping, log_outcome
from pki2fad.daemon.minutelog import MinuteLog
from pki2fad.daemon.reloading import Reloading
from pki2fad.daemon.seeding import Seeding
from pki2fad.daemon.timekeeper import Timekeeper
from pki2fad.errors import ConfigError, ProtectedKey, Unavailable
from pki2fad.host import files, log, paths
from pki2fad.host.systemd import Notifier
from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.methods.health import STATE, Health
from pki2fad.methods.metrics import LAST_CODE
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer, key_gid
from pki2fad.rules.changes import Answer, Work
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.throttle import Throttle
from pki2fad.server.credentials import CredentialServer
from pki2fad.server.listener import Sockets
from pki2fad.server.server import Server
from pki2fad.state import hostkey, seedfiles
from pki2fad.state.keeping import Keeping
from pki2fad.state.store import Store
from pki2fad.state.vault import Vault
from pki2fad.times import moment


def check(config: Config) -> None:
    """Raise `ConfigError` if a name in the configuration is not known to this system."""
    _named(config, Users())


class Service:
    """The parts of a running daemon. It is made in the loop that serves."""

    def __init__(
        self,
        config: Config,
        reload_config: Callable[[], Config],
        notifier: Notifier,
        resources: contextlib.ExitStack,
    ) -> None:
        reading = clock.read()
        self._notifier = notifier
        self._reload_config = reload_config
        self._users = Users()
        access, key_group = _named(config, self._users)
        self._private, why_locked = _key_or_reason(config, key_group)
        _make_log_directories(config)
        health = Health(log.dropped, log.target)
        store = Store(_state_path(config), health.stored)
        resources.callback(store.close)
        self._ignored: list[str] = []  # of the first seed files
        self._first_seed_files = list(seedfiles.read_all(config.seeds_dir, self._ignored))
        watch = store.watch(reading)
        counted = Reading(store.begin_boot(clock.boot_id(), reading), reading.boot)
        self._throttle = Throttle(
            store.throttle_secret(), store.throttle_slots(), counted, enabled=config.throttle.enabled
        )
        keyring = _keyring(store, self._throttle)
        self._vault = Vault(
            keyring,
            store,
            config.key,
            key_group,
            oldest_seed=min((file.modified for file in self._first_seed_files), default=math.inf),
            unlocked=self._after_unlock,
        )
        resources.callback(self._vault.close)
        self._agent = Agent(
            keyring,
            access,
            self._throttle,
            watch,
            keys=self._vault,
            started=reading,
            health=health,
            file_digests=store.file_digests(),
        )
        keeping = Keeping(store)
        resources.callback(keeping.close)
        self._server = Server(self._agent, keeping.keep, *limits.connections(config.server), store.give_up)
        self._timekeeper = Timekeeper(
            watch,
            self._server.commit.keep,
            is_busy=lambda: self._server.long_work.is_changing,
            is_failing=lambda: health.is_failing(STATE),
        )
        self._credentials = CredentialServer(self._agent.code, config.credential)
        self._housekeeping = Housekeeping(self._agent, self._server, notifier, config.lock.idle, why_locked)
        self._minute_log = MinuteLog(self._agent, _own_peer(), config.minute_log.files)
        self._agent.metrics.use_gauge(LAST_CODE, self._minute_log.last_code)
        self._seeding = Seeding(keyring, self._agent, self._server, config.seeds_dir)
        self._reloading = Reloading(config, self._load, self._swap, self._after_reload, health)
        _warn_unless_throttled(config)

    @property
    def is_locked(self) -> bool:
        """True while no seed can be opened."""
        return self._agent.locked

    async def open(self) -> None:
        """Open the state with the host's key, and apply the seed files. Raises `UnusableState`."""
        await self._server.long_work.carry_out(self._opening())
        until = self._agent.unavailable_until(clock.read())
        if until is not None:
            reason = "codes may have been used that are not on record"
            log.warning("verify_waits", until=moment(until), reason=reason)

    def _opening(self) -> Work:
        private, self._private = self._private, None  # a lock leaves no key in memory
        if private is not None:
            yield from self._vault.open(private)
        limits.check_memory(self._agent.account_count)
        return (yield from self._seeding.apply(self._first_seed_files, self._ignored))

    async def start(self, sockets: Sockets) -> None:
        """Serve, say so, and begin what goes on by itself."""
        for listening in sockets.root:
            self._server.start(listening)
        for listening in sockets.verify:
            self._server.start(listening, verify_only=True)
        for listening in sockets.main:
            self._server.start(listening, for_all=True)
        for listening in sockets.credential:
            self._server.turns.listen(listening, self._credentials.accepted)
        self._timekeeper.start()
        self._minute_log.start()
        self._housekeeping.start()
        path = sockets.main[0].getsockname()  # systemd may have passed another than the configured one
        log.info("ready", version=__version__, socket=path, accounts=self._agent.account_count)

    def reload(self) -> None:
        """Build the whole new configuration and swap it in, or keep the old one and say why."""
        self._notifier.reloading()
        self._reloading.begin()

    async def stop(self) -> None:
        """Answer what was read, and end."""
        self._notifier.stopping()
        log.info("stopping")
        self._reloading.stop()
        self._minute_log.stop()
        await self._credentials.stop()
        await self._server.stop()
        self._timekeeper.stop()

    def _load(self) -> tuple[Config, Access]:
        """The configuration as it is now, and its roles. In a thread: it logs nothing."""
        config = self._reload_config()
        access, _ = _named(config, self._users)
        _make_log_directories(config)
        return config, access

    def _swap(self, config: Config, access: Access, caps: tuple[int, int]) -> None:
        """Use another configuration from now on."""
        self._agent.use(access)
        self._server.admission.use(*caps)
        self._minute_log.use(config.minute_log.files)
        self._credentials.use(config.credential)
        self._housekeeping.use(config.lock.idle)
        self._seeding.use(config.seeds_dir)
        self._throttle.enable(enabled=config.throttle.enabled)
        _warn_unless_throttled(config)

    def _after_reload(self) -> None:
        """Apply the seed files; then the reload is over."""

        def done(outcome: Answer | Exception) -> None:
            log_outcome(outcome)
            if not isinstance(outcome, Unavailable):  # the daemon stops
                self._housekeeping.ready()

        self._seeding.begin(done)

    def _after_unlock(self) -> None:
        """Do what waited for the keys; after the answer, since it changes the state."""
        asyncio.get_running_loop().call_soon(self._seeding.begin, log_outcome)
        self._housekeeping.unlocked()


def _named(config: Config, users: Users) -> tuple[Access, int | None]:
    """The roles, and the gid of `key_group`: what the names in the configuration stand for."""
    try:
        return Access(config.access, os.geteuid(), users), key_gid(config.key_group)
    except ConfigError as error:
        raise ConfigError(f"{config.file}: {error}") from None


def _state_path(config: Config) -> str:
    return os.path.join(config.state_dir, paths.STATE_FILE)


def _key_or_reason(config: Config, key_group: int | None) -> tuple[PrivateKey | None, str]:
    """The host's key, or None and why the daemon starts locked, if there is more to say."""
    try:
        return hostkey.read(config.key, _state_path(config), key_group=key_group), ""
    except ProtectedKey as error:
        log.warning("locked", reason=f"{error}; unlock with: pki2factl unlock")
        if paths.credential(paths.PASSPHRASE):
            return None, f"the credential {paths.PASSPHRASE} does not open the key"
        return None, ""


def _keyring(store: Store, throttle: Throttle) -> Keyring:
    """The accounts of the store; the keys are locked."""
    keyring = Keyring()
    keyring.gone.update(store.gone())
    keyring.ids.update(store.ids())
    keyring.raise_floors(store.floors())
    for account in store.accounts():
        account.count(throttle.as_loaded(account.tally))
        keyring.put(account)
    return keyring


def _make_log_directories(config: Config) -> None:
    for path in config.minute_log.files.values():
        files.make_directory(os.path.dirname(path), 0o700)


def _warn_unless_throttled(config: Config) -> None:
    if not config.throttle.enabled:
        log.warning(
            "not_throttled", reason="[throttle] enabled = false: an attacker can guess without a limit"
        )


def _own_peer() -> Peer:
    return Peer(os.getpid(), os.geteuid(), frozenset((os.getegid(), *os.getgroups())))
