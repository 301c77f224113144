"""A host with a key of its own and the real vault, whose accounts can be backed up and restored."""

import os
from pathlib import Path
from typing import Any

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Access
from pki2fad.rules.otp import Parameters
from pki2fad.state.vault import Vault
from pki2fad.wire import messages
from support.agents import SEED, STARTED, USUAL, no_throttle
from support.host import Host
from support.stores import finish


class Site(Host):
    """A `Host` whose state is sealed to a host's key."""

    def __init__(self, path: Path, key: PrivateKey) -> None:
        super().__init__(path, None, STARTED.wall)
        self.key = key

    def start(self) -> None:
        super().start()
        vault = Vault(self.keyring, self.store, "host.pem")
        finish(vault.open(self.key), self.store, self.reading)
        self.agent = Agent(
            self.keyring,
            Access((), os.geteuid(), Users()),
            no_throttle(),
            self.watch,
            keys=vault,
            started=STARTED,
        )

    def load(self, account: str = "default", seed: bytes = SEED, of: Parameters = USUAL) -> None:
        sealed = sealing.seal_seed(self.key.public_key(), bytearray(seed))
        parameters = {"algorithm": of.algorithm, "digits": of.digits, "period": of.period}
        self.call("load", account=account, sealed=sealed, replace=True, **parameters)

    def backup(self, *keys: PrivateKey) -> bytes:
        """A backup for these keys, or its own."""
        pem = b"".join(rsakeys.public_pem(key.public_key()) for key in keys or (self.key,))
        return self.call("backup", to=pem)["backup"]

    def restore(self, data: bytes, **more: Any) -> Any:
        """Upload it as the clients do; the last part's result."""
        upload = os.urandom(16).hex()
        for offset in range(0, max(1, len(data)), messages.PART_LIMIT):
            part = data[offset : offset + messages.PART_LIMIT]
            last = offset + len(part) == len(data)
            result = self.call("restore", upload=upload, offset=offset, part=part, last=last, **more)
        return result

    def rows(self) -> list[Any]:
        """All of the state file."""
        return list(self.store.file.database.iterdump())
