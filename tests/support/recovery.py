"""Recovery codes of an account, for tests of what becomes of them."""

from pki2fad.rules.access import Peer
from support.agents import ROOT
from support.host import Host

NO_CODE = "00000-00000"  # which no set has, but for one in 10^14


def create(host: Host, account: str = "default", peer: Peer = ROOT, **args: str) -> list[str]:
    """New codes of an account."""
    codes: list[str] = host.call("recovery_create", peer, account=account, **args)["codes"]
    return codes


def is_good(host: Host, code: str, account: str = "default") -> bool:
    """Whether a recovery code is accepted."""
    return bool(host.call("verify", account=account, code=code)["valid"])
