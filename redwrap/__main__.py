# SPDX-License-Identifier: Apache-2.0
"""python3 -m redwrap is red-wrap."""

import sys

from redwrap.cli import main

sys.exit(main())
