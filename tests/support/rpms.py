# SPDX-License-Identifier: Apache-2.0
"""Small rpms and repositories, built by the real rpmbuild and createrepo_c in about 0.2 s each."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence, Union


@dataclass(frozen=True)
class RpmFile:
    """One file of a package; `directive` goes before its path in %files, as in `%ghost`."""

    content: str = ""
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    directive: str = ""


def build_rpm(
    outdir: Path,
    name: str,
    *,
    version: str = "1.0",
    release: str = "1",
    epoch: int = 0,
    files: Mapping[str, Union[str, RpmFile]] = {},
    requires: Sequence[str] = (),
    tags: Sequence[str] = (),
    scriptlets: Mapping[str, str] = {},
    install: str = "",
    extra_files: str = "",
) -> Path:
    """Build one noarch package into outdir and return its path.

    files maps absolute paths to contents; tags are whole preamble lines (`Conflicts: x`);
    scriptlets maps `post`, `preun -p <lua>` ... to bodies; install is added to %install, and
    extra_files to %files, for what a mapping cannot say (directories, symlinks, hard links).
    """
    preamble = [
        f"Name: {name}",
        f"Version: {version}",
        f"Release: {release}",
        *([f"Epoch: {epoch}"] if epoch else []),
        f"Summary: Test package {name}",
        "License: Apache-2.0",
        "BuildArch: noarch",
        *(f"Requires: {requirement}" for requirement in requires),
        *tags,
    ]
    with tempfile.TemporaryDirectory(prefix="rpmbuild-") as work:
        steps, listing = _place_files(Path(work), files)
        sections = [
            *preamble,
            "%description",
            "For the tests.",
            "%install",
            "mkdir -p %{buildroot}",
            *steps,
            install,
            *(f"%{head}\n{body}" for head, body in scriptlets.items()),
            "%files",
            *listing,
            extra_files,
            "",
        ]
        spec = Path(work, f"{name}.spec")
        spec.write_text("\n".join(sections))
        return _run_rpmbuild(spec, Path(work), outdir, {})


def _place_files(
    work: Path, files: Mapping[str, Union[str, RpmFile]]
) -> tuple[list[str], list[str]]:
    """Write the contents below work; return the lines for %install and for %files."""
    steps = []
    listing = []
    for number, (path, entry) in enumerate(files.items()):
        if isinstance(entry, str):
            entry = RpmFile(content=entry)
        source = work / f"file{number}"
        source.write_text(entry.content)
        steps.append(f"install -D -m {entry.mode:04o} {source} '%{{buildroot}}{path}'")
        attributes = f"%attr({entry.mode:04o},{entry.owner},{entry.group})"
        listing.append(f'{attributes} {entry.directive} "{path}"')
    return steps, listing


def build_spec(spec: Path, outdir: Path, macros: Mapping[str, str]) -> Path:
    """Build a spec file whose sources stand beside it into outdir; the path of its one package."""
    with tempfile.TemporaryDirectory(prefix="rpmbuild-") as work:
        sources = {"_sourcedir": os.fspath(spec.parent), **macros}
        return _run_rpmbuild(spec, Path(work), outdir, sources)


def _run_rpmbuild(spec: Path, work: Path, outdir: Path, macros: Mapping[str, str]) -> Path:
    definitions = {
        "_topdir": f"{work}/top",
        "_dbpath": f"{work}/db",
        "_rpmdir": f"{work}/rpms",
        "_tmppath": str(work),
        "_build_id_links": "none",
        "debug_package": "%{nil}",
        "__os_install_post": "%{nil}",
        **macros,
    }
    command = ["rpmbuild", "-bb", "--quiet"]
    for key, value in definitions.items():
        command += ["--define", f"{key} {value}"]
    done = subprocess.run(
        [*command, str(spec)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"rpmbuild failed:\n{spec.read_text()}\n{done.stderr}"
    (built,) = Path(work, "rpms").glob("*/*.rpm")
    outdir.mkdir(parents=True, exist_ok=True)
    target = outdir / built.name
    shutil.copyfile(built, target)
    return target


def create_repository(directory: Path, *, groups: Mapping[str, Sequence[str]] = {}) -> Path:
    """Index the rpms in directory (again), and return it; groups maps ids to package names."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["createrepo_c", "--quiet", "--simple-md-filenames"]
    if groups:
        comps = directory / "comps.xml"
        comps.write_text(_comps(groups))
        command += ["--groupfile", os.fspath(comps)]
    subprocess.run([*command, os.fspath(directory)], check=True, stdin=subprocess.DEVNULL)
    return directory


def makes_accounts() -> bool:
    """Whether this rpm makes the accounts that a package declares (sysusers.d), as 4.19 began."""
    macro = ["rpm", "--eval", "%{?__systemd_sysusers}"]
    return bool(subprocess.run(macro, check=True, capture_output=True).stdout.strip())


def _comps(groups: Mapping[str, Sequence[str]]) -> str:
    lines = ["<comps>"]
    for name, packages in groups.items():
        lines += ["<group>", f"<id>{name}</id><name>{name}</name><description/>", "<packagelist>"]
        lines += [f'<packagereq type="mandatory">{package}</packagereq>' for package in packages]
        lines += ["</packagelist>", "</group>"]
    return "\n".join([*lines, "</comps>", ""])


def write_repo_file(path: Path, repo_id: str, directory: Path, *lines: str) -> Path:
    """Write a .repo file for a local repository; lines are added to its section."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join(
            [
                f"[{repo_id}]",
                f"name={repo_id}",
                f"baseurl=file://{directory}",
                "enabled=1",
                "gpgcheck=0",
                *lines,
                "",
            ]
        )
    )
    return path
