# SPDX-License-Identifier: Apache-2.0
"""dnf on nodes: the red- commands of dnf4, red-manager and the launcher red-dnf."""
