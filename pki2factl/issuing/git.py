"""What git says of a commit."""

import subprocess

from pki2fad.errors import UnusableCommit


def full_hash(repo: str, revision: str) -> str:
    """The 40 characters of a commit's hash. Raises `UnusableCommit`."""
    commit = _git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise UnusableCommit(
            f"git knows no commit {revision!r} in {repo}; is it a repository, and yours? git -C {repo} log"
            " says more"
        )
    if len(commit) != 40:
        raise UnusableCommit(f"{repo} names commits by SHA-256; a proof is of the 40 characters of SHA-1")
    return commit


def warnings(repo: str, commit: str) -> list[str]:
    """Why a proof of this commit may not be what is wanted."""
    found = []
    if _git(repo, "status", "--porcelain"):
        found.append("the work tree has changes that are not committed; a proof is of the commit alone")
    if not _git(repo, "branch", "--remotes", "--contains", commit):
        found.append("the commit is not on any remote yet; with every new commit a proof is out of date")
    return found


def _git(repo: str, *arguments: str) -> str | None:
    """What git prints, None if it fails."""
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
