# SPDX-License-Identifier: Apache-2.0
"""redpak.spec and the Debian package: built, checked, and installed on a view of the system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.actors import SYSTEM_PATH, describe

PACKAGES = {
    "redpak", "python3-redpak", "red-wrap", "red-rpm", "python3-dnf-plugin-redpak",
    "libdnf5-plugin-redpak", "redpak-rpm-macros",
}


@pytest.fixture(scope="module")
def packages(session_pool: Path, readable_checkout: Path) -> Path:
    """The packages of this checkout; %check, the unit tests, runs in the tests' interpreter."""
    directory = session_pool / "packages"
    build = readable_checkout / "scripts/build-packages"
    done = subprocess.run(
        [str(build), str(directory), "--define", f"check_python {sys.executable}"],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, describe(done)
    return directory


def query(package: Path, form: str) -> list[str]:
    done = subprocess.run(
        ["rpm", "-qp", "--queryformat", form, str(package)], capture_output=True, text=True
    )
    assert done.returncode == 0, describe(done)
    return done.stdout.splitlines()


def binary_packages(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.rpm") if not path.match("*.src.rpm"))


def test_the_spec_file_builds_every_package(packages: Path) -> None:
    built = [query(path, "%{NAME}\n")[0] for path in binary_packages(packages)]
    assert set(built) >= PACKAGES
    assert {name for name in built if name not in PACKAGES} <= {"redpak-debuginfo"}


def test_rpmlint_finds_no_error(packages: Path, checkout: Path) -> None:
    done = subprocess.run(
        ["rpmlint", "-c", str(checkout / "tests/support/rpmlint.toml"),
         str(checkout / "redpak.spec"), *map(str, sorted(packages.glob("*.rpm")))],
        capture_output=True, text=True, env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
    )
    assert re.search(r"packages and 1 specfiles checked; 0 errors", done.stdout), describe(done)
    assert done.returncode == 0, describe(done)


def test_no_file_is_in_two_packages_and_commands_are_where_they_belong(packages: Path) -> None:
    owners: dict[str, list[str]] = {}
    for package in binary_packages(packages):
        name = query(package, "%{NAME}\n")[0]
        for file in query(package, "[%{FILENAMES}\n]"):
            owners.setdefault(file, []).append(name)
    twice = {file: names for file, names in owners.items() if len(names) > 1}
    assert not {file for file in twice if "/licenses/" not in file and "/doc/" not in file}
    assert owners["/usr/bin/red-wrap"] == ["red-wrap"]
    assert owners["/usr/bin/red-rpm"] == ["red-rpm"]
    assert owners["/usr/bin/red-dnf"] == ["python3-redpak"]
    assert owners["/usr/bin/red-conf"] == ["python3-redpak"]
    assert owners["/etc/redpak/main.yaml"] == ["python3-redpak"]


SYSTEM_SCRIPT = """
set -eu
mount --make-rprivate /
for top in usr var; do
    own=$WORK/$top
    mkdir -p "$own/upper" "$own/work"
    mount -t overlay -o "lowerdir=/$top,upperdir=$own/upper,workdir=$own/work" none "/$top" ||
        { echo "no overlayfs over /$top here"; exit 77; }
done
# Of /etc a copy: in the system's own, other tests make accounts meanwhile, the demo's too.
until cp -a /etc "$WORK/"; do rm -rf "$WORK/etc"; done
rm -f "$WORK"/etc/*.lock
sed -i /^redpak-demo:/d "$WORK"/etc/passwd "$WORK"/etc/group "$WORK"/etc/shadow "$WORK"/etc/gshadow
mount --bind "$WORK/etc" /etc
if [ -e /usr/lib/redpak/manifest.json ]; then "$SOURCE/scripts/uninstall"; fi
rm -rf /etc/redpak
if [ -e /etc/debian_version ]; then  # a database as a query by root leaves it: empty
    rm -rf /var/lib/rpm
    rpm --dbpath=/var/lib/rpm --initdb
fi
mkdir -m 1777 "$WORK/pool"
mount --bind "$WORK/pool" /var/tmp  # nodes cannot be on an overlay
"$SOURCE/scripts/try-packages" "$KIND" --nocheck
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install packages")
@pytest.mark.parametrize("kind", ["rpm", "deb"])
def test_installed_packages_serve_plain_dnf_and_are_fully_removed(
    kind: str, checkout: Path, tmp_path: Path
) -> None:
    """On overlays of /usr and /var and a copy of /etc: the host stays as it is."""
    if kind == "deb" and not Path("/etc/debian_version").exists():
        pytest.skip("no Debian here")
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", SYSTEM_SCRIPT],
        env={"PATH": SYSTEM_PATH, "HOME": str(tmp_path), "LANG": "C.UTF-8", "KIND": kind,
             "SOURCE": str(checkout), "WORK": str(tmp_path)},
        capture_output=True, text=True,
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, describe(done)
    assert "$ dnf red-install " in done.stdout
    assert done.stdout.count("\ndemo: OK\n") == 2
    assert done.stdout.endswith(f"try-packages: OK, {kind}, nothing left\n")
