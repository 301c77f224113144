"""What the issuer's commands write: what was sealed, and the URIs of the same seeds."""

import os


def write(sealed: bytes, out: str | None, uris: bytes, uri_out: str | None) -> None:
    """Write both, where there is a path for them, or none. Raises `UnusablePath`."""
    from pki2fad.host import files

    if uri_out is not None:
        files.create(uri_out, uris, files.PRIVATE)
    try:
        if out is not None:
            files.create(out, sealed, files.PUBLIC)
    except BaseException:
        if uri_out is not None:  # they are of seeds that no host will have
            os.unlink(uri_out)
        raise
