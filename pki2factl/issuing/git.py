"""Asks git about a commit."""

import subprocess

from pki2fad.errors import UnusableCommit


def full_hash(repo: str, revision: str) -> str:
    """The 40 characters of a commit's hash. Raises `UnusableCommit`."""
    commit = _git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise UnusableCommit(
            f"git finds no commit {revision!r} in {repo}; to see why, run: git -C {repo} log"
        )
    if len(commit) != 40:
        raise UnusableCommit(f"{repo} names commits by SHA-256; a proof is of the 40 characters of SHA-1")
    return commit


def warnings(repo: str, commit: str) -> list[str]:
    """Reasons why a proof of this commit may not be what the user wants."""
    found = []
    if _git(repo, "status", "--porcelain"):
        found.append("the work tree has uncommitted changes; the proof covers the commit alone")
    if not _git(repo, "branch", "--remotes", "--contains", commit):
        found.append("the commit is not on any remote yet; each new commit needs a new proof")
    return found


def _git(repo: str, *arguments: str) -> str | None:
    """The output of git, None if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own git, and no shell
            ["git", "-C", repo, *arguments],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise UnusableCommit("git is not installed; name the commit by its full hash") from None
    return done.stdout.strip() if done.returncode == 0 else None
