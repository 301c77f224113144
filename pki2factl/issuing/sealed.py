"""Writes sealed seeds and the URIs of the same seeds, both or neither."""

import os


def write(sealed: bytes, out: str | None, uris: bytes, uri_out: str | None) -> None:
    """Write each that has a path, or none of them. Raises `UnusablePath`."""
    from pki2fad.host import files

    if uri_out is not None:
        files.create(uri_out, uris, files.PRIVATE)
    try:
        if out is not None:
            files.create(out, sealed, files.PUBLIC)
    except BaseException:
        if uri_out is not None:  # no host will have these seeds
            os.unlink(uri_out)
        raise
