"""``python -m clipedge`` is ``clipedge``."""

import sys

from clipedge.cli import main

if __name__ == "__main__":
    sys.exit(main())
