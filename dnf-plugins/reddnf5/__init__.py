# SPDX-License-Identifier: Apache-2.0
"""dnf5 on nodes: the libdnf5 plugin behind the red- commands of the alias file."""
