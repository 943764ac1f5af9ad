# SPDX-License-Identifier: Apache-2.0
"""The core OS's own package manager takes no lock of ours: what a node sees while it is at work."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from redrpm import rpmdb
from support.actors import Actor
from support.nodes import make_node
from support.rpms import build_rpm, create_repository


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "core-rpmdb"
    build_rpm(directory, "of-the-core", files={})
    build_rpm(
        directory,
        "slow",
        files={"/usr/share/slow": "x\n"},
        scriptlets={"post": "touch /var/cache/begun\n"
                            "until [ -e /var/cache/go-on ]; do sleep 0.1; done"},
    )
    return create_repository(directory)


@pytest.fixture
def core(actor: Actor, pool: Path, redmain: Path) -> Path:
    """A core rpmdb of the test's own, which pool/redpak/main.yaml names."""
    shutil.copytree(redmain.parent, pool / "redpak")
    main = pool / "redpak/main.yaml"
    (present,) = re.findall(r"(?m)^ *rpmdir: *(.*)", main.read_text())
    shutil.copytree(present, pool / "core")
    main.write_text(re.sub(r"(?m)^( *rpmdir:).*", rf"\1 {pool}/core", main.read_text()))
    subprocess.run(["chown", "-R", f"{actor.uid}:{actor.gid}", pool / "redpak", pool / "core"],
                   check=True)
    return pool / "core"


def rpm(core: Path, *words: object) -> None:
    """The core OS's own rpm."""
    subprocess.run(["rpm", f"--dbpath={core}", "--justdb", "--nodeps", *map(str, words)],
                   check=True, capture_output=True)


def test_what_the_core_installs_during_a_transaction_is_seen_by_the_next_command(
    actor: Actor, pool: Path, core: Path, repository: Path
) -> None:
    actor = actor.with_environ(redpak_MAIN=str(pool / "redpak/main.yaml"))
    node = make_node(actor, pool / "node", "node", repository)
    process = actor.popen(["red-dnf", "red-install", "-y", "slow", f"--redpath={node.path}"],
                          cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (node.path / "var/cache/begun").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    (package,) = repository.glob("of-the-core-*.rpm")
    rpm(core, "-i", package)
    (node.path / "var/cache/go-on").touch()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    installed = node.dnf("red-list", "--installed")
    assert "of-the-core.noarch" in installed and "slow.noarch" in installed, installed


@pytest.fixture
def source(tmp_path: Path, repository: Path) -> Path:
    """An rpmdb with one package."""
    directory = tmp_path / "source"
    directory.mkdir()
    (package,) = repository.glob("of-the-core-*.rpm")
    rpm(directory, "-i", package)
    return directory


def test_a_copy_is_of_one_moment(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rpm changes the database after half of it was copied."""
    whole_copy = shutil.copyfile
    torn = []

    def tear(place: str, target: str) -> None:
        if torn or not place.endswith(".sqlite"):
            whole_copy(place, target)
            return
        torn.append(place)
        with open(place, "rb") as stream, open(target, "wb") as out:
            out.write(stream.read(Path(place).stat().st_size // 2))
            rpm(source, "-e", "of-the-core")
            out.write(stream.read())

    monkeypatch.setattr(shutil, "copyfile", tear)
    member = rpmdb.copy_member(rpmdb.Member("/", str(source)), str(tmp_path / "copy"))
    assert torn
    assert rpmdb.read_names(member.directory) == {}
    assert (tmp_path / "copy/rpmdb.sqlite").read_bytes() == (source / "rpmdb.sqlite").read_bytes()


def test_an_rpmdb_that_never_rests_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_copy = shutil.copyfile

    def disturb(place: Any, target: Any) -> None:
        whole_copy(place, target)
        (source / "rpmdb.sqlite").touch()

    monkeypatch.setattr(shutil, "copyfile", disturb)
    monkeypatch.setattr(rpmdb, "_PAUSE", 0.001)
    with pytest.raises(rpmdb.RedpakError, match="another command changes it all the time"):
        rpmdb.copy_member(rpmdb.Member("/", str(source)), str(tmp_path / "copy"))
    assert list((tmp_path / "copy").iterdir()) == []
