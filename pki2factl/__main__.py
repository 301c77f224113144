"""Where the command begins: `pki2factl`, or `python -m pki2factl`.

`pam` runs for every login, as root, so it starts without the command tree, which takes longer to import.
"""

import sys


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:]
    path, rest = None, arguments
    if arguments[:1] == ["--socket"]:
        path, rest = "".join(arguments[1:2]), arguments[2:]
    elif arguments and arguments[0].startswith("--socket="):
        path, rest = arguments[0].removeprefix("--socket="), arguments[1:]
    if rest[:1] == ["pam"]:
        from pki2factl.commands import pam
        from pki2fad.host import streams

        streams.prepare()
        options = pam.quick_options(rest[1:], path)
        if options is not None:
            return pam.run(options)
    from pki2factl import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
