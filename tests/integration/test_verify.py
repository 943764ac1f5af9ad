# SPDX-License-Identifier: Apache-2.0
"""red-check compares files as `rpm --verify` does: beside it, on files that were changed at random.
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from redcheck.owned import OwnedFile, read_files
from redcheck.packages import Package
from redcheck.verify import compare, describe, read_accounts
from redrpm.rpmdb import open_rpmdb
from support.rpms import RpmFile, build_rpm

FILES = ("data", "config", "ghost", "optional", "loose", "link", "directory", "program", "lost")


def install(root: Path, *packages: Path) -> None:
    words = ["rpm", f"--root={root}", "--dbpath=/var/lib/rpm", "-i", "--replacefiles", "--nodeps"]
    subprocess.run([*words, *packages], check=True, capture_output=True)


def verify_by_rpm(root: Path, name: str) -> dict[str, str]:
    """Path -> letters, or "missing"; nothing for what is as it should be."""
    done = subprocess.run(["rpm", f"--root={root}", "--dbpath=/var/lib/rpm", "-V", name],
                          capture_output=True, text=True, check=False)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {next(word for word in row if word.startswith("/")): row[0] for row in rows
            if row[0].strip(".")}


def verify_by_us(root: Path, name: str) -> dict[str, str]:
    accounts = read_accounts([str(root)], privileged=True)
    found = {}
    for file in owned_files(root, name):
        try:
            info = os.lstat(f"{root}{file.path}")
        except FileNotFoundError:
            if not file.may_be_missing:
                found[file.path] = "missing"
            continue
        if not file.is_replaced:
            difference = compare(file, f"{root}{file.path}", info, accounts)
            if difference:
                found[file.path] = describe(difference).split()[0]
    return found


def owned_files(root: Path, name: str) -> list[OwnedFile]:
    with open_rpmdb(f"{root}/var/lib/rpm") as ts:
        (header,) = list(ts.dbMatch("name", name))
        return [file for _, _, file in read_files(Package(1, name, name, header))]


def touch_fraction(path: Path) -> None:
    """The same second: the last of its nanoseconds is the next second to a float."""
    second = int(path.lstat().st_mtime)
    os.utime(path, ns=(0, second * 10**9 + 999_999_999), follow_symlinks=False)


def same_size(path: Path) -> None:
    info = path.lstat()
    path.write_bytes(b"x" * info.st_size)
    os.utime(path, ns=(0, info.st_mtime_ns))


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/elsewhere")


CHANGES: tuple[Callable[[Path], object], ...] = (
    lambda path: path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir(),
    lambda path: path.is_file() and path.write_text("more than there was"),
    lambda path: path.is_file() and same_size(path),
    lambda path: path.chmod(path.stat().st_mode ^ 0o4021),
    lambda path: os.utime(path, (1, 1), follow_symlinks=False),
    touch_fraction,
    lambda path: os.lchown(path, 7, 0),
    lambda path: os.lchown(path, 0, 7),
    lambda path: path.is_symlink() and relink(path),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="rpm works in another root")
@pytest.mark.parametrize("seed", range(3))
def test_files_are_compared_as_rpm_compares_them(tmp_path: Path, seed: int) -> None:
    package = build_rpm(tmp_path / "rpms", "kinds", files={
        "/k/data": "data\n", "/k/config": RpmFile("a=1\n", directive="%config"),
        "/k/ghost": RpmFile("", directive="%ghost"),
        "/k/optional": RpmFile("o\n", directive="%config(missingok)"),
        "/k/loose": RpmFile("l\n", directive="%verify(not md5 size mtime)"),
        "/k/program": RpmFile("p\n", 0o4755), "/k/lost": "lost\n"},
        install="mkdir -p %{buildroot}/k/directory; ln -s data %{buildroot}/k/link",
        extra_files="%dir /k/directory\n/k/link")
    thief = build_rpm(tmp_path / "rpms", "thief", files={"/k/lost": "stolen\n"})
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    install(root, package)
    install(root, thief)
    assert verify_by_us(root, "kinds") == verify_by_rpm(root, "kinds") == {}
    generator = random.Random(seed)
    for name in FILES:
        path = root / "k" / name
        for change in generator.sample(CHANGES, generator.randint(1, 3)):
            if os.path.lexists(path) and not (stat.S_ISLNK(path.lstat().st_mode)
                                              and not path.exists()):
                change(path)
    assert verify_by_us(root, "kinds") == verify_by_rpm(root, "kinds")
    (root / "k/lost").unlink(missing_ok=True)
    assert verify_by_us(root, "kinds")["/k/lost"] == "missing"


def test_a_digest_of_an_unknown_kind_is_not_taken_for_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("data\n")
    info = path.stat()
    accounts = read_accounts([], privileged=False)
    file = OwnedFile("/file", "p-1-1.noarch", info.st_mode, info.st_size, int(info.st_mtime), "00",
                     "", "", 0, -1, "root", "root", 0, "", 0, False)
    with pytest.raises(OSError, match="a digest of an unknown kind"):
        compare(file, str(path), info, accounts)
    for digest in ("00", ""):
        different = compare(file._replace(algorithm="sha3_256", digest=digest), str(path), info,
                            accounts)
        assert describe(different).startswith("..5......"), digest
