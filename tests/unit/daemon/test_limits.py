"""How much memory is needed and allowed."""

from pathlib import Path

import pytest
from support.clones import CHECKOUT

from pki2fad.daemon import limits


def group(root: Path, set_limits: dict[str, str], path: str = "/system.slice/pki2fad.service") -> int | None:
    """What is found where these groups have these limits."""
    for place, text in set_limits.items():
        (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (root / place.lstrip("/") / "memory.max").write_text(text)
    (root / "cgroup").write_text(f"1:name=systemd:/old\n0::{path}\n")
    return limits.limit(str(root / "cgroup"), str(root))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"/system.slice/pki2fad.service": "max\n"}, None),
        ({"/system.slice/pki2fad.service": "4096\n"}, 4096),
        ({"/system.slice/pki2fad.service": "4096\n", "/system.slice": "1024\n"}, 1024),
        ({"/system.slice/pki2fad.service": "max\n", "/system.slice": "1024\n"}, 1024),
        ({"/system.slice/other.service": "1\n"}, None),
    ],
)
def test_the_limit_is_the_lowest_of_the_group_and_those_above(
    tmp_path: Path, limits: dict[str, str], expected: int | None
) -> None:
    assert group(tmp_path, limits) == expected


def test_in_a_container_the_limit_is_that_of_the_root_that_it_sees(tmp_path: Path) -> None:
    assert group(tmp_path, {"/": "4096\n"}, path="/") == 4096


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert limits.limit(str(tmp_path / "none")) is None


def test_the_limit_of_the_unit_is_enough_for_100_000_accounts_and_not_for_twice_as_many() -> None:
    unit = (CHECKOUT / "systemd" / "pki2fad.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("MemoryMax="))
    mebibytes = int(line.removeprefix("MemoryMax=").removesuffix("M"))
    assert limits.needed(100_000) <= mebibytes * 2**20 < limits.needed(200_000)
