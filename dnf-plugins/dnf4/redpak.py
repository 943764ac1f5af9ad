# SPDX-License-Identifier: Apache-2.0
"""What dnf4 finds in its plugin directory; everything else is in the package reddnf."""

from __future__ import annotations

from reddnf.plugin import RedpakPlugin as RedpakPlugin
