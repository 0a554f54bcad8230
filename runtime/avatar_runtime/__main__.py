"""``python -m avatar_runtime``."""

import sys

from avatar_runtime.cli import main

sys.exit(main())
