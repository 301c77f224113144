"""The process from its start to its end: lock, sockets, loop and signals."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from pki2fad.crypto import memory
from pki2fad.daemon.config import Config
from pki2fad.daemon.service import Service
from pki2fad.errors import ConfigError, UnusablePath
from pki2fad.host import files, landlock, locks, log, paths, trust
from pki2fad.host.detach import UMASK
from pki2fad.host.systemd import Notifier
from pki2fad.rules.access import OVERFLOW_ID
from pki2fad.server import listener
from pki2fad.server.listener import Sockets


def run(config: Config, reload_config: Callable[[], Config], started: Callable[[str, bool], None]) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads.

    `started` is called when requests are answered, with the socket's path and True if the keys are locked.
    Raises a `Pki2fadError` if the start fails; nothing is left behind then.
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
    started: Callable[[str, bool], None],
    sockets: Sockets,
    notifier: Notifier,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_loop_failure)
    with contextlib.ExitStack() as resources:
        running: asyncio.Future[Service] = loop.create_future()
        stopped = asyncio.Event()
        for number, action in (
            (signal.SIGTERM, stopped.set),
            (signal.SIGINT, stopped.set),
            # A reload that is asked for during the start comes after it.
            (signal.SIGHUP, lambda: running.add_done_callback(lambda _: running.result().reload())),
        ):
            loop.add_signal_handler(number, action)
            resources.callback(loop.remove_signal_handler, number)
        with notifier.starting(), memory.uncollected():
            service = Service(config, reload_config, notifier, resources)
            await service.open()
        await service.start(sockets)
        running.set_result(service)
        started(sockets.main[0].getsockname(), service.is_locked)
        await stopped.wait()
        await service.stop()


def _check_state_dir(path: str) -> None:
    why = trust.objection(os.stat(path))
    if why is not None:
        raise UnusablePath(f"{path} {why}: they could put an old state back")


def _log_loop_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.failure("loop_failed", context.get("exception"), message=context["message"])
