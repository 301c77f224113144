"""The composition root: builds the parts, and carries out start, reload and stop."""

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterable
from typing import Any

from pki2fad import __version__
from pki2fad.crypto import memory, rsakeys
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.daemon import budget
from pki2fad.daemon.background import in_thread
from pki2fad.daemon.config import Config
from pki2fad.daemon.housekeeping import Housekeeping, log_outcome
from pki2fad.daemon.minutelog import MinuteLog
from pki2fad.daemon.timekeeper import Timekeeper
from pki2fad.errors import (
    BadRequest,
    BadSeal,
    ConfigError,
    Pki2fadError,
    ProtectedKey,
    Unavailable,
    UnusablePath,
    UnusableState,
)
from pki2fad.host import files, landlock, locks, log, paths, trust
from pki2fad.host.detach import UMASK
from pki2fad.host.systemd import Notifier
from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.methods.health import RELOAD, SEEDS
from pki2fad.rules import clock
from pki2fad.rules.access import OVERFLOW_ID, Access, Peer, key_gid
from pki2fad.rules.changes import Answer, Work
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import Pieces, finish
from pki2fad.rules.throttle import Throttle
from pki2fad.server import listener
from pki2fad.server.admission import ROOT_RESERVE
from pki2fad.server.credentials import CredentialServer
from pki2fad.server.listener import Sockets
from pki2fad.server.longwork import Done
from pki2fad.server.server import Server
from pki2fad.state import seedfiles
from pki2fad.state.seedfiles import SeedFile
from pki2fad.state.store import Store
from pki2fad.state.vault import Vault, host_key
from pki2fad.times import moment

# With a new state file, files of seeds.d older than this (seconds) may be of accounts whose codes were
# used under an old state file; younger ones were made just now, for this start.
_SEED_FILE_IS_NEW = 120

# Descriptors that are not counted connections: the state, logs, the loop, those being accepted or refused,
# and those that root may open beyond the caps.
_OTHER_DESCRIPTORS = 160 + ROOT_RESERVE

# With fewer connections than this a few clients that leave theirs open would keep all others out.
_LEAST_CONNECTIONS = 128


def check(config: Config) -> None:
    """Raise `ConfigError` if a name in the configuration is not known to this system."""
    _named(config, Users())


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
    if not landlock.forbid_exec():
        log.warning("exec_not_forbidden", reason="the kernel has no Landlock")
    with contextlib.ExitStack() as resources:
        resources.callback(log.flush)
        files.make_directory(config.state_dir, 0o700)
        _check_state_dir(config.state_dir)
        lock = locks.lock(
            os.path.join(config.state_dir, paths.LOCK_FILE),
            f"uses {config.state_dir}; stop it, or name another --state-dir",
        )
        resources.callback(os.close, lock)
        sockets = resources.enter_context(
            listener.listening(config.socket, config.root_socket, config.verify_socket)
        )
        notifier = Notifier()
        resources.callback(notifier.close)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(config, reload_config, started, sockets, notifier))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, which answers faster, where it is installed; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    config: Config,
    reload_config: Callable[[], Config],
    started: Callable[[str], None],
    sockets: Sockets,
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
        with notifier.starting(), memory.uncollected():
            service = _Service(config, reload_config, notifier, resources)
        await service.start(sockets)
        started(sockets.main[0].getsockname())
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
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._notifier = notifier
        why_locked = ""
        reading = clock.read()
        self._users = Users()
        access, key_group = _named(config, self._users)
        state = os.path.join(config.state_dir, paths.STATE_FILE)
        try:
            private = host_key(config.key, state, key_group=key_group)
        except ProtectedKey as error:
            private = None
            if paths.credential(paths.PASSPHRASE):
                why_locked = f"the credential {paths.PASSPHRASE} does not open the key"
            log.warning("locked", reason=f"{error}; unlock with: pki2factl unlock")
        _make_log_directories(config)
        store = Store(state)
        resources.callback(store.close)
        self._store = store
        ignored: list[str] = []
        self._first_seed_files = list(seedfiles.read_all(config.seeds_dir, ignored))
        self._keyring = keyring = Keyring()
        self._vault = Vault(
            keyring,
            store,
            config.key,
            key_group,
            make_state=self._make_state,
            unlocked=self._after_unlock,
        )
        resources.callback(self._vault.close)
        watch = store.watch(reading)
        self._timekeeper = Timekeeper(
            watch, store.keep_watch, is_busy=lambda: self._server.long_work.is_changing
        )
        counted = Reading(store.begin_boot(clock.boot_id(), reading), reading.boot)
        self._throttle = Throttle(store.throttle_secret(), store.throttle_slots(), counted)
        _fill(keyring, store, self._throttle)
        if private is not None:
            self._vault.open(private)
        keyring.raise_floors(store.floors())
        self._agent = Agent(keyring, access, self._throttle, watch, keys=self._vault, started=reading)
        self._agent.file_digests = store.file_digests()
        self._watch_health()
        _check_memory(self._agent.account_count)
        self._set_throttling(config)
        self._server = Server(self._agent, store.keep, *_caps(config), store.give_up)
        self._credentials = CredentialServer(self._agent.code, config.credential)
        self._housekeeping = Housekeeping(self._agent, self._server, notifier, config.lock.idle)
        self._housekeeping.why_locked = why_locked
        self._minute_log = MinuteLog(self._agent, _own_peer(), config.minute_log.files)
        self._agent.metrics.last_code = self._minute_log.last_code
        finish(self._applied(self._first_seed_files, ignored))
        until = self._agent.unavailable_until(reading)
        if until is not None:
            reason = "codes may have been used that are not on record"
            log.warning("verify_waits", until=moment(until), reason=reason)

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

    async def stop(self) -> None:
        """Answer what was read, and end."""
        self._notifier.stopping()
        log.info("stopping")
        if self._reloading is not None:
            self._reloading.cancel()
        self._minute_log.stop()
        await self._credentials.stop()
        await self._server.stop()
        self._timekeeper.stop()

    def reload(self) -> None:
        """Build the whole new configuration and swap it in, or keep the old one and say why."""
        self._notifier.reloading()
        self._reload_again = True
        if self._reloading is None:
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        """Reload, once more for signals that come meanwhile. Names are looked up in a thread."""
        try:
            while self._reload_again:
                self._reload_again = False
                try:
                    config, access = await in_thread(self._build)
                    caps = _caps(config)
                except Pki2fadError as error:
                    log.error("reload_failed", audit="refused", reason=error)
                    self._agent.health.failed(RELOAD, error)
                else:
                    self._agent.health.mended(RELOAD)
                    self._swap(config, access, caps)
        finally:  # whatever comes, systemd must not wait for the end of the reload for ever
            self._reloading = None
            self._apply_seed_files(self._reloaded)

    def _build(self) -> tuple[Config, Access]:
        """The configuration as it is now, and its roles. In a thread: it logs nothing."""
        config = self._reload_config()
        access, _ = _named(config, self._users)
        _make_log_directories(config)
        return config, access

    def _reloaded(self, outcome: Answer | Exception) -> None:
        """The reload is over."""
        log_outcome(outcome)
        if not isinstance(outcome, Unavailable):  # the daemon stops
            self._housekeeping.ready()

    def _swap(self, config: Config, access: Access, caps: tuple[int, int]) -> None:
        for name in ("socket", "root_socket", "verify_socket", "state_dir", "key", "key_group"):
            if getattr(config, name) != getattr(self._config, name):
                log.warning("restart_needed", setting=name)
        changed = [name for name in Config._fields if getattr(config, name) != getattr(self._config, name)]
        self._config = config
        self._agent.access = access
        admission = self._server.admission
        admission.most, admission.most_of_payer = caps
        self._minute_log.use(config.minute_log.files)
        self._credentials.use(config.credential)
        self._housekeeping.idle = config.lock.idle
        self._set_throttling(config)
        log.audit("reloaded", audit="reloaded", changed=" ".join(changed) or "nothing")

    def _watch_health(self) -> None:
        health = self._agent.health
        health.lines_dropped, health.log = log.dropped, log.place
        health.state_failed = self._timekeeper.write_again
        self._store.tell(health.stored)

    def _set_throttling(self, config: Config) -> None:
        self._throttle.enabled = config.throttle.enabled
        if not config.throttle.enabled:
            log.warning(
                "not_throttled", reason="[throttle] enabled = false: an attacker can guess without a limit"
            )

    def _make_state(self, private: PrivateKey) -> MasterKey:
        """Let this key open the new state."""
        reading = clock.read()
        modified = [file.modified for file in self._first_seed_files]
        in_use = min(modified, default=reading.wall) < reading.wall - _SEED_FILE_IS_NEW
        master, public = MasterKey(), private.public_key()
        self._store.add_keyslot(
            rsakeys.fingerprint(public),
            master.wrap(public),
            [Parameters().period] if in_use else [],
            reading.wall,
        )
        self._keyring.raise_floors(self._store.floors())
        return master

    def _after_unlock(self) -> None:
        """What waited for the keys; after the answer, since it changes the state."""
        asyncio.get_running_loop().call_soon(self._apply_seed_files, log_outcome)
        self._housekeeping.why_locked = ""
        self._housekeeping.tell()

    def _apply_seed_files(self, done: Done) -> None:
        def work() -> Work:
            ignored: list[str] = []
            yield from self._applied(seedfiles.read_all(self._config.seeds_dir, ignored), ignored)
            return Answer(quiet=True)

        self._server.long_work.begin(work(), done)

    def _applied(self, seed_files: Iterable[SeedFile], ignored: list[str]) -> Pieces[None]:
        """Load those that are new or have changed; while the keys are locked, none.

        It is a trouble if something is or was `ignored`.
        """
        yield from self._loaded(seed_files, ignored)
        if ignored:
            self._agent.health.failed(SEEDS, ignored[0])
        elif not self._keyring.locked:
            self._agent.health.mended(SEEDS)

    def _loaded(self, seed_files: Iterable[SeedFile], ignored: list[str]) -> Pieces[None]:
        for file in seed_files:
            yield
            if self._keyring.locked:
                return
            reading = clock.read()
            applied = self._agent.file_digests.get(file.account)
            if applied == file.digest:
                continue
            before = self._keyring.accounts.get(file.account)
            try:
                if applied == file.text_digest:
                    self._store.keep_file_digest(file.account, file.digest)
                    self._agent.file_digests[file.account] = file.digest
                    continue
                edit = self._agent.provision(file.account, file.sealed, file.digest, reading)
                self._server.edit(edit)
            except (BadSeal, BadRequest, UnusableState) as error:
                seedfiles.ignore(file.path, file.account, error, ignored)
            else:
                done = "added" if before is None else "unchanged" if edit.put is before else "replaced"
                log.audit("seed_loaded", path=file.path, account=file.account, audit=done)


def _named(config: Config, users: Users) -> tuple[Access, int | None]:
    """The roles, and the gid of `key_group`: what the names in the configuration stand for."""
    try:
        return Access(config.access, os.geteuid(), users), key_gid(config.key_group)
    except ConfigError as error:
        raise ConfigError(f"{config.file}: {error}") from None


def _check_state_dir(path: str) -> None:
    why = trust.objection(os.stat(path))
    if why is not None:
        raise UnusablePath(f"{path} {why}: they could put an old state back")


def _fill(keyring: Keyring, store: Store, throttle: Throttle) -> None:
    """Take the accounts from the store."""
    for account in store.accounts():
        account.tally = throttle.as_loaded(account.tally)
        keyring.put(account)
    keyring.gone.update(store.gone())


def _make_log_directories(config: Config) -> None:
    for path in config.minute_log.files.values():
        files.make_directory(os.path.dirname(path), 0o700)


def _caps(config: Config) -> tuple[int, int]:
    """The caps of the server, lowered where there are not enough descriptors for them.

    Raises `ConfigError` where so few are left that a handful of clients would keep all others out.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted, most_of_uid = config.server.max_connections, config.server.max_connections_per_uid
    possible = wanted if hard == resource.RLIM_INFINITY else hard - _OTHER_DESCRIPTORS
    if possible >= wanted:
        return wanted, most_of_uid
    if possible < _LEAST_CONNECTIONS:
        needed = min(wanted, _LEAST_CONNECTIONS) + _OTHER_DESCRIPTORS
        raise ConfigError(
            f"the limit of descriptors is {hard}, and the daemon needs at least {needed}: raise it with"
            f" LimitNOFILE= of the unit, or ulimit -n"
        )
    log.warning("fewer_connections", wanted=wanted, possible=possible, reason="descriptor limit")
    return possible, min(most_of_uid, possible // 2)  # no uid may take all that there are


def _check_memory(accounts: int) -> None:
    allowed, needed = budget.limit(), budget.needed(accounts)
    if allowed is not None and allowed < needed:
        log.warning(
            "memory_limit",
            allowed=f"{allowed >> 20}M",
            needed=f"{needed >> 20}M",
            reason=f"too little for {accounts} accounts under load: raise MemoryMax= of the unit",
        )


def _own_peer() -> Peer:
    return Peer(os.getpid(), os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


def _log_loop_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.failure("loop_failed", context.get("exception"), message=context["message"])
