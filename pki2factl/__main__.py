"""Where the command begins: `pki2factl`, or `python -m pki2factl`.

`pam` runs for every login, as root: it neither waits until the command tree is there, nor trusts in what the
environment would have an interpreter do.
"""

import os
import sys


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:]
    rest = arguments[2:] if arguments[:1] == ["--socket"] else arguments
    if rest[:1] == ["pam"]:
        if not sys.flags.isolated:
            _isolate(arguments)
        from pki2factl.commands import pam
        from pki2fad import streams

        streams.prepare()
        options = pam.quick_options(rest[1:])
        if options is not None:
            options.socket = arguments[1] if arguments[0] == "--socket" else None
            return pam.run(options)
    from pki2factl import cli

    return cli.main(arguments)


def _isolate(arguments: "list[str]") -> None:
    """Begin again with `python -I` and nothing of the environment but PAM's; before anything is imported.

    It costs the time of another interpreter, so lines of PAM stacks say `python -I` themselves.
    """
    kept = {name: value for name, value in os.environ.items() if name.startswith("PAM_")}
    command = [sys.executable, "-I", "-m", "pki2factl", *arguments]
    try:
        os.execve(sys.executable, command, kept)  # noqa: S606 - no shell
    except OSError as error:
        sys.exit(f"pki2factl: error: cannot start {sys.executable} -I: {error.strerror}")


if __name__ == "__main__":
    sys.exit(main())
