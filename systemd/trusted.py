"""Exits with 1 and the place unless root alone can write to what leads to each path: trusted.py PATH..."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the clone: nothing is installed yet

from pki2fad.errors import UnusablePath
from pki2fad.host import trust

try:
    for path in sys.argv[1:]:
        trust.require_roots(path)
except UnusablePath as error:
    sys.exit(str(error))
