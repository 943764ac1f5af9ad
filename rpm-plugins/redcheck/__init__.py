# SPDX-License-Identifier: Apache-2.0
"""red-check: proves that nodes are what their rpmdbs and configurations say, and says what is not.

The engine reads and never repairs. It knows neither dnf nor red-wrap; front ends call
`redcheck.cli.main`.
"""
