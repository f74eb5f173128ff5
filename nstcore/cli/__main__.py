"""``python -m nstcore.cli``, the same as ``nst``."""

import sys

from nstcore.cli import main

sys.exit(main())
