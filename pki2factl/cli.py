"""The command tree: arguments to a command, its exceptions to messages and exit codes."""

import argparse
import functools
import importlib
import sys

from pki2factl import ui
from pki2fad import __version__
from pki2fad.errors import Pki2fadError, Refusal, said
from pki2fad.host import streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any, NoReturn

# By group, as `--help` lists them. Each is a module in `commands` with HELP, add_arguments(parser) and
# run(options) -> exit code.
GROUPS = {
    "codes": ("generate", "verify", "pam"),
    "accounts": (
        "accounts",
        "load",
        "load-batch",
        "remove",
        "enroll",
        "recovery",
        "resync",
        "throttled",
        "unthrottle",
        "backup",
        "restore",
        "migrate",
    ),
    "keys and seeds": (
        "init",
        "keygen",
        "seal",
        "seal-batch",
        "request-seed",
        "rotate-key",
        "recipients",
        "credential",
    ),
    "the daemon": ("status", "metrics", "log", "lock", "unlock", "clock"),
    "proofs": ("proof",),
}
COMMANDS = tuple(name for names in GROUPS.values() for name in names)


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run one command; returns the exit status."""
    streams.prepare()
    if arguments is None:
        arguments = sys.argv[1:]
    options = argparse.Namespace()
    try:
        try:
            if not arguments:
                _parser(arguments).print_help(sys.stderr)
                return ui.USAGE
            _parser(arguments).parse_args(arguments, options)
            status: int = options.run(options)
        finally:
            ui.flush()  # here, where a full disk still is an error of this command
    except KeyboardInterrupt:
        ui.end_line()
        return 130
    except BrokenPipeError:
        streams.abandon()
        return ui.FAILED
    except _WrongUsage as wrong:
        wrong.explain()
        status, failure = ui.USAGE, ui.failure("usage", str(wrong))
    except (Pki2fadError, OSError) as error:
        _explain(error, options)
        status, failure = ui.exit_code(error), _failure(error)
    except Exception as error:  # a bug: its text may hold anything, so it is not shown
        message = f"internal error ({type(error).__name__}); please report it"
        ui.error(message)
        status, failure = ui.FAILED, ui.failure("internal", message)
    else:
        return status
    _print(failure | getattr(options, "kept", {}), as_json=_wants_json(arguments))
    return status


def _wants_json(arguments: "Sequence[str]") -> bool:
    """True if `--json` is given, in a wrong command line too (no option takes it as a value)."""
    ends = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:ends]


def _print(failure: "dict[str, Any]", *, as_json: bool) -> None:
    """Print a failure as JSON if that is asked for, unless stdout is what failed."""
    try:
        ui.result("", failure if as_json else None, as_json=as_json)
        ui.flush()
    except OSError:
        streams.abandon()


def _failure(error: Pki2fadError | OSError) -> "dict[str, Any]":
    if isinstance(error, OSError):
        return ui.failure("input_output", said(error))
    return ui.failure(error.code, str(error), error.retry_after)


def _explain(error: Exception, options: argparse.Namespace) -> None:
    from pki2factl import hints  # only here: commands that succeed do not pay for it

    code = f"{error.code}: " if isinstance(error, Refusal) and error.is_answer else ""
    ui.error(f"{code}{said(error)}")
    hint = hints.after(error, options)
    if hint is not None:
        ui.hint(hint)


class _WrongUsage(Exception):
    """The arguments are wrong; the text says how."""

    def __init__(self, message: str, parser: argparse.ArgumentParser) -> None:
        super().__init__(message)
        self._parser = parser

    def explain(self) -> None:
        """Print usage and error on stderr, as argparse does."""
        self._parser.print_usage(sys.stderr)
        print(f"{self._parser.prog}: error: {self}", file=sys.stderr)


class _ArgumentParser(argparse.ArgumentParser):
    """Raises `_WrongUsage` where argparse would end the process; the parsers of commands do so too."""

    def error(self, message: str) -> "NoReturn":
        raise _WrongUsage(message, self)

    def _check_value(self, action: argparse.Action, value: "Any") -> None:
        """Suggest the nearest command for one that does not exist, instead of listing them all."""
        if isinstance(action.choices, dict) and value not in action.choices:  # of commands
            import difflib

            nearest = difflib.get_close_matches(value, action.choices, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"see {self.prog} --help"
            self.error(f"there is no command {value!r}; {hint}")
        super()._check_value(action, value)

    def parse_known_args(  # type: ignore[override]
        self, args: "Sequence[str] | None" = None, namespace: "Any" = None
    ) -> "tuple[Any, list[str]]":
        """Raise `_WrongUsage` in the command that does not know an argument, with its own usage."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return known, unknown

    def _meant(self, unknown: "list[str]") -> str:
        """The nearest option to the first unknown one, for people."""
        import difflib

        for argument in unknown:
            if argument.startswith("--"):
                option = argument.partition("=")[0]
                nearest = difflib.get_close_matches(option, self._option_string_actions, 1)
                return f"; did you mean {nearest[0]!r}?" if nearest else ""
        return ""


class _CommandParser(_ArgumentParser):
    """The parser of `pki2factl` itself, whose help lists the commands by group."""

    def format_help(self) -> str:
        """Lay out the help as argparse does, but with the commands in their groups."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        sections = {
            title: [argparse.Action([], name, help=_module(name).HELP) for name in names]
            for title, names in GROUPS.items()
        }
        sections["options"] = [action for action in self._actions if action.option_strings]
        for title, actions in sections.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def _parser(arguments: "Sequence[str]") -> argparse.ArgumentParser:
    # 2 less than the terminal has, as argparse does
    formatter = functools.partial(argparse.HelpFormatter, width=streams.columns() - 2)
    parser = _CommandParser(
        prog="pki2factl",
        description="Manage accounts and keys, and ask pki2fad for codes and checks.",
        epilog="exit codes: 0 done or valid, 1 invalid code or proof, 2 wrong usage, 3 daemon not reachable,"
        " 4 forbidden, 5 try later (throttled, unavailable, locked, or the issuer does not answer),"
        " 6 any other refusal, 7 internal or input/output error",
        allow_abbrev=False,
        formatter_class=formatter,
    )
    parser.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--version", action="version", version=f"pki2factl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_ArgumentParser)
    for name in _named(arguments) or COMMANDS:  # the others need not be imported when one is named
        module = _module(name)
        text: str = module.HELP
        command = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, formatter_class=formatter
        )
        command.add_argument(
            "--socket", metavar="PATH", default=argparse.SUPPRESS, help="the daemon's socket"
        )
        command.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON"
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _module(name: str) -> "ModuleType":
    return importlib.import_module(f"pki2factl.commands.{name.replace('-', '_')}")


def _named(arguments: "Sequence[str]") -> "list[str]":
    """The command, if it is clear before the arguments are parsed."""
    rest = list(arguments[2:] if arguments[:1] == ["--socket"] else arguments)
    return [name for name in rest[:1] if name in COMMANDS]
