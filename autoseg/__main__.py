"""``python -m autoseg``: the same as the command ``autoseg``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
