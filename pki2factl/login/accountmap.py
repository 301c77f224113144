"""Reads the file of `pki2factl pam --map`: which user has which account.

The file has lines `USER ACCOUNT`. Empty lines, and those that begin with `#`, are skipped.
"""

import codecs

from pki2fad.errors import UnusablePath
from pki2fad.host import trust
from pki2fad.wire import forms


def read(path: str) -> dict[str, str]:
    """Read the account of each user from a file that root alone can write.

    Raises `UnusablePath`, with the line, if anything in it is wrong.
    """
    from pki2fad.host import files

    try:
        owners = trust.owners(path)
    except FileNotFoundError:
        raise UnusablePath(f"there is no {path}") from None
    if owners != {0}:
        raise UnusablePath(f"{path} and the directories above it must belong to root")
    data, status = files.read_with_status(path, follow_links=False)
    if trust.others_may_write(status, (0,)):
        raise UnusablePath(f"{path} must belong to root, and only root may write it")
    accounts: dict[str, str] = {}
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise UnusablePath(f"{path}, line {number}: a line has two words, USER ACCOUNT")
        user, account = words
        if user in accounts:
            raise UnusablePath(f"{path}, line {number}: {user} has an account already")
        if not forms.is_name(account):
            raise UnusablePath(f"{path}, line {number}: {account} is not a valid account name")
        accounts[user] = account
    return accounts
