"""Runs the command line of the test fleet."""

import sys

from fleetlib.cli import main

sys.exit(main())
