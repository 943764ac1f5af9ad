# SPDX-License-Identifier: Apache-2.0
"""Detached OpenPGP signatures, checked with the keys that a family has imported.

The distributions' own verifiers do it, which need neither agent nor home directory: gpgv (GnuPG) or
sqv (Sequoia), whichever there is.
"""

from __future__ import annotations

import base64
import binascii
import os
import shutil

import rpm

from redpak.errors import RedpakError
from redrpm.rpmdb import open_rpmdb
from redrpm.scratch import ScratchDirectory
from redsys.run import pass_through, run


def family_keys(rpmdb: str) -> list[bytes]:
    """The OpenPGP keys in an rpmdb: the packages gpg-pubkey that --import makes.

    Raises RedpakError.
    """
    keys = []
    with open_rpmdb(rpmdb) as ts:
        for header in ts.dbMatch("name", "gpg-pubkey"):
            for text in header[rpm.RPMTAG_PUBKEYS] or ():
                try:
                    keys.append(base64.b64decode(text))
                except binascii.Error:
                    continue  # no signature can be checked with it
    return keys


def verify_signature(data: bytes, signature: bytes, keys: list[bytes]) -> str:
    """The fingerprint of the key of ``keys`` that signed ``data``. Raises RedpakError."""
    if not keys:
        raise RedpakError(
            "the family trusts no key", hint="import the maker's key with red-rpm --import"
        )
    with ScratchDirectory() as work:
        for name, content in (("data", data), ("signature", signature), ("keys", b"".join(keys))):
            with open(os.path.join(work, name), "wb") as stream:
                stream.write(content)
        if shutil.which("gpgv"):
            return _ask_gpgv(work)
        if shutil.which("sqv"):
            return _ask_sqv(work)
    raise RedpakError("neither gpgv nor sqv is here to check signatures", hint="install gpgv")


def _ask_gpgv(work: str) -> str:
    argv = ["gpgv", "--homedir", work, "--keyring", f"{work}/keys", "--status-fd", "1"]
    lines = run([*argv, f"{work}/signature", f"{work}/data"], package="gpgv").decode().split("\n")
    words = [line.split() for line in lines if line.startswith("[GNUPG:] ")]
    found = {line[1]: line for line in words}
    # A key or signature that has expired, or was revoked, has other words than these.
    if "GOODSIG" not in found or "VALIDSIG" not in found:
        raise RedpakError("gpgv: the signature, or its key, is no longer valid")
    return found["VALIDSIG"][2]


def _ask_sqv(work: str) -> str:
    argv = ["sqv", "--keyring", f"{work}/keys", f"{work}/signature", f"{work}/data"]
    fingerprints = run(argv, package="sqv").decode().split()
    if not fingerprints:
        raise RedpakError("sqv: no valid signature")
    return fingerprints[0]


def sign_file(path: str, signature: str, *, key: str) -> None:
    """Sign ``path`` with gpg and the caller's own ``key``. Raises RedpakError."""
    argv = ["gpg", "--batch", "--yes", "--quiet", "--local-user", key, "--output", signature]
    if pass_through([*argv, "--detach-sign", path]) != 0:
        raise RedpakError(f"gpg could not sign with the key {key}; see above")
