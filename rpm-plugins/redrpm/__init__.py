# SPDX-License-Identifier: Apache-2.0
"""The root redirection: family rpmdb, view, stage and commit of a node's transaction."""
