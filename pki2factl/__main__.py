"""`python -m pki2factl`."""

import sys

from pki2factl.cli import main

sys.exit(main())
