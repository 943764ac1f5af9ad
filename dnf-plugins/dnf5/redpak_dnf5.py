# SPDX-License-Identifier: Apache-2.0
"""What dnf5's loader of Python plugins finds; everything else is in the package reddnf5.

Its name is not that of the package redpak, which the loader would import instead. The loader
looks for the names libdnf5 and Plugin in this module.
"""

from __future__ import annotations

import os
import sys

import libdnf5 as libdnf5

# Installed for the system, and below a prefix: our packages are in the directory above this one.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from reddnf5.plugin import RedpakPlugin as Plugin  # noqa: F401
