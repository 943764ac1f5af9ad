# SPDX-License-Identifier: Apache-2.0
"""Ways to harm a tree, and what red-check has to say about each.

Each function harms ``node`` of ``tree`` and returns what must be found there: the rule, and a text
that the message, the path or the package must contain.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from support.checktrees import CheckNode, Tree

Expected = tuple[str, str]
Harm = Callable[[Tree, CheckNode, random.Random], Expected]


def _own(node: CheckNode, generator: random.Random) -> str:
    return generator.choice(node.packages)


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _install(tree: Tree, node: CheckNode, *rpms: Path) -> None:
    tree.rpm(node.path, "-i", "--nodeps", "--force", "--replacefiles", *rpms)


# -- packages -------------------------------------------------------------------------------


def unmet_requirement(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _install(tree, node, tree.stock.rpm("needy"))
    return "dependency", "something-absent >= 3 is needed by needy-1-1.noarch"


def removed_requirement(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if len(node.packages) < 2:
        return unmet_requirement(tree, node, generator)
    tree.rpm(node.path, "-e", "--nodeps", node.packages[0])
    return "dependency", f"{node.packages[0]} = 1-1 is needed by {node.packages[1]}-1-1.noarch"


def conflict(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _install(tree, node, tree.stock.rpm("foe"))
    return "conflict", "p000 conflicts with foe"


def obsolete(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _install(tree, node, tree.stock.rpm("heir"))
    return "obsolete", "p000"


def duplicate(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    name = node.packages[-1]
    _install(tree, node, tree.stock.rpm(name, "2"))
    return "duplicate", f"{name} is installed 2 times"


def shadow(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if node.parent is None:
        return duplicate(tree, node, generator)
    name = generator.choice(tree.nodes[0].packages)
    _install(tree, node, tree.stock.rpm(name, generator.choice("12")))
    return "shadow", f"shadows {name}-1-1.noarch"


def file_conflict(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _install(tree, node, tree.stock.rpm("thief"))
    return "file-conflict", "/usr/bin/p000"


def unsigned(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _install(tree, node, tree.stock.rpm("unsigned"))
    return "unsigned", "unsigned-1-1.noarch"


def untrusted(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _install(tree, node, tree.stock.rpm("alien"))
    return "untrusted", "alien-1-1.noarch"


def damaged_header(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    name = _own(node, generator)
    with closing(sqlite3.connect(node.path / "var/lib/rpm/rpmdb.sqlite")) as database:
        ((number, blob),) = [row for row in database.execute("SELECT hnum, blob FROM Packages")
                             if f"\0{name}\0".encode() in row[1]]
        changed = blob.replace(b"For the tests", b"For the pests")
        assert changed != blob
        database.execute("UPDATE Packages SET blob = ? WHERE hnum = ?", (changed, number))
        database.commit()
    return "rpmdb", f"{name}-1-1.noarch"


def damaged_index(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    name = _own(node, generator)
    with closing(sqlite3.connect(node.path / "var/lib/rpm/rpmdb.sqlite")) as database:
        table = generator.choice(["Providename", "Name"])
        database.execute(f"DELETE FROM {table} WHERE key = ?", (name,))
        database.commit()
    return "rpmdb", f"{name}-1-1.noarch"


def unread_headers(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    """rpm passes over what it cannot read, and takes a database without an index for an empty
    one."""
    damage = generator.choice(["UPDATE Packages SET blob = x'00' WHERE hnum ="
                               " (SELECT MIN(hnum) FROM Packages)",
                               "DROP TABLE Name", "DROP TABLE Basenames"])
    with closing(sqlite3.connect(node.path / "var/lib/rpm/rpmdb.sqlite")) as database:
        database.execute(damage)
        database.commit()
    return "rpmdb", "damaged rpmdb: rpm "


def destroyed_rpmdb(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = node.path / "var/lib/rpm/rpmdb.sqlite"
    path.write_bytes(b"not a database" + bytes(8192))
    return "rpmdb", "rpm"


# -- files ----------------------------------------------------------------------------------


def changed_content(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/usr/share/{_own(node, generator)}/{generator.choice(['one', 'deep/three'])}"
    _append(Path(f"{node.path}{path}"), "x")
    return "changed-file", path


def changed_bit(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    """One bit, with size and time as they were."""
    path = f"/usr/bin/{_own(node, generator)}"
    file = Path(f"{node.path}{path}")
    info = file.stat()
    data = bytearray(file.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    file.write_bytes(data)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    return "changed-file", path


def changed_mode(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/usr/bin/{_own(node, generator)}"
    os.chmod(f"{node.path}{path}", 0o777)
    return "changed-file", path


def changed_time(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/opt/{_own(node, generator)}"
    os.utime(f"{node.path}{path}", (1, 1))
    return "changed-file", path


def changed_link(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/usr/share/{_own(node, generator)}/link"
    os.unlink(f"{node.path}{path}")
    os.symlink("/etc/passwd", f"{node.path}{path}")
    return "changed-file", path


def changed_type(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/usr/share/{_own(node, generator)}/two"
    os.unlink(f"{node.path}{path}")
    generator.choice([os.mkdir, os.mkfifo])(f"{node.path}{path}")
    return "changed-file", path


def changed_owner(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if tree.actor.uid != 0:
        return changed_mode(tree, node, generator)
    path = f"/usr/bin/{_own(node, generator)}"
    os.chown(f"{node.path}{path}", 1, 0)
    return "changed-file", path


def changed_directory(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/usr/share/{_own(node, generator)}/deep"
    os.chmod(f"{node.path}{path}", 0o777)
    return "changed-file", path


def missing_file(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    name = _own(node, generator)
    path = generator.choice([f"/usr/bin/{name}", f"/usr/share/{name}/link", f"/etc/{name}.conf"])
    os.unlink(f"{node.path}{path}")
    return "missing-file", path


def missing_directory(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/usr/share/{_own(node, generator)}/deep"
    os.unlink(f"{node.path}{path}/three")
    os.rmdir(f"{node.path}{path}")
    return "missing-file", f"{path}/three"


def changed_config(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = f"/etc/{_own(node, generator)}.conf"
    _append(Path(f"{node.path}{path}"), "b=2\n")
    return "changed-config", path


def unowned_file(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    path = generator.choice(["/usr/bin/stray", "/etc/stray", "/opt/stray", "/usr/share/.hidden",
                             f"/usr/share/{_own(node, generator)}/deep/stray", "/stray"])
    generator.choice([lambda name: Path(name).write_text("x"), os.mkfifo,
                      lambda name: os.symlink("/nowhere", name)])(f"{node.path}{path}")
    return "unowned-file", path


# -- configuration --------------------------------------------------------------------------


def unknown_key(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    text = node.config.read_text()
    node.config.write_text(text.replace("config:\n", "config:\n  hostnam: x\n", 1))
    return "configuration", 'unknown key "hostnam"'


def wrong_type(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _append(node.config, "  - {mode: Nonsense, mount: /x}\n")
    return "configuration", "Nonsense"


def broken_yaml(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _append(node.config, "exports: [\n")
    return "configuration", "YAML"


def missing_config(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    node.config.unlink()
    return "configuration", "has no configuration"


def broken_status(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    node.status.write_text("state: Perhaps\n")
    return "configuration", "Perhaps"


def undefined_name(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _append(node.config, "  - {mode: Restricted, mount: /x/$NOWHERE_DEFINED, path: /usr}\n")
    return "configuration", "NOWHERE_DEFINED"


def loosened(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if node.parent is None:
        return unknown_key(tree, node, generator)
    line = generator.choice(["gpgcheck: false", "share_net: enabled"])
    text = node.config.read_text()
    node.config.write_text(text.replace("config:\n", f"config:\n  {line}\n", 1))
    return "loosened", line.split(":")[0]


def lost_mount(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if node.parent is None:
        return wrong_type(tree, node, generator)
    other = generator.choice([each for each in tree.nodes if node.has_ancestor(each)
                              and each is not node])
    _append(node.config, f"  - {{mode: Tmpfs, mount: /nodes/{other.alias}/usr}}\n")
    return "merge", f"/nodes/{other.alias}/usr"


def missing_source(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    mode = generator.choice(["Restricted", "Public", "RestrictedFile", "Overlay"])
    _append(node.config, f"  - {{mode: {mode}, mount: /x/y, path: $NODE_PATH/usr/absent}}\n")
    return "export-source", "/usr/absent"


def file_for_directory(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    _append(node.config, "  - {mode: PublicFile, mount: /x/y, path: $NODE_PATH/usr/share}\n")
    return "export-source", "is a directory"


def hiding_mount(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    name = _own(node, generator)
    below = generator.choice(["/share", f"/share/{name}", f"/share/{name}/deep", "/bin"])
    mode = generator.choice(["mode: Tmpfs", "mode: Restricted, path: /usr"])
    _append(node.config, f"  - {{{mode}, mount: /nodes/{node.alias}/usr{below}}}\n")
    return "hidden-files", below


def same_alias(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if node.parent is None:
        return unknown_key(tree, node, generator)
    text = node.config.read_text()
    node.config.write_text(re.sub(r"(?m)^  alias: .*$", f"  alias: {node.parent.alias}", text))
    return "alias", f"the alias {node.parent.alias}"


def same_name(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if len(tree.nodes) == 1:
        return unknown_key(tree, node, generator)
    other = tree.nodes[0] if node is not tree.nodes[0] else tree.nodes[1]
    name = re.search(r"(?m)^  name: (.*)$", other.config.read_text())
    assert name
    text = node.config.read_text()
    node.config.write_text(re.sub(r"(?m)^  name: .*$", name[0], text))
    return "name", name[1].strip('"')


def foreign_ancestor(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    # As root checks the nodes of a user as that user, the top must not belong to nobody.
    if node.parent in (None, tree.nodes[0]) or tree.actor.uid != 0 or tree.image:
        return changed_mode(tree, node, generator)
    assert node.parent is not None
    os.chown(node.parent.path, 4321, 4321)
    return "owner", f"ancestor {node.parent.alias}"


# -- status ---------------------------------------------------------------------------------


def disabled(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    state = generator.choice(["Disable", "Unknown", "Error"])
    node.status.write_text(node.status.read_text().replace("Enable", state))
    return "state", state


def moved(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    text = node.status.read_text()
    node.status.write_text(re.sub(r"(?m)^realpath: .*$", "realpath: /else/where", text))
    return "moved", "/else/where"


def future_proof(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    later = int(time.time() * 1000) + 10**9
    text = node.status.read_text()
    node.status.write_text(re.sub(r"(?m)^timestamp: .*$", f"timestamp: {later}", text))
    return "state", "future"


def expired(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    if not tree.image:  # a node that can be written is stamped
        return disabled(tree, node, generator)
    text = node.config.read_text()
    node.config.write_text(text.replace("config:\n", "config:\n  maxage: 3\n", 1))
    old = int(time.time() * 1000) - 5 * 86_400_000
    status = node.status.read_text()
    node.status.write_text(re.sub(r"(?m)^timestamp: .*$", f"timestamp: {old}", status))
    return "expired", "5 days old"


def journal(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    (node.path / ".redpak/journal").write_text("{}")
    return "journal", "not finished"


def stage(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    name = generator.choice(["stage", "stage.discarded"])
    (node.path / ".redpak" / name / "root").mkdir(parents=True)
    return "stage", name


def temporary_status(tree: Tree, node: CheckNode, generator: random.Random) -> Expected:
    name = ".rednode.yaml.4194305.tmp"  # of a process that cannot be: proc(5), pid_max
    (node.path / name).write_text("")
    return "stage", name


HARMS: tuple[Harm, ...] = (
    unmet_requirement, removed_requirement, conflict, obsolete, duplicate, shadow, file_conflict,
    unsigned, untrusted, damaged_header, damaged_index, unread_headers,
    destroyed_rpmdb,
    changed_content, changed_bit, changed_mode, changed_time, changed_link, changed_type,
    changed_owner, changed_directory, missing_file, missing_directory, changed_config,
    unowned_file,
    unknown_key, wrong_type, broken_yaml, missing_config, broken_status, undefined_name, loosened,
    lost_mount, missing_source, file_for_directory, hiding_mount, same_alias, same_name,
    foreign_ancestor,
    disabled, moved, future_proof, expired, journal, stage, temporary_status,
)
