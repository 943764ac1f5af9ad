# SPDX-License-Identifier: Apache-2.0
"""Trees of 1 to 30 nodes for red-check, with real packages: generated, copied and restored.

dnf is not needed for that: nodes are made by redpak itself, packages installed by stock rpm, as an
ordinary user inside a user namespace.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from redpak.create import create_node
from redpak.family import load_main
from redrpm.rpmdb import make_readable
from support.actors import Actor
from support.rpms import build_rpm
from support.signing import SigningKey, make_key
from support.trees import remove_tree

EACH = 4  # packages of a node
LARGEST = 30  # nodes of a tree


@dataclass(frozen=True)
class Stock:
    """Signed packages p000, p001 ... in two versions, and some that fit nowhere."""

    directory: Path
    key: SigningKey

    def rpm(self, name: str, version: str = "1") -> Path:
        return self.directory / f"{name}-{version}-1.noarch.rpm"


def build_stock(directory: Path) -> Stock:
    """Build everything once: about half a minute."""
    directory.mkdir(parents=True)
    names = [f"p{number:03}" for number in range(EACH * (LARGEST + 1))]
    for version in ("1", "2"):
        _build_many(directory, names, version)
    build_rpm(directory, "needy", version="1", requires=["something-absent >= 3"])
    build_rpm(directory, "foe", version="1", tags=["Conflicts: p000"])
    build_rpm(directory, "heir", version="1", tags=["Obsoletes: p000 < 5"])
    build_rpm(directory, "thief", version="1", files={"/usr/bin/p000": "another program\n"})
    key, other = make_key(directory, "stock"), make_key(directory, "other")
    unsigned = build_rpm(directory / "unsigned", "unsigned", version="1")
    alien = build_rpm(directory / "unsigned", "alien", version="1")
    _sign(key, sorted(directory.glob("*.rpm")))
    _sign(other, [alien])
    for path in (unsigned, alien):
        shutil.move(path, directory / path.name)
    subprocess.run(["chmod", "-R", "a+rX", str(directory)], check=True)
    return Stock(directory, key)


def _sign(key: SigningKey, packages: list[Path]) -> None:
    gpg = shutil.which("gpg") or "gpg"
    words = ["rpmsign", "--addsign"]
    for name, value in {"_gpg_name": key.name, "_gpg_path": str(key.home), "__gpg": gpg}.items():
        words += ["--define", f"{name} {value}"]
    subprocess.run([*words, *map(str, packages)], check=True, capture_output=True)


def _build_many(directory: Path, names: list[str], version: str) -> None:
    """One spec file for all: rpmbuild takes as long for twenty packages as for one."""
    lines = ["Name: stock", f"Version: {version}", "Release: 1", "Summary: For the tests",
             "License: Apache-2.0", "BuildArch: noarch", "%description", "%{summary}."]
    for number, name in enumerate(names):
        needed = f"Requires: {names[number - 1]} = {version}-1" if number % EACH else ""
        lines += [f"%package -n {name}", "Summary: For the tests", "AutoReqProv: no", needed,
                  f"%description -n {name}", "%{summary}.", f"%files -n {name}",
                  f"/usr/bin/{name}", f"/usr/share/{name}", f"%config /etc/{name}.conf",
                  f"%ghost /usr/share/{name}.ghost", f"/opt/{name}"]
    lines += [
        "%install", f"for name in {' '.join(names)}; do",
        "mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/share/$name/deep %{buildroot}/etc"
        " %{buildroot}/opt",
        f"echo program $name {version} > %{{buildroot}}/usr/bin/$name",
        "chmod 755 %{buildroot}/usr/bin/$name",
        "for file in one two deep/three; do echo $name $file > %{buildroot}/usr/share/$name/$file;"
        " done",
        "ln -s one %{buildroot}/usr/share/$name/link",
        "touch %{buildroot}/usr/share/$name.ghost",
        "echo a=1 > %{buildroot}/etc/$name.conf", "echo $name > %{buildroot}/opt/$name", "done"]
    with tempfile.TemporaryDirectory() as work:
        spec = Path(work, "stock.spec")
        spec.write_text("\n".join([*lines, ""]))
        defines = {"_topdir": f"{work}/top", "_dbpath": f"{work}/db", "_tmppath": work,
                   "_rpmdir": f"{work}/rpms", "__os_install_post": "%{nil}"}
        words = [word for key, value in defines.items() for word in ("-D", f"{key} {value}")]
        subprocess.run(["rpmbuild", "-bb", "--quiet", *words, spec], check=True,
                       capture_output=True)
        for path in Path(work, "rpms").glob("*/*.rpm"):
            shutil.move(path, directory / path.name)


@dataclass
class CheckNode:
    """A node of a generated tree; ``number`` gives its packages."""

    number: int
    path: Path
    parent: CheckNode | None
    packages: list[str] = field(default_factory=list)

    @property
    def alias(self) -> str:
        return f"n{self.number}"

    @property
    def config(self) -> Path:
        return self.path / "etc/redpack.yaml"

    @property
    def status(self) -> Path:
        return self.path / ".rednode.yaml"

    def has_ancestor(self, other: CheckNode) -> bool:
        return self is other or (self.parent is not None and self.parent.has_ancestor(other))


@dataclass
class Tree:
    """A generated tree at ``top``, which is an image's root directory when ``image`` is true."""

    actor: Actor
    stock: Stock
    top: Path
    image: bool
    main: Path
    nodes: list[CheckNode] = field(default_factory=list)

    @property
    def command(self) -> list[str]:
        where = ([f"--redroot={self.top}"] if self.image else
                 [f"--redpath={self.nodes[0].path}", "--tree", f"--rmain={self.main}"])
        return ["red-check", *where, "--json"]

    def inside(self, path: Path) -> str:
        return "/" + str(path.relative_to(self.top)) if self.image else str(path)

    def rpm(self, root: Path, *words: str | Path) -> None:
        """Stock rpm on a node, or on the core OS of an image."""
        if not words:
            return
        userns = [] if self.actor.uid == 0 else ["unshare", "--user", "--map-root-user"]
        self.actor.check([*userns, "rpm", "--root", root, "--dbpath", "/var/lib/rpm", *words],
                         env={"HOME": "/nonexistent"})
        make_readable(str(root / "var/lib/rpm"))
        self.give(root / "var/lib/rpm")

    def give(self, path: Path) -> None:
        """What this process made belongs to the actor."""
        subprocess.run(["chown", "-hR", f"{self.actor.uid}:{self.actor.gid}", str(path)],
                       check=True)

    def keep(self) -> None:
        """Keep the tree as it is now, for restore()."""
        subprocess.run(["cp", "-a", str(self.top), f"{self.top}.kept"], check=True)

    def restore(self) -> None:
        remove_tree(self.top)
        subprocess.run(["cp", "-a", f"{self.top}.kept", str(self.top)], check=True)

    def remove(self) -> None:
        for path in (self.top, Path(f"{self.top}.kept")):
            if path.exists():
                remove_tree(path)


def make_tree(actor: Actor, stock: Stock, top: Path, generator: random.Random, *, size: int,
              image: bool, conf: Path) -> Tree:
    """A random tree of ``size`` nodes: each below a random older one."""
    tree = Tree(actor, stock, top, image, top / "etc/redpak/main.yaml")
    _make_core(tree, conf)
    main = load_main(str(tree.main), {})
    for number in range(size):
        parent = generator.choice(tree.nodes) if tree.nodes else None
        between = generator.choice(["", "apps/"])
        path = (parent.path if parent else top / "nodes") / f"{between}n{number}"
        os.makedirs(path.parent, exist_ok=True)
        create_node(str(path), alias=f"n{number}", main=main)
        node = CheckNode(number, path, parent)
        tree.nodes.append(node)
        count = generator.randint(1, EACH)
        node.packages = [f"p{EACH * number + each:03}" for each in range(count)]
    if image:
        for node in tree.nodes:
            text = node.status.read_text()
            node.status.write_text(re.sub(r"(?m)^realpath: .*$",
                                          f"realpath: {tree.inside(node.path)}", text))
    root = tree.nodes[0]
    config = root.config.read_text()
    root.config.write_text(config.replace("config:\n", "config:\n  gpgcheck: true\n"
                                                       "  share_net: disabled\n", 1))
    tree.give(top)
    for node in tree.nodes:
        tree.rpm(node.path, "-i", "--nodeps", *map(stock.rpm, node.packages))
    tree.rpm(root.path, "--import", stock.key.public)
    return tree


def _make_core(tree: Tree, conf: Path) -> None:
    """The core OS: of an image a whole one with packages, else this machine with an empty rpmdb."""
    top = tree.top
    (top / "etc").mkdir(parents=True)
    shutil.copytree(conf, top / "etc/redpak")
    text = tree.main.read_text()
    if tree.image:
        for name in ("usr/bin", "usr/lib", "var/lib/rpm", "var/tmp", "nodes"):
            (top / name).mkdir(parents=True, exist_ok=True)
        # A link that would lead out of the image, were it followed as this machine does.
        (top / "bin").symlink_to("/usr/bin")
        tree.give(top)
        names = [f"p{EACH * LARGEST + each:03}" for each in range(EACH)]
        tree.rpm(top, "-i", *map(tree.stock.rpm, names))
        tree.main.write_text(re.sub(r"(?m)^  rpmdir: .*$", "  rpmdir: /var/lib/rpm", text))
    else:
        (top / "core").mkdir()
        tree.main.write_text(re.sub(r"(?m)^  rpmdir: .*$", f"  rpmdir: {top}/core", text))
        tree.give(top)
