# SPDX-License-Identifier: Apache-2.0
"""The state of a node as bundles know it: which builds of which packages it has.

Only what says "the same packages" counts: the name of each build and the digest of its header, not
when or in which order they were installed. Keys are no part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import rpm

from redrpm.rpmdb import nevra, open_rpmdb

PackageSet = Mapping[str, str]  # NEVRA -> digest of the header


def identify(header: Any) -> tuple[str, str]:
    """NEVRA and header digest of a package."""
    digest = header[rpm.RPMTAG_SHA256HEADER] or header[rpm.RPMTAG_SHA1HEADER] or ""
    return nevra(header), digest.decode() if isinstance(digest, bytes) else str(digest)


def package_set(headers: Iterable[Any]) -> PackageSet:
    """The packages among ``headers``, keys left out."""
    return dict(identify(h) for h in headers if h[rpm.RPMTAG_NAME] != "gpg-pubkey")


def read_package_set(rpmdb: str) -> PackageSet:
    """The packages in the rpmdb at ``rpmdb``, a private copy. Raises RedpakError."""
    with open_rpmdb(rpmdb) as ts:
        return package_set(ts.dbMatch())


def state_digest(packages: PackageSet) -> str:
    """The state as one word: sha256 of the sorted lines "NEVRA DIGEST"."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(packages.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
