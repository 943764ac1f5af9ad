# SPDX-License-Identifier: Apache-2.0
"""What the tests share: who runs the commands, small rpms and repositories made on the spot."""
