# SPDX-License-Identifier: Apache-2.0
"""red-rpm: the stock rpm command line on a family of two nodes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union

import pytest

from support.actors import Actor, actor_kinds, describe, find_actor
from support.nodes import Finished, TestNode, make_node
from support.rpms import RpmFile, build_rpm
from support.signing import SigningKey, make_key
from support.trees import snapshot_tree

Word = Union[str, Path]
# rpm 6 insists on signatures, which these packages do not have.
UNSIGNED = "--nosignature"
AS_ROOT = pytest.mark.parametrize(
    "actor", ["root"] if "root" in actor_kinds() else [], indirect=True
)
AS_USER_BESIDE_ROOT = pytest.mark.parametrize(
    "actor", ["user"] if "root" in actor_kinds() else [], indirect=True
)


@dataclass(frozen=True)
class Packages:
    """Package files by what they are for."""

    base: Path
    newer: Path
    needy: Path
    broken: Path
    signed: Path
    key: SigningKey


@pytest.fixture(scope="module")
def packages(session_pool: Path) -> Packages:
    directory = session_pool / "red-rpm"
    key = make_key(directory, "maker")

    def build(name: str, version: str = "1", **options: object) -> Path:
        return build_rpm(directory, name, version=version, **options)  # type: ignore[arg-type]

    def base(version: str) -> Path:
        files = {"/usr/share/base/file": f"{version}\n",
                 "/etc/base.conf": RpmFile("x\n", directive="%config(noreplace)")}
        return build("base", version, files=files,
                     scriptlets={"post": "echo $1 > /usr/share/base/post"})

    signed = build("signed", files={"/usr/share/signed": "x\n"})
    key.sign(signed)
    needy = build("needy", files={"/usr/share/needy/file": "x\n"}, requires=["base"])
    broken = build("broken", requires=["nonesuch"])
    return Packages(base("1"), base("2"), needy, broken, signed, key)


@dataclass(frozen=True)
class Nodes:
    parent: TestNode
    child: TestNode

    def rpm(self, node: TestNode, *words: Word, **options: object) -> Finished[str]:
        argv = ["red-rpm", f"--redpath={node.path}", *words]
        return node.actor.run(argv, **options)  # type: ignore[arg-type]

    def check(self, node: TestNode, *words: Word) -> str:
        done = self.rpm(node, *words)
        assert done.returncode == 0, describe(done)
        return done.stdout

    def state(self) -> object:
        return snapshot_tree(self.parent.path, without=(".redpak", "child/.redpak"))

    def fails(self, node: TestNode, *words: Word, message: str, status: int = 1) -> None:
        before = self.state()
        done = self.rpm(node, *words)
        assert done.returncode == status, describe(done)
        assert message in done.stderr + done.stdout, describe(done)
        assert "Traceback" not in done.stderr, describe(done)
        assert self.state() == before, describe(done)


@pytest.fixture
def nodes(actor: Actor, pool: Path, packages: Packages) -> Nodes:
    """parent has base, its child needs it."""
    parent = make_node(actor, pool / "parent", "parent")
    found = Nodes(parent, make_node(actor, parent.path / "child", "child"))
    found.check(parent, "-i", UNSIGNED, packages.base)
    found.check(found.child, "-U", UNSIGNED, packages.needy)
    return found


def test_a_query_is_that_of_stock_rpm_on_the_nodes_rpmdb(nodes: Nodes) -> None:
    stock = ["rpm", "--dbpath", str(nodes.child.path / "var/lib/rpm")]
    for words in (["-qa"], ["-ql", "needy"], ["-q", "base", "needy"], ["-q", "--requires", "needy"],
                  ["-qa", "--qf", "%{NAME}\\n"], ["-q", "--whatprovides", "needy"], ["-q"]):
        theirs = nodes.child.actor.run([*stock, *words])
        ours = nodes.rpm(nodes.child, *words)
        assert (ours.returncode, ours.stdout, ours.stderr) == (
            theirs.returncode, theirs.stdout, theirs.stderr), words


def test_the_node_comes_from_the_environment_too(nodes: Nodes) -> None:
    done = nodes.child.actor.run(["red-rpm", "-q", "needy"], env={"REDPATH": str(nodes.child.path)})
    assert done.stdout == "needy-1-1.noarch\n", describe(done)


def test_the_family_query_names_the_node_of_each_package(nodes: Nodes) -> None:
    lines = nodes.check(nodes.child, "-qa", "--family").splitlines()
    assert {"base-1-1.noarch  parent", "needy-1-1.noarch  child"} <= set(lines)
    form = "%{NAME}|%-8{NODE}|%{NODE_PATH}\\n"
    found = nodes.check(nodes.child, "-q", "--family", "needy", "base", "--qf", form)
    assert found == (f"needy|child   |{nodes.child.path}\nbase|parent  |{nodes.parent.path}\n")
    assert "Node        : parent\n" in nodes.check(nodes.child, "-qi", "--family", "base")
    assert nodes.check(nodes.child, "-ql", "--family", "base") == (
        "/etc/base.conf\n/usr/share/base/file\n")
    done = nodes.rpm(nodes.child, "-q", "--family", "base", "nonesuch")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["package nonesuch is not installed",
                                        "base-1-1.noarch  parent"]


def test_a_file_is_found_by_its_place_in_the_node_and_by_its_own_path(nodes: Nodes) -> None:
    own, parents = nodes.child.path / "usr/share/needy/file", "usr/share/base/file"
    assert nodes.check(nodes.child, "-qf", own) == "needy-1-1.noarch\n"
    assert nodes.check(nodes.child, "-qf", "/usr/share/needy/file") == "needy-1-1.noarch\n"
    assert nodes.check(nodes.child, "-qf", nodes.parent.path / parents) == "base-1-1.noarch\n"
    found = nodes.check(nodes.child, "-qf", own, nodes.parent.path / parents)
    assert found == "needy-1-1.noarch\nbase-1-1.noarch\n"


def test_verification_looks_at_the_nodes_own_packages_or_the_familys(nodes: Nodes) -> None:
    assert nodes.check(nodes.child, "-Va") == ""
    assert nodes.check(nodes.child, "-Va", "--family") == ""
    (nodes.parent.path / "usr/share/base/file").write_text("tampered\n")
    assert nodes.check(nodes.child, "-Va") == ""
    done = nodes.rpm(nodes.child, "-Va", "--family")
    assert (done.returncode, done.stdout) == (1, "S.5....T.    /usr/share/base/file\n")
    done = nodes.rpm(nodes.parent, "-Vf", nodes.parent.path / "usr/share/base/file")
    assert (done.returncode, done.stdout) == (1, "S.5....T.    /usr/share/base/file\n")
    done = nodes.rpm(nodes.child, "-V", "base")
    assert (done.returncode, done.stdout) == (1, "package base is not installed\n")


def test_check_is_red_check_where_there_is_no_dnf(nodes: Nodes) -> None:
    assert nodes.check(nodes.child, "--check", "--dependencies").startswith("Proven: ")
    (nodes.parent.path / "usr/share/base/file").write_text("changed\n")
    done = nodes.rpm(nodes.child, "--check", "--family", "--files")
    assert done.returncode == 1, describe(done)
    assert "/usr/share/base/file" in done.stdout, describe(done)
    assert nodes.rpm(nodes.child, "--check", "--nonsense").returncode == 2


def test_everybody_may_look_at_anybodys_node(nodes: Nodes, packages: Packages) -> None:
    if nodes.parent.actor.kind == "user":
        return  # root's look at this node is the other variant of the tests above
    from support.actors import find_actor

    user = find_actor("user").with_environ(**nodes.parent.actor.environ)
    argv = ["red-rpm", f"--redpath={nodes.child.path}"]
    assert user.check([*argv, "-qa", "--family"]).count("  parent\n") == 1
    assert user.check([*argv, "-Va", "--family", "--nofiles"]) == ""
    assert user.check([*argv, "-Va"]) == ""
    done = user.run([*argv, "-e", "needy"])
    assert done.returncode == 1 and "no permission, the node belongs to user 0" in done.stderr


@AS_USER_BESIDE_ROOT
def test_root_does_not_open_a_users_rpmdb_where_it_lies(nodes: Nodes, checkout: Path) -> None:
    """sqlite gives the files beside a database to its owner: here one of root's, by a hard link
    (fs.protected_hardlinks may be off)."""
    directory = nodes.child.path / "var/lib/rpm"
    with closing(sqlite3.connect(directory / "rpmdb.sqlite")) as database:
        database.execute("PRAGMA journal_mode=WAL")
    secret = nodes.parent.path.parent.parent / "secret"
    secret.write_text("root's\n")
    (directory / "rpmdb.sqlite-wal").hardlink_to(secret)
    before = sorted(os.listdir(directory))
    root = replace(nodes, child=replace(nodes.child, actor=find_actor("root").with_environ(
        **nodes.child.actor.environ)))
    assert root.check(root.child, "-qa") == "needy-1-1.noarch\n"
    assert "needy" in root.check(root.child, "-qa", "--family")
    done = root.child.actor.run([checkout / "macros/redpak-query", "--define",
                                 f"_redpath {nodes.child.path}", "--query", "-a"])
    assert done.returncode == 1, describe(done)
    assert f"belongs to another user; use: red-rpm --redpath={nodes.child.path} --query -a" in (
        done.stderr)
    assert secret.stat().st_uid == 0
    assert sorted(os.listdir(directory)) == before


@AS_ROOT
def test_nodes_may_lie_where_a_namespace_has_them(
    actor: Actor, packages: Packages
) -> None:
    made = not os.path.exists("/nodes")
    node = make_node(actor, Path(f"/nodes/redpak-test-{os.getpid()}"), "below-nodes")
    try:
        found = Nodes(node, node)
        found.check(node, "-U", UNSIGNED, packages.base)
        assert found.check(node, "-qa") == "base-1-1.noarch\n"
        found.check(node, "-V", "base")
    finally:
        shutil.rmtree("/nodes" if made else node.path)


def test_upgrade_and_erase_go_through_the_journal_and_can_be_rolled_back(
    nodes: Nodes, packages: Packages
) -> None:
    out = nodes.check(nodes.parent, "-Uvh", UNSIGNED, packages.newer)
    assert "base-2-1" in out
    assert (nodes.parent.path / "usr/share/base/file").read_text() == "2\n"
    assert (nodes.parent.path / "usr/share/base/post").read_text() == "2\n"
    nodes.parent.dnf("red-manager", "--rollback")
    assert nodes.check(nodes.parent, "-q", "base") == "base-1-1.noarch\n"
    assert (nodes.parent.path / "usr/share/base/file").read_text() == "1\n"
    nodes.check(nodes.child, "-e", "needy")
    assert nodes.check(nodes.child, "-qa") == ""
    assert not (nodes.child.path / "usr/share/needy/file").exists()


def test_what_would_break_is_refused_and_nothing_changes(nodes: Nodes, packages: Packages) -> None:
    nodes.fails(nodes.child, "-i", UNSIGNED, packages.broken,
                message="nonesuch is needed by broken")
    nodes.fails(nodes.child, "-e", "base", message=f"base-1-1.noarch belongs to node parent"
                f" ({nodes.parent.path}), node child cannot change it")
    nodes.fails(nodes.child, "-U", UNSIGNED, packages.newer, message="upgrade it there, or give"
                " this node a copy of its own with --forcenode")
    nodes.fails(nodes.parent, "-e", "base", message="it would break node child"
                f" ({nodes.child.path}): base is needed by needy-1-1.noarch; change those nodes"
                " first, or say --node-force")
    nodes.fails(nodes.child, "-e", "nonesuch", message="package nonesuch is not installed")


def test_forcenode_gives_the_node_a_copy_of_its_own(nodes: Nodes, packages: Packages) -> None:
    nodes.check(nodes.child, "-U", UNSIGNED, "--forcenode", packages.newer)
    found = nodes.check(nodes.child, "-q", "--family", "base")
    assert found == "base-2-1.noarch  child\n"
    assert nodes.check(nodes.parent, "-q", "base") == "base-1-1.noarch\n"


def test_a_test_proves_and_changes_nothing(nodes: Nodes, packages: Packages) -> None:
    before = nodes.state()
    assert nodes.rpm(nodes.parent, "-U", "--test", UNSIGNED, packages.newer).returncode == 0
    # rpm alone would let this pass: only a child needs it.
    done = nodes.rpm(nodes.parent, "-e", "--test", "base")
    assert done.returncode == 1 and "it would break node child" in done.stderr, describe(done)
    assert nodes.rpm(nodes.child, "-e", "--test", "needy").returncode == 0
    assert nodes.state() == before


def test_a_plan_shows_the_files_and_changes_nothing(nodes: Nodes, packages: Packages) -> None:
    before = nodes.state()
    out = nodes.check(nodes.parent, "-U", "--plan", UNSIGNED, packages.newer)
    assert "Files replaced: 3\n  etc/base.conf\n  usr/share/base/file\n" in out, out
    assert "base-2-1.noarch: post" in out
    assert nodes.state() == before


def test_packages_come_from_patterns_and_manifests_too(
    nodes: Nodes, packages: Packages, pool: Path
) -> None:
    manifest = nodes.child.path / "list.txt"
    manifest.write_text(f"# for the child\n{packages.newer.parent}/base-2-*.rpm\n")
    nodes.check(nodes.parent, "-U", UNSIGNED, manifest)
    assert nodes.check(nodes.parent, "-q", "base") == "base-2-1.noarch\n"
    nodes.check(nodes.child, "-e", "needy")
    nodes.check(nodes.child, "-i", UNSIGNED, f"{packages.needy.parent}/need*.rpm")
    done = nodes.rpm(nodes.child, "-i", "list.txt", cwd=pool)
    assert "list.txt: No such file or directory" in done.stderr


def test_freshen_leaves_packages_of_ancestors_alone(nodes: Nodes, packages: Packages) -> None:
    nodes.check(nodes.child, "-F", UNSIGNED, packages.newer)
    assert nodes.check(nodes.parent, "-q", "base") == "base-1-1.noarch\n"
    nodes.check(nodes.parent, "-F", UNSIGNED, packages.newer)
    assert nodes.check(nodes.parent, "-q", "base") == "base-2-1.noarch\n"


def test_keys_belong_to_the_node_that_imports_them(nodes: Nodes, packages: Packages) -> None:
    nodes.check(nodes.parent, "--import", packages.key.public)
    assert "gpg-pubkey" in nodes.parent.packages()
    assert "gpg-pubkey" not in nodes.child.packages()
    assert "signatures OK" in nodes.check(nodes.child, "-K", packages.signed)
    config = nodes.parent.path / "etc/redpack.yaml"
    config.write_text(config.read_text().replace("config:\n", "config:\n  gpgcheck: true\n", 1))
    nodes.check(nodes.child, "-i", packages.signed)
    nodes.fails(nodes.parent, "-U", packages.newer, message="does not verify: no signature",
                status=2)
    nodes.fails(nodes.parent, "-U", UNSIGNED, packages.newer, message="insists on signatures")


def test_the_rpmdb_is_rebuilt_and_modes_are_restored(nodes: Nodes) -> None:
    file = nodes.child.path / "usr/share/needy/file"
    file.chmod(0o600)
    assert nodes.rpm(nodes.child, "-Va").stdout == ".M.......    /usr/share/needy/file\n"
    nodes.check(nodes.child, "--setperms", "needy")
    assert nodes.check(nodes.child, "-Va") == ""
    assert file.stat().st_mode & 0o777 == 0o644
    nodes.check(nodes.child, "--rebuilddb")
    assert nodes.check(nodes.child, "-qa") == "needy-1-1.noarch\n"


def test_a_scriptlet_sees_the_view_and_nothing_of_the_callers(
    nodes: Nodes, pool: Path, session_pool: Path
) -> None:
    package = build_rpm(session_pool / "red-rpm-curious", "curious", scriptlets={
        "post": f"ls / > /usr/share/seen; env >> /usr/share/seen\n"
        f"if [ -e {pool} ]; then echo LEAK >> /usr/share/seen; fi"})
    done = nodes.rpm(nodes.child, "-i", UNSIGNED, package, env={"SECRET": "x"})
    assert done.returncode == 0, describe(done)
    seen = (nodes.child.path / "usr/share/seen").read_text()
    assert "usr\n" in seen and "\nview\n" not in seen
    assert "LEAK" not in seen and "SECRET" not in seen


def test_a_source_package_is_refused(nodes: Nodes, pool_root: Path) -> None:
    spec = pool_root / "source.spec"
    spec.write_text("Name: source\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\n"
                    "%description\nx\n%files\n")
    subprocess.run(["rpmbuild", "-bs", "--quiet", "--define", f"_topdir {pool_root}/top",
                    "--define", f"_srcrpmdir {pool_root}", spec], check=True)
    nodes.fails(nodes.child, "-i", UNSIGNED, pool_root / "source-1-1.src.rpm",
                message="source: is a source package")


def test_a_package_whose_paths_lead_elsewhere_is_refused_at_first_sight(
    nodes: Nodes, pool_root: Path
) -> None:
    """Before anybody has vouched for it: of a symlink the view copies what it replaces."""
    built = build_rpm(pool_root, "evil", install="mkdir -p %{buildroot}/usr/AA/BB/CC/DD/victim\n"
                      "ln -s x %{buildroot}/usr/AA/BB/CC/DD/victim/link",
                      extra_files="/usr/AA/BB/CC/DD/victim/link")
    content = built.read_bytes()
    built.write_bytes(content.replace(b"/usr/AA/BB/CC/DD/", b"/usr/../../../../"))
    prepared = nodes.child.path.parent.parent / "victim/link"
    prepared.mkdir(parents=True)
    (prepared / "file").touch()
    nodes.fails(nodes.child, "-i", UNSIGNED, "--nodigest", built,
                message="evil: ships '/usr/../../../../victim/link', which is no path of a file")
    assert not list(nodes.child.path.glob("**/victim"))


def test_wrong_use_is_one_clear_line(nodes: Nodes, packages: Packages, actor: Actor) -> None:
    for words, message in (
        (["--redpath"], "--redpath needs a value"),
        ([], "nothing to do; see red-rpm --help"),
        (["--redpath=/"], "nothing to do; see red-rpm --help"),
        (["-qa"], "no node given; say which with --redpath=DIR or REDPATH"),
        (["--redpath=/nonexistent", "-qa"], "/nonexistent does not exist"),
        (["--redpath=relative", "-qa"], "is not absolute"),
    ):
        done = actor.run(["red-rpm", *words])
        assert done.returncode == 1 and message in done.stderr, describe(done)
        assert done.stderr.startswith("red-rpm: error: ") and done.stderr.count("\n") == 1
    nodes.fails(nodes.child, "--root=/", "-qa", message="the node says where its root")
    nodes.fails(nodes.child, "-i", "/nonexistent.rpm", message="No such file or directory")
    nodes.fails(nodes.child, "-i", "/usr/bin/true",
                message="not an rpm package (or package manifest)")
    nodes.fails(nodes.child, "--family", "-e", "needy", message="--family goes with -q or -V")
    nodes.fails(nodes.child, "--plan", "-qa", message="--plan goes with a change")
    for broken in ("--nonesuch", "-qZ"):
        assert nodes.rpm(nodes.child, "-q", broken, "needy").returncode == 1


def test_help_is_that_of_rpm_with_our_options_before_it(nodes: Nodes, actor: Actor) -> None:
    out = nodes.check(nodes.child, "--help")
    theirs = subprocess.run(["rpm", "--help"], capture_output=True, text=True, check=True).stdout
    assert "--redpath=DIR" in out and out.endswith(theirs)
    assert actor.check(["red-rpm", "--version"]).startswith("RPM version ")


def test_in_the_namespace_rpm_shows_the_leaf_and_red_rpm_the_family(nodes: Nodes) -> None:
    script = """
        rpm -qa; rpm -ql needy; red-rpm -qa; echo --; red-rpm --family -q base needy
        red-rpm -qf /nodes/child/usr/share/needy/file /nodes/parent/usr/share/base/file
        red-rpm -Va && red-rpm -V needy && red-rpm -Vf /nodes/child/usr/share/needy/file &&
        echo fine
        red-rpm -e needy || true
    """
    wrap = ["red-wrap", f"--redpath={nodes.child.path}", "--", "sh", "-c", script]
    done = nodes.child.actor.run(wrap)
    assert done.stdout.splitlines() == [
        "needy-1-1.noarch", "/usr/share/needy/file", "needy-1-1.noarch", "--",
        "base-1-1.noarch  parent", "needy-1-1.noarch  child",
        "needy-1-1.noarch", "base-1-1.noarch", "fine",
    ], describe(done)
    assert f"run red-rpm --redpath={nodes.child.path} outside of it" in done.stderr
    (nodes.child.path / "usr/share/needy/file").write_text("tampered\n")
    done = nodes.child.actor.run([*wrap[:-1], "red-rpm -Va"])
    assert done.stdout == "S.5....T.    /nodes/child/usr/share/needy/file\n", describe(done)
