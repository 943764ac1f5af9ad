# SPDX-License-Identifier: Apache-2.0
"""Makes manual pages, option tables and shell completion from what the commands say of themselves.

Not installed. helptext <- commands <- markdown, roff, shells <- generate.
"""
