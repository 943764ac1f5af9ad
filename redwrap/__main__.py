# SPDX-License-Identifier: Apache-2.0
"""red-wrap-cold in a checkout: launcher/red-wrap runs this file with python3 -I."""

import os
import sys

if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from redwrap.cli import main

sys.exit(main())
