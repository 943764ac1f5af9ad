# SPDX-License-Identifier: Apache-2.0
"""One rpm transaction of installs and erasures, by librpm, in the contained child."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import rpm

from redpak.errors import RedpakError
from redrpm.contents import read_headers
from redrpm.rpmdb import nevra

_FAILURES = {
    rpm.RPMCALLBACK_UNPACK_ERROR: "cannot be unpacked",
    rpm.RPMCALLBACK_CPIO_ERROR: "cannot be unpacked",
}


class RpmTransaction:
    """A transaction set on the installroot ``root``, whose rpmdb is at var/lib/rpm.

    ``upgrades`` replace what is installed of their name, ``installs`` come beside it; both are
    paths. ``erased`` are numbers of headers. ``signed`` says whether signatures are needed.
    """

    def __init__(
        self,
        root: str,
        *,
        upgrades: Sequence[str],
        installs: Sequence[str] = (),
        erased: Sequence[int] = (),
        privileged: bool,
        signed: bool,
    ) -> None:
        rpm.addMacro("_dbpath", "/var/lib/rpm")
        rpm.addMacro("_pkgverify_level", "all" if signed else "digest")
        self._ts = rpm.TransactionSet(root)
        flags = 0 if privileged else rpm.RPMTRANS_FLAG_NOCAPS | rpm.RPMTRANS_FLAG_NOCONTEXTS
        self._ts.setFlags(flags)
        self._ts.setProbFilter(rpm.RPMPROB_FILTER_OLDPACKAGE)
        self._failed: list[str] = []
        self._open: dict[str, int] = {}
        for paths, how in ((upgrades, "u"), (installs, "i")):
            for path, header in zip(paths, read_headers(paths)):
                self._ts.addInstall(header, path, how)
        for number in erased:
            self._ts.addErase(number)

    def check(self) -> list[int]:
        """Check dependencies, and put the elements in order; the numbers of what goes away.

        Raises RedpakError with what librpm has against it.
        """
        self._ts.check()
        problems = sorted(str(problem) for problem in self._ts.problems() or ())
        if problems:
            raise RedpakError("; ".join(problems))
        self._ts.order()
        return [each.DBOffset() for each in self._ts if each.Type() == rpm.TR_REMOVED]

    def run(self) -> None:
        """Carry it out. Raises RedpakError unless all of it was done."""
        try:
            problems = self._ts.run(self._callback, "")
        finally:
            self._ts.closeDB()
            for fd in self._open.values():
                os.close(fd)
        if problems is None and not self._failed:
            return
        reasons = [str(text) for text, _details in problems or ()]
        raise RedpakError("; ".join(dict.fromkeys([*self._failed, *reasons])) or "rpm failed")

    def _callback(self, what: int, _amount: int, _total: int, key: Any, _data: str) -> Any:
        if what == rpm.RPMCALLBACK_INST_OPEN_FILE:
            self._open[key] = os.open(key, os.O_RDONLY | os.O_CLOEXEC)
            return self._open[key]
        if what == rpm.RPMCALLBACK_INST_CLOSE_FILE:
            os.close(self._open.pop(key))
        elif what in _FAILURES:
            self._failed.append(f"{_label(key)} {_FAILURES[what]}")
        elif what == rpm.RPMCALLBACK_SCRIPT_ERROR and _total == rpm.RPMRC_FAIL:
            self._failed.append(f"{_label(key)}: a scriptlet failed")
        return None


def _label(key: Any) -> str:
    """A path for what is installed, a name for what is erased."""
    return os.path.basename(key) if isinstance(key, str) else nevra(key)
