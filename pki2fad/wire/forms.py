"""The forms of names, labels, codes and origins: the daemon takes no others, and clients check them first.

On the client's path: it imports nothing (`re` alone takes 7 ms there).
"""

DEFAULT_ACCOUNT = "default"  # of a request that names none
MAIN = "main"  # the label of an account's first authenticator, unless it gets another

NAME_RULE = "an account name has 1 to 64 of A-Z a-z 0-9 . _ @ - and does not begin with . @ -"
LABEL_RULE = "a label has 1 to 32 of A-Z a-z 0-9 . _ - and does not begin with . -"
CODE_RULE = "a code is 6 to 8 digits"
ANY_CODE_RULE = f"{CODE_RULE}, or a recovery code like K7QM4-2XW9T"

# Account names become file names, and PAM brings them from the network.
_NAME_LIMIT = 64
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@-")
_NOT_FIRST = ".@-"

_LABEL_LIMIT = 32
_LABEL_CHARACTERS = _NAME_CHARACTERS - {"@"}

CODE_DIGITS = (6, 7, 8)  # how many a code may have

RECOVERY_SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base32
RECOVERY_HALF = 5  # symbols before and behind the hyphen of a recovery code

_RECOVERY_TYPED = frozenset(RECOVERY_SYMBOLS + RECOVERY_SYMBOLS.lower() + "ILOilo")  # I and L are 1, O is 0

ORIGIN_LIMIT = 255  # characters: longer than any address or host name


def is_name(text: str) -> bool:
    """True for the name of an account, or of one that may be made."""
    return 0 < len(text) <= _NAME_LIMIT and text[0] not in _NOT_FIRST and _NAME_CHARACTERS.issuperset(text)


def is_label(text: str) -> bool:
    """True for the label of an authenticator."""
    return 0 < len(text) <= _LABEL_LIMIT and text[0] not in _NOT_FIRST and _LABEL_CHARACTERS.issuperset(text)


def is_code(text: object) -> bool:
    """True for 6 to 8 ASCII digits, and nothing around them."""
    return type(text) is str and len(text) in CODE_DIGITS and text.isascii() and text.isdigit()


def is_recovery_code(text: object) -> bool:
    """True for what may be a recovery code: any case, with the hyphen in the middle or without."""
    if type(text) is not str:
        return False
    if len(text) == 2 * RECOVERY_HALF + 1 and text[RECOVERY_HALF] == "-":
        text = text[:RECOVERY_HALF] + text[RECOVERY_HALF + 1 :]
    return len(text) == 2 * RECOVERY_HALF and _RECOVERY_TYPED.issuperset(text)
