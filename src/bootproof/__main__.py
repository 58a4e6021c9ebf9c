"""`python -m bootproof`."""

import sys

from bootproof.harness.cli import main

sys.exit(main())
