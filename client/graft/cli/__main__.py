"""Runs the command `graft` as `python -m graft.cli`."""

import sys

from graft.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
