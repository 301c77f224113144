"""Reads the configuration again and swaps it in as a whole, or keeps the old one and says why."""

import asyncio
from collections.abc import Callable

from pki2fad.daemon import limits
from pki2fad.daemon.background import in_thread
from pki2fad.daemon.config import Config
from pki2fad.errors import Pki2fadError
from pki2fad.host import log
from pki2fad.methods.health import RELOAD, Health
from pki2fad.rules.access import Access

# Settings that only a restart changes.
_FIXED = ("socket", "root_socket", "verify_socket", "state_dir", "key", "key_group")


class Reloading:
    """Reloads the `config` that is in force.

    `load` builds the configuration and its roles, in a thread. `swap` takes both and the caps of the server
    into use. `reloaded` is called at the end, whatever came of it.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], tuple[Config, Access]],
        swap: Callable[[Config, Access, tuple[int, int]], None],
        reloaded: Callable[[], None],
        health: Health,
    ) -> None:
        self._config = config
        self._load = load
        self._swap = swap
        self._reloaded = reloaded
        self._health = health
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def begin(self) -> None:
        """Reload; while a reload is under way, once more after it."""
        self._again = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._again:
                self._again = False
                try:
                    config, access = await in_thread(self._load)  # a name service may be slow
                    caps = limits.connections(config.server)
                except Pki2fadError as error:
                    log.error("reload_failed", audit="refused", reason=error)
                    self._health.failed(RELOAD, error)
                else:
                    self._health.mended(RELOAD)
                    self._use(config, access, caps)
        finally:  # systemd must not wait for the end of the reload for ever
            self._task = None
            self._reloaded()

    def _use(self, config: Config, access: Access, caps: tuple[int, int]) -> None:
        changed = [name for name in Config._fields if getattr(config, name) != getattr(self._config, name)]
        for name in _FIXED:
            if name in changed:
                log.warning("restart_needed", setting=name)
        self._config = config
        self._swap(config, access, caps)
        log.audit("reloaded", audit="reloaded", changed=" ".join(changed) or "nothing")
