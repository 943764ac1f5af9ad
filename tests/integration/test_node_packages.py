# SPDX-License-Identifier: Apache-2.0
"""Nodes as packages: examples/node and the macros, by rpmbuild, rpmlint, stock rpm and dnf."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Sequence

import pytest

from support.actors import Actor, describe
from support.frontends import stock_dnf
from support.nodes import Finished
from support.rpms import build_rpm

SPECS = ("agl-node", "agl-app-node")


def stock_macros(extra: Path) -> str:
    """The macro files of this rpm, and ours behind them as in macros.d."""
    lines = subprocess.run(["rpm", "--showrc"], capture_output=True, text=True, check=True).stdout
    (path,) = [line for line in lines.splitlines() if line.startswith("Macro path: ")]
    return f"{path.partition(': ')[2]}:{extra}"


class Ground:
    """Where an actor builds node packages and installs them, with an rpmdb of his own."""

    def __init__(self, actor: Actor, pool: Path, prefix: Path, checkout: Path) -> None:
        self.actor, self.pool, self.prefix = actor, pool, prefix
        self.specs = checkout / "examples/node"
        self.macros = stock_macros(prefix / "lib/rpm/macros.d/macros.redpak")
        self.nodes = pool / "nodes"
        self.core, self.demo = self.nodes / "agl-core", self.nodes / "agl-core/agl-demo"

    def build(self, name: str, *definitions: str) -> Path:
        top = self.pool / f"build-{name}-{len(os.listdir(self.pool))}"
        command = ["rpmbuild", "-bb", "--nodeps", f"--macros={self.macros}"]
        for definition in (f"_topdir {top}", f"_dbpath {top}/db", f"_tmppath {top}/tmp",
                           *definitions):
            command += ["--define", definition]
        self.actor.check(["mkdir", "-p", top / "tmp"])
        self.actor.check([*command, self.specs / f"{name}.spec"])
        (package,) = top.glob("RPMS/noarch/*.rpm")
        return package

    def build_here(self, name: str, *definitions: str) -> Path:
        return self.build(name, f"nodesdir {self.nodes}", *definitions)

    def try_rpm(self, *words: object) -> Finished[str]:
        argv = ["rpm", "--dbpath", self.pool / "db", "--nosignature", "--nodeps", "--noplugins"]
        return self.actor.run([*argv, *map(str, words)])

    def rpm(self, *words: object) -> str:
        done = self.try_rpm(*words)
        assert done.returncode == 0, describe(done)
        return done.stdout

    def fill(self, node: Path, alias: str) -> None:
        """Use the node: a package, data of an application, a change by the administrator."""
        package = build_rpm(self.pool / f"filling-{alias}", f"{alias}-thing", files={
            "/usr/share/thing": "x\n", "/var/lib/thing/owned": "x\n", "/etc/thing.conf": "x\n"})
        self.actor.check(["red-rpm", f"--redpath={node}", "-i", "--nosignature", package])
        assert self.actor.check(["red-rpm", f"--redpath={node}", "-qa"]).count("\n") == 1
        for place in ("private/saved", "var/lib/thing/data"):
            self.actor.check(["sh", "-c", f"echo precious > {node}/{place}"])


@pytest.fixture
def ground(actor: Actor, pool: Path, prefix: Path, readable_checkout: Path) -> Ground:
    return Ground(actor, pool, prefix, readable_checkout)


def left_below(directory: Path) -> list[str]:
    """Files and symlinks, relative."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*")
                  if not path.is_dir())


def test_rpmlint_finds_no_error(ground: Ground, checkout: Path) -> None:
    packages = [ground.build(name) for name in SPECS]
    config = checkout / "tests/support/rpmlint.toml"
    done = subprocess.run(["rpmlint", "-c", config, *packages], capture_output=True, text=True)
    assert " 0 errors" in done.stdout and ": E: " not in done.stdout, describe(done)


def test_a_package_delivers_a_node_and_retires_it(ground: Ground) -> None:
    first, child = (ground.build_here(name) for name in SPECS)
    ground.rpm("-i", first, child)
    tree = ground.actor.check(["red-conf", "tree", f"--redroot={ground.nodes}"])
    assert "agl-core" in tree and "agl-demo" in tree and tree.count("Enable") == 2, tree
    assert ground.actor.check(["red-conf", "validate", ground.core, ground.demo]) is not None
    names = [line for line in (ground.core / "etc/redpack.yaml").read_text().splitlines()
             if "name:" in line]
    ground.fill(ground.core, "agl-core")
    ground.fill(ground.demo, "agl-demo")
    ground.actor.check(["red-wrap", f"--redpath={ground.demo}", "--", "test", "-e",
                        "/nodes/agl-core/usr/share/thing"])

    # The child's package would go first by its dependency, which --nodeps passes over.
    done = ground.try_rpm("-e", "agl-node")
    assert "node agl-core has a child in" in done.stderr, describe(done)
    assert (ground.core / ".rednode.yaml").exists() and done.returncode != 0

    ground.rpm("-e", "agl-app-node")
    ground.rpm("-e", "agl-node")
    assert left_below(ground.nodes) == [
        f"agl-core/{place}" for place in
        ("agl-demo/private/saved", "agl-demo/var/lib/thing/data", "private/saved",
         "var/lib/thing/data")]
    # What was left is there again when the node comes back, by the same name.
    ground.rpm("-i", first)
    assert (ground.core / "private/saved").read_text() == "precious\n"
    again = (ground.core / "etc/redpack.yaml").read_text().splitlines()
    assert [line for line in again if "name:" in line] == names
    assert ground.actor.check(["red-rpm", f"--redpath={ground.core}", "-qa"]) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_child_on_another_file_system_keeps_its_parent(ground: Ground) -> None:
    ground.rpm("-i", ground.build_here("agl-node"))
    volume = ground.core / "volume"
    ground.actor.check(["mkdir", volume])
    options = f"uid={ground.actor.uid},gid={ground.actor.gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", volume], check=True)
    try:
        ground.actor.check(["red-conf", "create", f"--redpath={volume}/kid", "--alias=kid"])
        done = ground.try_rpm("-e", "agl-node")
        assert f"has a child in {volume}/kid: remove that first" in done.stderr, describe(done)
    finally:
        subprocess.run(["umount", volume], check=True)
    ground.actor.check(["rmdir", volume])
    ground.rpm("-e", "agl-node")
    assert not ground.core.exists()


def test_without_data_nothing_is_left(ground: Ground) -> None:
    ground.rpm("-i", ground.build_here("agl-node"))
    ground.actor.check(["red-dnf", "red-list", f"--redpath={ground.core}", "--installed"])
    ground.rpm("-e", "agl-node")
    assert not ground.core.exists()


def test_an_upgrade_keeps_state_packages_and_changed_configuration(ground: Ground) -> None:
    ground.rpm("-i", ground.build_here("agl-node"))
    ground.fill(ground.core, "agl-core")
    status = (ground.core / ".rednode.yaml").read_text()
    repo = ground.core / "etc/yum.repos.d/platform.repo"
    repo.write_text(repo.read_text() + "priority=5\n")
    # Another repository in the new package: the file changed on both sides.
    spec = ground.pool / "newer"
    shutil.copytree(ground.specs, spec)
    text = (spec / "agl-node.spec").read_text()
    (spec / "agl-node.spec").write_text(text.replace("Release:        1", "Release:        2"))
    ground.specs = spec
    ground.rpm("-U", ground.build_here("agl-node", "repourl https://new.invalid"))
    assert (ground.core / ".rednode.yaml").read_text() == status
    assert "priority=5" in repo.read_text()
    assert "new.invalid" in Path(f"{repo}.rpmnew").read_text()
    assert ground.actor.check(["red-rpm", f"--redpath={ground.core}", "-qa"]).count("\n") == 1
    ground.rpm("-e", "agl-node")
    assert "etc/yum.repos.d/platform.repo.rpmsave" in left_below(ground.core)


def test_a_node_that_is_there_already_is_not_taken_over(ground: Ground) -> None:
    package = ground.build_here("agl-node")
    ground.actor.check(["red-dnf", "red-manager", f"--redpath={ground.core}", "--create",
                        "--alias=mine"])
    done = ground.try_rpm("-i", package)
    assert done.returncode != 0 and "is a node already" in done.stderr, describe(done)
    assert 'alias: "mine"' in (ground.core / "etc/redpack.yaml").read_text()


def test_stock_dnf_installs_and_removes_a_node(ground: Ground, redmain: Path) -> None:
    if ground.actor.kind == "user":
        pytest.skip("stock dnf is root's")
    packages = [ground.build_here(name) for name in SPECS]
    home = ground.pool / "dnf"
    database = home / "rpm"
    shutil.copytree(redmain.parents[2] / "var/lib/rpm", database)
    (home / ".rpmmacros").write_text(f"%_dbpath {database}\n%_pkgverify_level digest\n")
    actor = ground.actor.with_environ(HOME=str(home))
    actor.check([*stock_dnf(home), "install", *packages])
    tree = ground.actor.check(["red-conf", "tree", f"--redroot={ground.nodes}"])
    assert tree.count("Enable") == 2, tree
    out = actor.check([*stock_dnf(home), "remove", "agl-node"])
    assert "agl-app-node" in out and not ground.core.exists(), left_below(ground.nodes)


def test_a_mistake_in_a_spec_stops_the_build(ground: Ground) -> None:
    spec = ground.pool / "wrong"
    shutil.copytree(ground.specs, spec)
    text = (ground.specs / "agl-node.spec").read_text()
    ground.specs = spec
    for old, new, message in (
        ("-a agl-core", "", "redpak_node needs -a ALIAS"),
        ("-a agl-core", "-a a:b", "a:b is no alias"),
        ("-p %{nodesdir}/agl-core", "-p relative", "relative is no path for a node"),
        ("-t default", "-t nonesuch", "nonesuch"),
    ):
        (spec / "agl-node.spec").write_text(text.replace(old, new))
        done = build_fails(ground)
        assert message in done.stdout + done.stderr, describe(done)


def build_fails(ground: Ground) -> Finished[str]:
    top = ground.pool / "build-wrong"
    command: Sequence[object] = ["rpmbuild", "-bb", "--nodeps", f"--macros={ground.macros}",
                                 "--define", f"_topdir {top}", ground.specs / "agl-node.spec"]
    done = ground.actor.run([str(word) for word in command])
    assert done.returncode != 0, describe(done)
    return done


def test_stock_rpm_queries_a_node_by_its_redpath(ground: Ground) -> None:
    """The popt aliases alone: what is asked is answered by stock rpm, the rest is refused."""
    shutil.copyfile(ground.prefix / "etc/popt.d/redpak", ground.pool.parent / "home/.popt")
    ground.actor.check(["red-dnf", "red-manager", f"--redpath={ground.core}", "--create",
                        "--alias=agl-core"])
    ground.fill(ground.core, "agl-core")
    for words in (["-qa"], ["-q", "agl-core-thing"], ["-ql", "agl-core-thing"],
                  ["-qi", "agl-core-thing"], ["-qa", "--qf", "%{NAME} -e\\n"]):
        plain = ["rpm", f"--dbpath={ground.core}/var/lib/rpm", *words]
        for node in ([f"--redpath={ground.core}"], ["--redpath", ground.core]):
            assert ground.actor.check(["rpm", *node, *words]) == ground.actor.check(plain)
            assert ground.actor.check(["rpm", *words, *node]) == ground.actor.check(plain)
    before = left_below(ground.core)
    for words in (["-i", "x.rpm"], ["-Uvh", "x.rpm"], ["-F", "x.rpm"], ["-e", "agl-core-thing"],
                  ["--import", "key"], ["-V", "agl-core-thing"], ["-Va"], ["--rebuilddb"],
                  ["--initdb"], ["--setperms", "agl-core-thing"]):
        for line in ([f"--redpath={ground.core}", *words], [*words, f"--redpath={ground.core}"]):
            done = ground.actor.run(["rpm", *line])
            assert done.returncode == 1, describe(done)
            assert f"use: red-rpm --redpath={ground.core} -" in done.stderr, describe(done)
    assert left_below(ground.core) == before
    for place, message in (("/tmp", "is not a node"), ("x", "is not absolute")):
        done = ground.actor.run(["rpm", f"--redpath={place}", "-qa"])
        assert done.returncode == 1 and message in done.stderr, describe(done)


def test_the_macros_follow_redpath(ground: Ground) -> None:
    ground.actor.check(["red-dnf", "red-manager", f"--redpath={ground.core}", "--create",
                        "--alias=agl-core"])
    rpm = ["rpm", f"--macros={ground.macros}"]
    values = ("%_dbpath %_rpmlock_path %redpak_alias %redpak_prefix %redpak_bindir"
              " %redpak_templatedir")
    out = ground.actor.check([*rpm, "-D", f"_redpath {ground.core}", "--eval", values])
    database = f"{ground.core}/var/lib/rpm"
    assert out.split() == [
        database, f"{database}/.rpm.lock", "agl-core", "/nodes/agl-core",
        "/nodes/agl-core/usr/bin", f"{ground.prefix}/etc/redpak/templates.d"]
    stock = ground.actor.check(["rpm", "--eval", "%_dbpath"])
    assert ground.actor.check([*rpm, "--eval", "%_dbpath"]) == stock
