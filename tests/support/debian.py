# SPDX-License-Identifier: Apache-2.0
"""Packages of the Debian host as rpms: the payload as it is, in packages of rpm's."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.rpms import build_spec

_SPEC = """\
# As Debian's own helpers do, dependencies come from ELF files only.
%global __requires_exclude_from ^/(etc|usr/share)/
%global __requires_exclude ^perl[(]|^/usr/bin/|^/lib/init
Name: {name}
Version: {version}
Release: {release}
Summary: Debian's {name}
License: see /usr/share/doc
{requires}
%description
For the tests.
%install
cp -a {payload}/. %{{buildroot}}/
%files
%defattr(-,root,root)
{files}
"""
# Directories of the core OS, which no package of a node owns.
_SHARED = re.compile(r"(/(usr|etc|lib|bin|sbin|var|opt|srv|run)"
                     r"|/usr/(bin|sbin|lib|share)|/var/(lib|log|cache)|/lib/systemd"
                     r"|(/usr)?/lib/[^/]*-linux-gnu)")


def download_packages(names: Sequence[str], directory: Path) -> None:
    """Fetch the .deb files with apt-get, once; without a network this fails."""
    missing = [name for name in names if not _find_debs(name, directory)]
    if not missing:
        return
    directory.mkdir(parents=True, exist_ok=True)
    done = _download(missing, directory)
    if done.returncode and os.geteuid() == 0:
        subprocess.run(["apt-get", "update"], capture_output=True)
        done = _download(missing, directory)
    assert done.returncode == 0, (
        "this test repackages programs of Debian: it needs a network and apt-get, and root for "
        f"apt-get update\n{' '.join(done.args)}\n{done.stderr}")


def _download(names: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["apt-get", "download", *map(_todays_name, names)], cwd=directory,
                          capture_output=True, text=True)


def _todays_name(name: str) -> str:
    """Since Debian 13 many libraries have the suffix of the transition to 64-bit time_t."""
    shown = subprocess.run(["apt-cache", "policy", f"{name}t64"], capture_output=True, text=True)
    return f"{name}t64" if re.search(r"Candidate: [^(]", shown.stdout) else name


def _find_debs(name: str, debs: Path) -> list[Path]:
    return [*debs.glob(f"{name}_*.deb"), *debs.glob(f"{name}t64_*.deb")]


def repackage(name: str, debs: Path, outdir: Path, *, requires: Sequence[str] = ()) -> Path:
    """Make an rpm of NAME_*.deb, as it is; the path of the rpm."""
    (deb,) = _find_debs(name, debs)
    payload = debs / f"{name}.payload"
    subprocess.run(["dpkg-deb", "-x", str(deb), str(payload)], check=True)
    control = subprocess.run(["dpkg-deb", "-I", str(deb), "conffiles"], capture_output=True,
                             text=True)
    configs = set(control.stdout.split()) if control.returncode == 0 else set()
    version = subprocess.run(["dpkg-deb", "-f", str(deb), "Version"], check=True,
                             capture_output=True, text=True).stdout.strip().partition(":")
    upstream, _, revision = (version[2] or version[0]).partition("-")
    spec = debs / f"{name}.spec"
    spec.write_text(_SPEC.format(
        name=name, version=upstream.replace("-", "_"), release=revision.replace("-", "_") or "1",
        requires="\n".join(f"Requires: {word}" for word in requires), payload=payload,
        files="\n".join(_list_files(payload, configs))))
    return build_spec(spec, outdir, {})


def _list_files(payload: Path, configs: set[str]) -> list[str]:
    lines = []
    for folder, names, files in os.walk(payload):
        for name in sorted([*names, *files]):
            path = Path(folder, name)
            inside = "/" + str(path.relative_to(payload))
            if path.is_dir() and not path.is_symlink():
                if not _SHARED.fullmatch(inside):
                    lines.append(f'%dir "{inside}"')
            else:
                lines.append(f'{"%config(noreplace) " * (inside in configs)}"{inside}"')
    return lines
