# SPDX-License-Identifier: Apache-2.0
"""The errors that reach a user.

This module loads nothing: the warm launch path imports it, and there each of typing and
dataclasses costs milliseconds.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from redpak.findings import Finding as Finding
    from redpak.findings import Origin as Origin


class RedpakError(Exception):
    """Something the user can be told in one line: what, where, and (hint) what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(RedpakError):
    """Every fault of one or more configuration files; its text has one line for each of them."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = tuple(findings)
