"""The documents that users read: the examples in them, run as a user would, and what they say is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.daemon import environment

CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
GUIDE = CHECKOUT / "pki2factl" / "GUIDE.md"
MANUAL = CHECKOUT / "systemd" / "README.md"
PROTOCOL = CHECKOUT / "pki2fad" / "PROTOCOL.md"

# What differs from run to run: an ellipsis, a time, and numbers with so many digits.
_VARIABLE = re.compile(r"(…|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+]\d\d:\d\d|\d{4,})")


def block(document: Path, label: str) -> str:
    """The fenced block behind a comment `<!-- label -->`."""
    found = re.search(rf"<!-- {label} -->\n```\w+\n(.*?)```", document.read_text(), re.DOTALL)
    assert found is not None, label
    return found[1]


def run(
    script: str,
    where: Path,
    path: Path | None = None,
    command: list[str] | None = None,
    *,
    stderr: int = subprocess.PIPE,
) -> str:
    """Run it as a user would, with the daemon at `path`; what it prints on standard output."""
    env = environment(where, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    env["PYTHONUNBUFFERED"] = "1"  # for results and hints to come in their order, as on a terminal
    if path is not None:
        env["PKI2FAD_SOCKET"] = str(path)
    done = subprocess.run(
        [*(command or []), "bash", "-euo", "pipefail", "-c", script],
        cwd=where,
        env=env,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def seen(script: str, where: Path, path: Path) -> str:
    """Run it as `run` does; what a user sees, so hints and errors too."""
    return run(script, where, path, stderr=subprocess.STDOUT)


def assert_shown(document: Path, label: str, printed: str) -> None:
    """Fail unless the document shows this under `shown: label`, but for what differs from run to run."""
    shown = block(document, f"shown: {label}")
    pattern = "".join(_line(line) for line in shown.splitlines())
    assert re.fullmatch(pattern, printed), f"the document shows\n{shown}and this is printed:\n{printed}"


def assert_among(document: Path, label: str, printed: str) -> None:
    """Fail unless each line under `shown: label` is the beginning of a line of this."""
    for line in block(document, f"shown: {label}").splitlines():
        assert re.search(f"^{_words(line)}", printed, re.MULTILINE), line


def _line(line: str) -> str:
    return r"(?:.*\n)*" if line == "…" else f"{_words(line)}\n"


def _words(line: str) -> str:
    parts = _VARIABLE.split(line)
    return "".join(_any(part) if _VARIABLE.fullmatch(part) else re.escape(part) for part in parts)


def _any(part: str) -> str:
    return ".*" if part == "…" else re.escape(re.sub(r"\d", "0", part)).replace("0", r"\d")
