"""What each module imports: little on the client's path, one user of each package, one direction."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import msgpack
import pytest

import pki2factl
import pki2fad

# What would make the client slow, or a client need the daemon's packages.
HEAVY = {
    "asyncio",
    "cryptography",
    "daemon",
    "dataclasses",
    "logging",
    "pathlib",
    "pyotp",
    "sqlite3",
    "typing",
}

CLIENTS_PATH = (
    "pki2fad.arguments",
    "pki2fad.errors",
    "pki2fad.logline",
    "pki2fad.times",
    "pki2fad.wire",
    "pki2fad.calls",
    "pki2fad.client",
    "pki2fad.paths",
    "pki2fad.trust",
    "pki2fad.streams",
    "pki2factl.cli",
    "pki2factl.ui",
    "pki2factl.commands.verify",
    "pki2factl.__main__",
    "pki2factl.accountmap",
    "pki2factl.password",
    "pki2factl.commands.pam",
)

# The modules that use each package.
USERS = {
    "cryptography": {"envelope", "pkcs8"},
    "daemon": {"process"},
    "msgpack": {"wire"},
    "pyotp": {"otp"},
    "sdnotify": {"systemd"},
    "uvloop": {"service"},
}

# Each module imports only from lines above its own (design section 4).
LAYERS = (
    "errors der logline pieces refusals tally times",
    "arguments clock users memory confinement files metrics streams systemd keyforms pkcs8",
    "health places",
    "sinks",
    "log",
    "paths trust wire otp envelope access",
    "account calls locks passing peer payer plain process throttle",
    "admission background budget entry keyring",
    "backup batch changes statefile",
    "verifier restore shortcut",
    "admin",
    "bulk enrolment throttled",
    "asyncclient agent longwork timekeeper",
    "client config seedfiles minutelog store connection decisions acceptor",
    "turns",
    "server listener vault credentials",
    "housekeeping",
    "service",
    "__main__",
)
LAYER_OF = {name: place for place, names in enumerate(LAYERS) for name in names.split()}

# What pki2factl takes from pki2fad: anywhere, and inside a command that does such work itself.
ANYWHERE = {"__version__", "client", "errors", "logline", "paths", "streams", "times", "trust"}
INSIDE_COMMANDS = {"account", "backup", "batch", "envelope", "files", "locks", "memory", "otp"}


def folder(package: ModuleType) -> Path:
    assert package.__file__ is not None
    return Path(package.__file__).parent


def modules(package: ModuleType) -> dict[str, ast.Module]:
    """What is written in each module, by its dotted name below the package."""
    root = folder(package)
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(root.rglob("*.py"))
    }


FAD, FACTL = modules(pki2fad), modules(pki2factl)
COMMANDS = [name.removeprefix("commands.") for name in FACTL if name.startswith("commands.")]


def imports(tree: ast.AST, *, in_functions: bool = True) -> Iterator[str]:
    """The dotted names that code imports at run time; a relative one begins with dots."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not in_functions:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (f"{node.module}." if node.module else "")
            yield from (start + alias.name for alias in node.names)
        yield from imports(node, in_functions=in_functions)


def of_pki2fad(names: Iterable[str]) -> set[str]:
    """The modules of pki2fad among imported names."""
    return {name.split(".")[1] for name in names if name.startswith("pki2fad.")}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement and had not before.

    Without `site`, since what is installed there may load anything at the start of an interpreter.
    """
    path = [str(folder(package).parent) for package in (pki2fad, pki2factl, msgpack)]
    script = f"""
import sys
sys.path += {path!r}
before = set(sys.modules)
print(*before)
{statement}
print(*(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-SPc", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()
    assert not HEAVY & set(before.split())
    return {name.partition(".")[0] for name in after.split()}


@pytest.mark.parametrize("module", CLIENTS_PATH)
def test_the_clients_path_is_light(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module.partition(".")[0] in loaded
    assert not HEAVY & loaded


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_loads_anything_heavy_before_it_runs(command: str) -> None:
    assert not HEAVY & loaded_by(f"import pki2factl.commands.{command}")


def test_a_whole_parse_of_a_verify_loads_nothing_heavy() -> None:
    assert not (HEAVY | {"shutil"}) & loaded_by(
        "from pki2factl import cli\nassert cli.main(['--socket', '/nonexistent', 'verify', '123456']) == 3"
    )


def test_the_agent_runs_without_files_sockets_and_keys() -> None:
    assert not {"asyncio", "cryptography", "daemon", "sdnotify", "socket", "sqlite3"} & loaded_by(
        f"sys.path += {[entry for entry in sys.path if entry]!r}\nimport pki2fad.agent"
    )


def test_a_start_in_the_foreground_without_settings_loads_nothing_for_others() -> None:
    assert not {"daemon", "shutil", "tomllib"} & loaded_by(
        f"sys.path += {[entry for entry in sys.path if entry]!r}\n"
        "from pki2fad import __main__, config\n"
        "__main__._parser().parse_args([])\n"
        "config.load(None, {'config_dir': '/nonexistent'})"
    )


def test_the_root_of_the_package_and_the_errors_import_nothing() -> None:
    assert list(imports(FAD["__init__"])) == []
    assert list(imports(FAD["errors"])) == []
    assert list(imports(FACTL["__init__"])) == []


@pytest.mark.parametrize("package", USERS)
def test_each_package_is_used_where_it_belongs(package: str) -> None:
    users = {
        name
        for name, tree in (FAD | {f"pki2factl.{name}": tree for name, tree in FACTL.items()}).items()
        if package in {imported.partition(".")[0] for imported in imports(tree)}
    }
    assert users == USERS[package]


@pytest.mark.parametrize("name", [name for name in FAD if name != "__init__"])
def test_imports_point_one_way(name: str) -> None:
    own = set(imports(FAD[name]))
    assert not [imported for imported in own if imported.startswith(".")], "by full name only"
    upward = {of for of in of_pki2fad(own) - {"__version__"} if LAYER_OF[of] >= LAYER_OF[name]}
    assert not upward


def test_the_agent_knows_neither_the_store_nor_keys() -> None:
    assert not {"store", "envelope"} & of_pki2fad(imports(FAD["agent"]))


@pytest.mark.parametrize(
    "name",
    [
        "access",
        "admin",
        "bulk",
        "agent",
        "backup",
        "batch",
        "entry",
        "changes",
        "enrolment",
        "keyring",
        "metrics",
        "otp",
        "restore",
        "account",
        "refusals",
        "tally",
        "throttle",
        "throttled",
        "verifier",
        "wire",
    ],
)
def test_below_the_server_nothing_reads_a_clock_or_a_socket(name: str) -> None:
    reading = {"asyncio", "datetime", "random", "secrets", "select", "socket", "threading", "time"}
    assert not reading & {imported.partition(".")[0] for imported in imports(FAD[name])}


def test_the_daemon_never_imports_the_client() -> None:
    for tree in FAD.values():
        assert not [name for name in imports(tree) if name.partition(".")[0] == "pki2factl"]


@pytest.mark.parametrize("name", FACTL)
def test_the_commands_use_the_public_client_and_make_keys_only_inside_a_command(name: str) -> None:
    assert of_pki2fad(imports(FACTL[name])) <= ANYWHERE | INSIDE_COMMANDS
    if name in ("cli", "ui", "__main__") or name.startswith("commands."):
        assert of_pki2fad(imports(FACTL[name], in_functions=False)) <= ANYWHERE
