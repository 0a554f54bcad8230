"""``python -m avatar_client``."""

import sys

from avatar_client.cli import main

sys.exit(main())
