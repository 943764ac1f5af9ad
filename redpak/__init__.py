# SPDX-License-Identifier: Apache-2.0
"""The domain of redpak: nodes, families, their configuration and its merge.

Nothing in here runs a command, knows dnf or rpm, or imports another part of the project. Read it
in this order: errors, findings, kinds, schema, yamltree, load, node, family, expand, merge.
"""

VERSION = "0.1.0"  # as in setup.cfg
