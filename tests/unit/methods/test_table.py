"""The table of methods, held against the protocol's description, the agent and the clients."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.agents import ROOT, STARTED, make_agent, make_keyring

import pki2fad
from pki2fad.client.calls import Methods
from pki2fad.errors import UnknownMethod
from pki2fad.methods.table import METHODS
from pki2fad.wire.messages import Request


class Sent(Methods):
    """A client that notes what it would send, and has no answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def _perform(self, call: Any) -> Any:
        self.requests.append(next(call))


def with_all_arguments(method: Callable[..., Any]) -> None:
    """Call it with a value for each argument."""
    positional = []
    named = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = b"x" if "bytes" in str(parameter.annotation) else True
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    method(*positional, **named)


@pytest.fixture(scope="module")
def sent() -> dict[str, set[str]]:
    """The names of the arguments that the clients send, by method."""
    client = Sent()
    for name, method in inspect.getmembers(client, inspect.ismethod):
        if not name.startswith("_"):
            with_all_arguments(method)
    found: dict[str, set[str]] = {}
    for name, arguments in client.requests:
        found.setdefault(name, set()).update(arguments)
    return found


def described() -> dict[str, tuple[str, str]]:
    """Roles and arguments by method, as PROTOCOL.md's table has them."""
    assert pki2fad.__file__ is not None
    text = (Path(pki2fad.__file__).parent / "PROTOCOL.md").read_text()
    rows = text.partition("| method | role |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    return {name.strip("`"): (role, arguments) for name, role, arguments, *_ in cells}


DESCRIBED = described()
TYPES = {"str": str, "bin": bytes, "int": int, "bool": bool}


def test_the_protocol_describes_the_methods_that_there_are() -> None:
    assert set(DESCRIBED) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_protocol_describes_a_methods_role(name: str) -> None:
    method, role = METHODS[name], DESCRIBED[name][0]
    assert role.partition(",")[0] == (method.role or "anyone")
    assert role.endswith(", for all accounts") is method.everywhere
    assert role.endswith(", or enroll for the account of its user name") is (method.own or method.own_by_code)
    assert (", or admin for all accounts" in role) is method.or_admin
    assert role.endswith(", or admin for the account") is method.or_its_admin


@pytest.mark.parametrize("name", METHODS)
def test_the_protocol_describes_a_methods_arguments(name: str) -> None:
    found = re.findall(r"`(\w+)` (\w+)( \(required\))?", DESCRIBED[name][1])
    assert {argument: TYPES[kind] for argument, kind, _ in found} == METHODS[name].arguments
    assert {argument for argument, _, required in found if required} == METHODS[name].required


@pytest.mark.parametrize("name", METHODS)
def test_the_clients_send_every_argument_that_a_method_takes_and_no_other(
    sent: dict[str, set[str]], name: str
) -> None:
    assert sent[name] == set(METHODS[name].arguments)


def test_the_clients_have_no_method_that_there_is_not(sent: dict[str, set[str]]) -> None:
    assert set(sent) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_agent_carries_out_every_method_of_the_table(name: str) -> None:
    answer = make_agent(make_keyring()).handle(Request(1, name, {}), ROOT, STARTED)
    assert not isinstance(answer.refusal, UnknownMethod)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_required_is_among_the_arguments(name: str) -> None:
    assert METHODS[name].required <= set(METHODS[name].arguments)
