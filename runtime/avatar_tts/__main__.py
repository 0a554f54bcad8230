"""``python -m avatar_tts``."""

import sys

from avatar_tts.cli import main

sys.exit(main())
