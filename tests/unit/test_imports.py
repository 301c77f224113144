"""What each module imports: little on the client's path, one user of each package, one direction."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
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
    "pki2fad.errors",
    "pki2fad.host.logline",
    "pki2fad.times",
    "pki2fad.wire.arguments",
    "pki2fad.wire.build",
    "pki2fad.wire.decoder",
    "pki2fad.wire.forms",
    "pki2fad.wire.messages",
    "pki2fad.client",
    "pki2fad.host.paths",
    "pki2fad.host.trust",
    "pki2fad.host.streams",
    "pki2factl.cli",
    "pki2factl.ui",
    "pki2factl.commands.verify",
    "pki2factl.__main__",
    "pki2factl.login.accountmap",
    "pki2factl.login.password",
    "pki2factl.commands.pam",
)

# The modules that use each package.
USERS = {
    "cryptography": {"crypto.rsakeys", "crypto.sealing", "crypto.masterkey", "crypto.pkcs8"},
    "daemon": {"host.detach"},
    "msgpack": {"wire.messages", "wire.build", "wire.decoder"},
    "pyotp": {"rules.otp"},
    "sdnotify": {"host.systemd"},
    "uvloop": {"daemon.lifetime"},
}

# What each package of pki2fad may import, besides itself. Modules at the top are packages of their own.
BELOW = {
    "__init__": set(),
    "errors": set(),
    "times": set(),
    "crypto": {"errors", "times"},
    "wire": {"errors", "times"},
    "host": {"errors", "times"},
}
BELOW["client"] = {"wire", "host", "errors"}
BELOW["rules"] = {"crypto", "wire", "errors", "times"}
BELOW["transfer"] = BELOW["rules"] | {"rules", "host"}
BELOW["methods"] = BELOW["state"] = BELOW["transfer"] | {"transfer"}
BELOW["server"] = BELOW["methods"] | {"methods", "state"}
BELOW["daemon"] = BELOW["server"] | {"server"}
BELOW["__main__"] = BELOW["daemon"] | {"daemon"}

# What pki2factl takes from pki2fad: anywhere, and inside a command that does such work itself.
ANYWHERE = {"client", "errors", "times", "wire.forms"}
ANYWHERE |= {"host.logline", "host.paths", "host.streams", "host.trust"}
INSIDE_COMMANDS = {
    "host.files",
    "host.locks",
    "host.minuteline",
    "rules.account",
    "rules.otp",
    "transfer.backup",
    "transfer.batch",
}
INSIDE_COMMANDS |= {
    "crypto.memory",
    "crypto.rsakeys",
    "crypto.sealing",
    "crypto.masterkey",
    "crypto.seedsizes",
}


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


SOURCES = {
    str(path.relative_to(folder(package).parent)): path
    for package in (pki2fad, pki2factl)
    for path in folder(package).rglob("*.py")
}
# Attributes of the standard library's objects that are there to be set.
TO_BE_SET = {
    "pki2factl/commands/migrate.py": {"parser.epilog"},  # argparse has no other way for a command of many
    "pki2factl/commands/pam.py": {"sys.stderr"},
    "pki2factl/issuing/issuer.py": {"response.fp"},  # the limit is for what urllib itself reads as well
    "pki2fad/host/streams.py": {"setattr(sys)"},
}
FAD, FACTL = modules(pki2fad), modules(pki2factl)
COMMANDS = [name.removeprefix("commands.") for name in FACTL if name.startswith("commands.")]


def imports(tree: ast.AST, *, in_functions: bool = True, for_types: bool = True) -> Iterator[str]:
    """The dotted names that code imports; a relative one begins with dots."""
    for node in ast.iter_child_nodes(tree):
        if not for_types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not in_functions:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (f"{node.module}." if node.module else "")
            yield from (start + alias.name for alias in node.names)
        yield from imports(node, in_functions=in_functions, for_types=for_types)


def of_pki2fad(names: Iterable[str]) -> set[str]:
    """The modules and packages of pki2fad among imported names."""
    found = set()
    for name in names:
        parts = name.split(".")
        while parts[0] == "pki2fad" and parts[1:]:
            dotted = ".".join(parts[1:])
            if dotted in FAD or f"{dotted}.__init__" in FAD:
                found.add(dotted)
                break
            parts.pop()
    return found


def package_of(name: str) -> str:
    """The package that a module is in; a module at the top is its own."""
    return name.partition(".")[0]


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
        f"sys.path += {[entry for entry in sys.path if entry]!r}\nimport pki2fad.methods.agent"
    )


def test_a_start_in_the_foreground_without_settings_loads_nothing_for_others() -> None:
    assert not {"daemon", "shutil", "tomllib"} & loaded_by(
        f"sys.path += {[entry for entry in sys.path if entry]!r}\n"
        "from pki2fad import __main__\nfrom pki2fad.daemon import config\n"
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


@pytest.mark.parametrize("name", FAD)
def test_a_package_imports_only_from_those_below_it(name: str) -> None:
    own = set(imports(FAD[name]))
    assert not [imported for imported in own if imported.startswith(".")], "by full name only"
    package = package_of(name)
    assert {package_of(of) for of in of_pki2fad(own)} - {package} <= BELOW[package]


def test_imports_make_no_circle() -> None:
    graph = {name: of_pki2fad(imports(tree)) for name, tree in FAD.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("package", [*BELOW])
def test_each_package_says_its_job_in_one_sentence(package: str) -> None:
    module = FAD.get(f"{package}.__init__") or FAD[package]
    first = (ast.get_docstring(module) or "").partition("\n")[0]
    assert first.endswith(".")


@pytest.mark.parametrize("path", sorted(SOURCES))
def test_a_module_and_its_functions_are_short(path: str) -> None:
    text = SOURCES[path].read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name


def attributes_set_from_outside(tree: ast.AST) -> Iterator[str]:
    """The attributes of anything but `self` that code assigns to or deletes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("setattr", "delattr", "setattr__")
        ):
            yield f"setattr({ast.unparse(node.args[0])})"


@pytest.mark.parametrize("path", sorted(SOURCES))
def test_an_object_alone_sets_its_attributes(path: str) -> None:
    assert set(attributes_set_from_outside(ast.parse(SOURCES[path].read_text()))) == TO_BE_SET.get(
        path, set()
    )


@pytest.mark.parametrize(
    "name", [name for name in FAD if package_of(name) in ("methods", "rules", "transfer", "wire")]
)
def test_below_the_server_nothing_reads_a_clock_or_a_socket(name: str) -> None:
    reading = {"asyncio", "datetime", "random", "secrets", "select", "socket", "threading", "time"}
    allowed = {"rules.clock": {"time"}}  # it is the one that looks
    used = {imported.partition(".")[0] for imported in imports(FAD[name])}
    assert not (reading & used) - allowed.get(name, set())


def test_the_map_of_the_code_says_what_each_package_may_import() -> None:
    text = (folder(pki2fad) / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `pki2fad/(\w+)(?:\.py)?` \| [^|]* \|([^|]*)\|$", text, re.MULTILINE)
    names = [name for name, _ in rows]
    assert {*names} | {"__init__", "errors", "times"} == {*BELOW}
    for number, (name, cell) in enumerate(rows):
        named = set(re.findall(r"`(\w+)`", cell))
        told = {*names[number + 1 :]} - named if cell.startswith(" all below") else named
        assert told - {"errors", "times"} == BELOW[name] - {"errors", "times"}, name


def test_the_daemon_never_imports_the_client() -> None:
    for tree in FAD.values():
        assert not [name for name in imports(tree) if name.partition(".")[0] == "pki2factl"]


@pytest.mark.parametrize("name", FACTL)
def test_the_commands_use_the_public_client_and_make_keys_only_inside_a_command(name: str) -> None:
    assert of_pki2fad(imports(FACTL[name])) <= ANYWHERE | INSIDE_COMMANDS
    if name in ("cli", "ui", "__main__") or name.startswith("commands."):
        assert of_pki2fad(imports(FACTL[name], in_functions=False, for_types=False)) <= ANYWHERE
