"""Whose account is whose: names of accounts, and the file of `pki2factl pam --map`.

The file has lines `USER ACCOUNT`; empty ones, and those that begin with `#`, say nothing.
"""

import codecs

from pki2fad.errors import UnusablePath
from pki2fad.host import trust
from pki2fad.wire import forms


def read(path: str) -> dict[str, str]:
    """The account of each user in a file that root alone can write.

    Raises `UnusablePath`, with the line, if anything in it is wrong: no line is passed over.
    """
    from pki2fad.host import files

    try:
        owners = trust.owners(path)
    except FileNotFoundError:
        raise UnusablePath(f"there is no {path}") from None
    if owners != {0}:
        raise UnusablePath(f"{path} and what leads there must belong to root")
    data, status = files.read_with_status(path, follow_links=False)
    if trust.others_may_write(status, (0,)):
        raise UnusablePath(f"{path} must belong to root, and be writable by nobody else")
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
            raise UnusablePath(f"{path}, line {number}: {account} cannot be the name of an account")
        accounts[user] = account
    return accounts
