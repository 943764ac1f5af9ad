# SPDX-License-Identifier: Apache-2.0
"""A throw-away OpenPGP key and packages signed with it, by the real gpg and rpmsign."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SigningKey:
    """A secret key in ``home`` and its public half in the file ``public``."""

    name: str
    home: Path
    public: Path

    def sign(self, package: Path) -> None:
        """Sign a package in place."""
        # Debian's rpmsign looks for a gpg2 that is not there.
        gpg = shutil.which("gpg") or "gpg"
        definitions = {"_gpg_name": self.name, "_gpg_path": str(self.home), "__gpg": gpg}
        command = ["rpmsign", "--addsign"]
        for key, value in definitions.items():
            command += ["--define", f"{key} {value}"]
        _run([*command, str(package)])


def make_key(directory: Path, name: str) -> SigningKey:
    """Make a key without passphrase below ``directory``."""
    home = directory / f"gpg-{name}"
    home.mkdir(mode=0o700, parents=True)
    gpg = ["gpg", "--batch", "--homedir", str(home)]
    _run([*gpg, "--passphrase", "", "--quick-generate-key", name, "rsa2048", "sign", "never"])
    public = directory / f"{name}.asc"
    _run([*gpg, "--armor", "--output", str(public), "--export", name])
    return SigningKey(name, home, public)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
