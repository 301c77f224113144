"""The command line of the daemon."""

import argparse
import functools
import os
import sys
from collections.abc import Sequence

from pki2fad import __version__
from pki2fad.daemon import config, lifetime, service
from pki2fad.daemon.config import Config
from pki2fad.errors import Pki2fadError, said
from pki2fad.host import detach, files, log, paths, sinks, streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; returns the exit status."""
    streams.prepare()
    options = _parser().parse_args(arguments)
    given = {name: path for name, path in vars(options).items() if name in config.PATH_SETTINGS}

    def load() -> Config:
        return config.load(options.config, given)

    starter = None
    try:
        settings = load()
        if options.check_config:
            service.check(settings)
            print("the settings are valid; key and directories were not looked at")
            return 0
        if options.detach:
            files.make_directory(settings.log_dir, 0o700)
            log_path = os.path.join(settings.log_dir, paths.DAEMON_LOG)
            starter = detach.detach(log_path)
            ready = starter.ready
            own_log = f"pki2fad: log {log_path}"
            log.to_file(log_path)
            lifetime.run(settings, load, lambda *how: ready(f"{_started(settings, *how)}\n{own_log}"))
        else:
            log.to_stderr()
            lifetime.run(settings, load, lambda *how: sinks.say(sys.stdout, _started(settings, *how)))
    except KeyboardInterrupt:  # before there was a loop to stop
        return 130
    except (Pki2fadError, OSError) as error:
        if starter is None:
            sinks.say(sys.stderr, f"pki2fad: error: {said(error)}")
        else:
            log.error("start_failed", reason=said(error))
            starter.failed(said(error))
        return 1
    return 0


def _started(settings: Config, socket: str, is_locked: bool) -> str:
    lines = [f"pki2fad: pid {os.getpid()}", f"pki2fad: socket {socket}"]
    lines += [f"pki2fad: minute log {path}" for path in settings.minute_log.files.values()]
    if is_locked:
        lines.append("pki2fad: locked; it answers with codes after: pki2factl unlock")
    return "\n".join(lines)


def _path(text: str) -> str:
    """An absolute path, made now: the working directory changes when detached."""
    if not text:
        raise argparse.ArgumentTypeError("a path is needed, not an empty text")
    return os.path.abspath(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pki2fad",
        description="Hold TOTP seeds, and answer requests for codes and checks.",
        allow_abbrev=False,
        formatter_class=functools.partial(argparse.HelpFormatter, width=streams.columns() - 2),
    )
    parser.add_argument(
        "--config",
        type=_path,
        metavar="FILE",
        help="settings (default: pki2fad.toml in the config directory)",
    )
    parser.add_argument("--config-dir", type=_path, metavar="DIR", help="keys, settings and seeds.d")
    parser.add_argument("--state-dir", type=_path, metavar="DIR", help="accounts and watermarks")
    parser.add_argument(
        "--log-dir", type=_path, metavar="DIR", help="the minute log, and the daemon's log with --detach"
    )
    parser.add_argument("--socket", type=_path, metavar="PATH", help="where to listen")
    parser.add_argument("--key", type=_path, metavar="FILE", help="the host's private key")
    parser.add_argument("--detach", action="store_true", help="go to the background when ready")
    parser.add_argument("--check-config", action="store_true", help="check the settings and exit")
    parser.add_argument("--version", action="version", version=f"pki2fad {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
