"""The clients that PROTOCOL.md printed in version 0.1.0, against an account with two authenticators."""

import json
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.languages import Programs, run
from support.raw import Seed, connect

from pki2fad.crypto.rsakeys import PrivateKey

pytestmark = pytest.mark.slow  # clients in other languages

OLDER = Path(__file__).parents[1] / "vectors" / "clients-0.1.0"


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path, OLDER)


@pytest.fixture
def seeds(lasting: Daemon, host_key: PrivateKey) -> list[Seed]:
    """The seeds of the account `default`: the first as an old client loads it, and one more."""
    seeds = [Seed(), Seed()]
    with connect(lasting.socket) as peer:
        if any(one["account"] == "default" for one in peer.call("accounts")):
            peer.call("remove")
        peer.call("load", sealed=seeds[0].sealed(host_key))
        peer.call("load", sealed=seeds[1].sealed(host_key), label="tablet")
    return seeds


@pytest.mark.parametrize("label", ["c", "shell"])
def test_a_client_of_0_1_0_has_codes_of_all_authenticators_accepted_once(
    programs: Programs, lasting: Daemon, seeds: list[Seed], label: str
) -> None:
    for seed in seeds:
        code = seed.code()
        assert [run(programs[label], lasting.socket, code).returncode for _ in range(2)] == [0, 1]
    refused = run(programs[label], lasting.socket, "123456", "nobody")
    assert "no_such_account: there is no account 'nobody'\n" in refused.stderr


def test_the_client_for_node_of_0_1_0_generates_loads_and_lists_as_before(
    programs: Programs, lasting: Daemon, seeds: list[Seed]
) -> None:
    def asked(*arguments: str) -> object:
        done = run(programs["node"], lasting.socket, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    answer = asked("generate")
    assert isinstance(answer, dict)
    assert answer.keys() == {"code", "valid_for", "step"}
    assert answer["code"] == seeds[0].code(answer["step"])
    assert asked("verify", f"code={answer['code']}") == {"valid": True}
    assert asked("verify", f"code={answer['code']}") == {"valid": False}
    listed = asked("accounts")
    assert isinstance(listed, list)
    of_0_1_0 = {"account", "algorithm", "digits", "period", "last_used", "offset", "drift", "successor"}
    assert of_0_1_0 <= listed[0].keys()
    assert asked("remove") == {"account": "default"}
