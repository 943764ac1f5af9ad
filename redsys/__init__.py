# SPDX-License-Identifier: Apache-2.0
"""The kernel as redpak uses it: namespaces, mounts, seccomp, locks, external commands.

Stands below redrpm and redwrap, which do not know each other (design section 7).
"""
