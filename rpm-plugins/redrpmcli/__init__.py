# SPDX-License-Identifier: Apache-2.0
"""red-rpm: the command line of rpm on a node."""
