# SPDX-License-Identifier: Apache-2.0
"""Bundles: packages with a signed manifest, as a directory or a tar file.

    manifest.json       what the bundle is for, what it changes, the digest of each package
    manifest.json.sig   detached OpenPGP signature of that file
    packages/*.rpm

Whatever is read here may be an attacker's until the signature was checked, and the packages until
their digests were: nothing is believed, nothing is unpacked by name, nothing is read without limit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NoReturn

from redpak.errors import RedpakError
from redpak.family import Family
from redpak.values import dataclass

FORMAT = "redpak-bundle-1"
MANIFEST, SIGNATURE, PACKAGES = "manifest.json", "manifest.json.sig", "packages"
_LIMITS = {MANIFEST: 16 << 20, SIGNATURE: 64 << 10}  # bytes
_BLOCK = 512  # bytes, tar(5)
_CHUNK = 1 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^@:-]{0,250}\.rpm")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STATE = re.compile(r"sha256:[0-9a-f]{64}")
_TAR_HINT = "make it with red-manager --bundle"


@dataclass(frozen=True)
class BundlePackage:
    """A package to install; ``how`` is "upgrade", or "install" beside others of its name."""

    file: str
    package: str  # its NEVRA
    sha256: str
    size: int  # bytes
    how: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself. ``identity`` is the digest of the manifest."""

    identity: str
    info: str
    node: Mapping[str, str]  # alias, name, path: at least one of them
    before: str  # states of the node: redrpm.packageset
    after: str
    erase: tuple[str, ...]  # NEVRAs
    install: tuple[BundlePackage, ...]

    def check_node(self, family: Family) -> None:
        """Raise RedpakError unless the leaf is the node that the bundle is for."""
        leaf = family.leaf
        actual = {"alias": leaf.alias, "name": leaf.name, "path": leaf.path}
        for key, value in self.node.items():
            if actual[key] != value:
                raise RedpakError(
                    f"the bundle is for the node with {key} {value}, and this is {actual[key]}",
                    hint="apply it to its own node",
                )


def write_manifest(manifest: Manifest) -> bytes:
    """The text of a manifest."""
    return (json.dumps({
        "format": FORMAT,
        "info": manifest.info,
        "node": dict(manifest.node),
        "from": manifest.before,
        "to": manifest.after,
        "erase": list(manifest.erase),
        "install": [vars(package) for package in manifest.install],
    }, indent=1) + "\n").encode()


def read_manifest(text: bytes) -> Manifest:
    """Check and read a manifest. Raises RedpakError that says what is wrong with it."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise RedpakError(f"{MANIFEST} is not JSON: {err}") from err
    reader = _ManifestReader(data)
    if reader.text("format") != FORMAT:
        raise RedpakError(f"{MANIFEST} has the format {reader.text('format')}",
                          hint=f"this redpak knows {FORMAT}")
    return reader.read(hashlib.sha256(text).hexdigest())


class _ManifestReader:
    """Reads each value once, insisting on its type."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, dict):
            self._fail("is no object")
        self._data = data

    def read(self, identity: str) -> Manifest:
        node = self._data.get("node")
        if not isinstance(node, dict) or not node or set(node) - {"alias", "name", "path"}:
            self._fail("node: has none of alias, name and path")
        if not all(isinstance(value, str) and value for value in node.values()):
            self._fail("node: not text")
        packages = tuple(
            _ManifestReader(item).read_package() for item in self.list("install", dict)
        )
        if len({package.file for package in packages}) != len(packages):
            self._fail("install: a file comes twice")
        return Manifest(
            identity, self.text("info"), node, self.text("from", _STATE), self.text("to", _STATE),
            tuple(self.list("erase", str)), packages,
        )

    def read_package(self) -> BundlePackage:
        size = self._data.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 < size < 1 << 40:
            self._fail("size: no number of bytes")
        how = self.text("how")
        if how not in ("upgrade", "install"):
            self._fail("how: neither upgrade nor install")
        file, digest = self.text("file", _FILE_NAME), self.text("sha256", _DIGEST)
        return BundlePackage(file, self.text("package"), digest, size, how)

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self._data.get(key)
        if not isinstance(value, str) or (pattern and not pattern.fullmatch(value)):
            self._fail(f"{key}: missing or wrong")
        return str(value)

    def list(self, key: str, kind: type) -> list[Any]:
        value = self._data.get(key)
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            self._fail(f"{key}: missing or wrong")
        return list(value)

    @staticmethod
    def _fail(what: str) -> NoReturn:
        raise RedpakError(f"{MANIFEST}: {what}", hint=_TAR_HINT)


@dataclass(frozen=True)
class Member:
    """A file in a bundle; ``stream`` stands at its first byte."""

    name: str
    size: int
    stream: IO[bytes]


class Bundle:
    """An open bundle, of which manifest and signature were read and nothing was checked.

    ``check`` gets both texts and raises RedpakError unless the signature is good.
    """

    def __init__(self, path: str, check: Callable[[bytes, bytes], None]) -> None:
        """Raises RedpakError."""
        self.path = path
        self._members = _list_directory(path) if os.path.isdir(path) else _list_tar(path)
        text = self._read(MANIFEST)
        try:
            check(text, self._read(SIGNATURE))
            self.manifest = read_manifest(text)
        except RedpakError as err:
            raise RedpakError(f"{path}: {err.message}", hint=err.hint) from err

    def unpack(self, directory: str) -> None:
        """Put the packages into ``directory``, each checked by its digest; what an earlier attempt
        left there is kept. Raises RedpakError, OSError."""
        wanted = {f"{PACKAGES}/{each.file}": each for each in self.manifest.install}
        for member in self._members:
            package = wanted.pop(member.name, None)
            if package is None:
                raise RedpakError(f"{self.path}: {member.name!r} is not in its manifest, or comes"
                                  " twice")
            target = f"{directory}/{package.file}"
            if member.size != package.size:
                self._refuse(package)
            if not os.path.exists(target) or _digest_of(target) != package.sha256:
                self._copy(member, package, target)
        if wanted:
            raise RedpakError(f"{self.path}: {min(wanted)} is missing")

    def _copy(self, member: Member, package: BundlePackage, target: str) -> None:
        partial = f"{target}.part"
        digest, left = hashlib.sha256(), member.size
        with open(partial, "wb") as out:
            while left:
                block = member.stream.read(min(_CHUNK, left))
                if not block:
                    raise RedpakError(f"{self.path}: {member.name} is cut short")
                digest.update(block)
                out.write(block)
                left -= len(block)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != package.sha256:
            os.unlink(partial)
            self._refuse(package)
        # Only what is whole and right gets its name: this is where the next attempt goes on.
        os.rename(partial, target)

    def _refuse(self, package: BundlePackage) -> NoReturn:
        raise RedpakError(f"{self.path}: {package.file} is not what the manifest says: its digest"
                          " differs")

    def _read(self, name: str) -> bytes:
        member = next(self._members, None)
        if member is None or member.name != name:
            raise RedpakError(f"{self.path}: no bundle, {name} is not where it belongs",
                              hint=_TAR_HINT)
        if member.size > _LIMITS[name]:
            raise RedpakError(f"{self.path}: {name} is too big")
        data = member.stream.read(member.size)
        if len(data) != member.size:
            raise RedpakError(f"{self.path}: {name} is cut short")
        return data


def _digest_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_CHUNK), b""):
            digest.update(block)
    return digest.hexdigest()


def _list_directory(path: str) -> Iterator[Member]:
    """The files of a bundle that is a directory, in the order in which they are needed."""
    names = [MANIFEST, SIGNATURE]
    packages = f"{path}/{PACKAGES}"
    if os.path.isdir(packages):
        names += [f"{PACKAGES}/{name}" for name in sorted(os.listdir(packages))]
    for name in names:
        try:
            fd = os.open(f"{path}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                         | os.O_NONBLOCK)
        except OSError as err:
            raise RedpakError(f"{path}/{name}: {err.strerror}") from err
        with open(fd, "rb") as stream:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise RedpakError(f"{path}/{name}: no regular file")
            yield Member(name, info.st_size, stream)


def _list_tar(path: str) -> Iterator[Member]:
    """The regular files of a tar archive, as they come: plain ustar headers and nothing else.

    tarfile would follow the archive into links, devices, sparse files and unlimited extension
    headers; a bundle has no use for any of them.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 -- closed when the iterator ends
    except OSError as err:
        raise RedpakError(f"{path}: {err.strerror}") from err
    with stream:
        place = 0
        while True:
            stream.seek(place)
            header = stream.read(_BLOCK)
            if header == bytes(_BLOCK):
                return
            name, size, kind = _read_tar_header(path, header)
            if kind in (b"0", b"\0"):
                yield Member(name, size, stream)
            elif kind != b"5" or size:
                raise RedpakError(f"{path}: {name!r} is neither a file nor a directory",
                                  hint=_TAR_HINT)
            place += _BLOCK + -(-size // _BLOCK) * _BLOCK


def _read_tar_header(path: str, header: bytes) -> tuple[str, int, bytes]:
    """Name, size and type of a member: POSIX.1-1988 ustar, which GNU tar's short names fit too."""
    try:
        if len(header) != _BLOCK or header[257:262] != b"ustar":
            raise ValueError
        total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        if _octal(header[148:156]) != total:
            raise ValueError
        size = _octal(header[124:136])
        name = header[:100].partition(b"\0")[0]
        prefix = header[345:500].partition(b"\0")[0] if header[262:263] == b"\0" else b""
        text = (prefix + b"/" + name if prefix else name).decode("ascii")
    except ValueError:
        raise RedpakError(f"{path}: no bundle, not an uncompressed tar archive, or damaged",
                          hint=_TAR_HINT) from None
    return text[2:] if text.startswith("./") else text, size, header[156:157]


def _octal(field: bytes) -> int:
    """A number of a tar header; int() would take a sign too. Raises ValueError."""
    digits = field.strip(b" \0") or b"0"
    if not digits.isdigit():
        raise ValueError
    return int(digits, 8)
