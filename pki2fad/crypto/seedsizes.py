"""How long seeds may be, in bytes."""

USUAL = 32  # as issuers make them
LEAST = 16  # the least that RFC 4226 section 4 allows
SHORT = 10  # some issuers make no longer ones; those load only where that is asked for
MOST = 64
FOR_URI = 14  # pyotp makes no URI for shorter ones
SEAL = 28  # what a sealed seed is longer by: nonce and tag


def of_sealed(sealed: bytes) -> int:
    """How long the seed is that is sealed under a master key."""
    return len(sealed) - SEAL
