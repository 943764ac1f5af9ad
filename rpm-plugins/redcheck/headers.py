# SPDX-License-Identifier: Apache-2.0
"""Headers: whether each is whole, found by rpm, and signed by a key that the family trusts."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import rpm

from redcheck.findings import Finding
from redcheck.packages import Installed, Package
from redcheck.scope import Layer
from redpak.errors import TYPE_CHECKING
from redrpm.rpmdb import open_rpmdb

if TYPE_CHECKING:
    from redcheck.engine import HeadersTask
    from redcheck.library import Library
    from redcheck.workers import Result

_DIGESTS_ONLY = rpm._RPMVSF_NOSIGNATURES | rpm._RPMVSF_NOPAYLOAD
_SIGNATURE_TAGS = tuple(
    getattr(rpm, name) for name in ("RPMTAG_RSAHEADER", "RPMTAG_DSAHEADER", "RPMTAG_OPENPGP")
    if hasattr(rpm, name))
_DIGEST_TAGS = (rpm.RPMTAG_SHA256HEADER, rpm.RPMTAG_SHA1HEADER)
_KEY_ID = re.compile(r"key ID ([0-9a-f]+)", re.IGNORECASE)


def check_headers(task: HeadersTask, library: Library) -> Result:
    """What is wrong with the headers of a layer: ``findings``, as they are stored, and the number
    of ``packages``."""
    layer, installed = task.layer, library.of(task.layer)
    keys = [bytes.fromhex(key) for key in task.keys]
    findings = list(_check_signatures(layer, installed.packages, keys=keys, required=task.signed))
    if installed.packages:
        with open_rpmdb(installed.directory) as ts:
            findings += _check_indexes(layer, installed, ts)
    return {"findings": [finding.stored() for finding in findings],
            "packages": sum(not package.is_key for package in installed.packages)}


def _check_signatures(layer: Layer, packages: Iterable[Package], *, keys: Sequence[bytes],
                      required: bool) -> Iterator[Finding]:
    """Each header of ``packages`` beside its own digests and, when required, its signature.

    The digests tell damage of the rpmdb; only a signature tells tampering.
    """
    ts = rpm.TransactionSet()
    keyring = rpm.keyring()
    for key in keys:
        # A key that rpm cannot read vouches for nothing.
        with contextlib.suppress(ValueError, rpm.error):
            keyring.addKey(rpm.pubkey(_armor(key)))
    ts.setKeyring(keyring)
    for package in packages:
        if package.is_key:
            continue
        if any(package.header[tag] for tag in _DIGEST_TAGS):
            yield from _check_digests(ts, layer, package)
        if required:
            yield from _check_signature(ts, layer, package)


def _check_digests(ts: Any, layer: Layer, package: Package) -> Iterator[Finding]:
    ts.setVSFlags(_DIGESTS_ONLY)
    try:
        ts.hdrCheck(package.header.unload())
    except rpm.error as err:
        yield layer.finding("rpmdb", f"the header of {package.label} is damaged: {_first(err)}",
                            package=package.label)


def _check_signature(ts: Any, layer: Layer, package: Package) -> Iterator[Finding]:
    if not any(package.header[tag] for tag in _SIGNATURE_TAGS):
        yield layer.finding("unsigned", f"{package.label} is not signed", package=package.label)
        return
    ts.setVSFlags(rpm._RPMVSF_NODIGESTS | rpm._RPMVSF_NOPAYLOAD)
    try:
        ts.hdrCheck(package.header.unload())
    except rpm.error as err:
        found = _KEY_ID.search(str(err))
        which = f"key {found[1]}" if found else _first(err)
        yield layer.finding("untrusted", f"{package.label} is signed by {which}, which the family"
                            " does not trust", package=package.label)


def _armor(key: bytes) -> bytes:
    """A public key as ASCII armor (RFC 4880, 6.2), which the bindings ask for."""
    crc = 0xB704CE
    for byte in key:
        crc ^= byte << 16
        for _ in range(8):
            crc = (crc << 1) ^ (0x1864CFB if crc & 0x800000 else 0)
    text = base64.encodebytes(key).decode()
    check = base64.b64encode((crc & 0xFFFFFF).to_bytes(3, "big")).decode()
    block = "PGP PUBLIC KEY BLOCK-----"
    return f"-----BEGIN {block}\n\n{text}={check}\n-----END {block}\n".encode()


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unknown error"])[0]


def _check_indexes(layer: Layer, installed: Installed, ts: Any) -> Iterator[Finding]:
    """Whether each package can be found by its name and by what it provides: rpm asks indexes, not
    headers."""
    names, provides = _read_index(ts, "name"), _read_index(ts, "providename")
    for package in installed.packages:
        missing = set(package.header[rpm.RPMTAG_PROVIDENAME]) - provides.get(package.number, set())
        if missing:
            text = f"provides {', '.join(sorted(missing)[:3])}, but the rpmdb's index does not know"
        elif package.name not in names.get(package.number, ()):
            text = "is installed, but the rpmdb's index of names does not know"
        else:
            continue
        yield layer.finding("rpmdb", f"{package.label} {text} it", package=package.label,
                            remedy=f"rebuild it: rpmdb --dbpath {layer.rpmdb} --rebuilddb")


def _read_index(ts: Any, name: str) -> dict[int, set[str]]:
    """The keys of an index, by the number of the header that they lead to."""
    found: dict[int, set[str]] = {}
    index = ts.dbIndex(name)
    for key in index:
        text = key.decode(errors="surrogateescape") if isinstance(key, bytes) else key
        for number, _position in index.instances():
            found.setdefault(number, set()).add(text)
    return found
