"""Applies the files of `seeds.d` to the accounts: those that are new or have changed."""

from collections.abc import Iterable

from pki2fad.errors import BadRequest, BadSeal, Unavailable, UnusableState
from pki2fad.host import log
from pki2fad.methods.agent import Agent
from pki2fad.methods.health import SEEDS
from pki2fad.rules import clock
from pki2fad.rules.changes import Answer, FileEdit, Steps, Work
from pki2fad.rules.keyring import Keyring
from pki2fad.server.longwork import Done
from pki2fad.server.server import Server
from pki2fad.state import seedfiles
from pki2fad.state.seedfiles import SeedFile


class Seeding:
    """Gives accounts the seeds that configuration management delivers to a `directory`."""

    def __init__(self, keyring: Keyring, agent: Agent, server: Server, directory: str) -> None:
        self._keyring = keyring
        self._agent = agent
        self._server = server
        self._directory = directory

    def use(self, directory: str) -> None:
        """Read the files of another directory from now on."""
        self._directory = directory

    def begin(self, done: Done) -> None:
        """Apply the files, piece by piece; `done` gets the outcome."""
        ignored: list[str] = []
        self._server.long_work.begin(self.apply(seedfiles.read_all(self._directory, ignored), ignored), done)

    def apply(self, seed_files: Iterable[SeedFile], ignored: list[str]) -> Work:
        """Apply these files; while the keys are locked, none.

        `status` shows a trouble as long as something is `ignored`.
        """
        yield from self._load(seed_files, ignored)
        if ignored:
            self._agent.health.failed(SEEDS, ignored[0])
        elif not self._keyring.locked:
            self._agent.health.mended(SEEDS)
        return Answer(quiet=True)

    def _load(self, seed_files: Iterable[SeedFile], ignored: list[str]) -> Steps[None]:
        for file in seed_files:
            yield None
            if self._keyring.locked:
                return
            reading = clock.read()
            applied = self._agent.memory.file_digests.get(file.account)
            if applied == file.digest:
                continue
            before = self._keyring.accounts.get(file.account)
            try:
                if applied == file.text_digest:
                    yield FileEdit(file.account, file.digest)
                    self._agent.memory.note_file(file.account, file.digest)
                    continue
                edit = self._agent.provision(file.account, file.sealed, file.digest, reading)
                yield edit
            except (BadSeal, BadRequest, Unavailable, UnusableState) as error:
                seedfiles.ignore(file.path, file.account, error, ignored)
            else:
                done = "added" if before is None else "unchanged" if edit.put is before else "replaced"
                log.audit("seed_loaded", path=file.path, account=file.account, audit=done)
