"""A disk that forgets in a crash what was not synced."""

import os
import random
from pathlib import Path

CRASHES = int(os.environ.get("PKI2FAD_CRASHES", "200"))  # a full run takes 1200


class Disk:
    """The state file of a machine, and what of it a crash cannot take back."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._generation = 0
        self._synced: dict[str, bytes] = {}
        directory.mkdir()

    @property
    def path(self) -> Path:
        return self._directory / f"{self._generation}.db"

    def sync(self) -> None:
        """A commit with synchronous=FULL ended: all that is written so far is on the disk."""
        self._synced = self._files()

    def after_a_crash(self, chance: random.Random) -> dict[str, bytes]:
        """What is left: all that was synced, and of the log written since then any first part."""
        synced, written = self._synced, self._files()
        assert written[""] == synced[""]
        assert written["-wal"].startswith(synced["-wal"])
        least, most = len(synced["-wal"]), len(written["-wal"])
        length = chance.choice((least, chance.randint(least, most)))
        return {"": synced[""], "-wal": written["-wal"][:length]}

    def after_a_death(self) -> dict[str, bytes]:
        """What is left when only the process dies: everything."""
        return self._files()

    def go_on_with(self, files: dict[str, bytes]) -> None:
        for path in self._directory.iterdir():
            path.unlink()
        self._generation += 1
        for end, content in files.items():
            Path(f"{self.path}{end}").write_bytes(content)

    def _files(self) -> dict[str, bytes]:
        return {end: Path(f"{self.path}{end}").read_bytes() for end in ("", "-wal")}
