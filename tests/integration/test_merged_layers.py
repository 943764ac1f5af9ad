# SPDX-License-Identifier: Apache-2.0
"""What an application of a merged node sees, may write, and what cannot be a layer."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor
from support.installing import Installation
from support.merged import Wrapped, make_merged
from support.trees import snapshot_tree


def put(actor: Actor, path: Path, text: str = "", mode: int = 0o644) -> Path:
    """Write a file that the actor owns, with the directories that lead to it."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    for owned in (path, *missing):
        os.chown(owned, actor.uid, actor.gid)
    return path


@pytest.fixture
def parent(actor: Actor, pool: Path) -> Wrapped:
    return Wrapped(make_merged(actor, pool / "core", "core"))


@pytest.fixture
def child(actor: Actor, parent: Wrapped) -> Wrapped:
    return Wrapped(make_merged(actor, parent.node.path / "app", "app"))


def test_the_application_sees_of_etc_what_redmain_exports_and_the_nodes_have(
    child: Wrapped, parent: Wrapped
) -> None:
    actor = child.node.actor
    put(actor, parent.node.path / "etc/app/parent.conf")
    put(actor, child.node.path / "etc/app/child.conf")
    put(actor, child.node.path / "etc/hosts", "127.0.0.1 ours\n")
    merged = next(name for name in ("etc/ssl", "etc/alternatives") if os.path.isdir(f"/{name}"))
    put(actor, child.node.path / merged / "ours", "ours\n")
    assert child.output("ls", "/etc/app").split() == ["child.conf", "parent.conf"]
    # The core OS's own accounts, keys and settings are not shown, to root either.
    for name in ("shadow", "ssh", "fstab", "gshadow", "hostname"):
        assert child.run("test", "-e", f"/etc/{name}").returncode == 1, name
    # A node's file takes the place of redmain's default, a directory is merged with it.
    assert child.output("cat", "/etc/hosts") == "127.0.0.1 ours\n"
    assert parent.output("cat", "/etc/hosts") == Path("/etc/hosts").read_text()
    assert child.output("cat", f"/{merged}/ours") == "ours\n"
    assert {*os.listdir(f"/{merged}"), "ours"} == set(child.output("ls", f"/{merged}").split())
    assert child.output("cat", "/etc/resolv.conf") == Path("/etc/resolv.conf").read_text()


def test_a_nodes_own_accounts_count(child: Wrapped) -> None:
    put(child.node.actor, child.node.path / "etc/passwd", "daemon2:x:77:77::/:/bin/sh\n")
    assert child.output("getent", "passwd", "daemon2").startswith("daemon2:x:77:")


def test_etc_can_be_written_and_nobody_else_sees_it(
    child: Wrapped, parent: Wrapped, actor: Actor
) -> None:
    sibling = Wrapped(make_merged(actor, parent.node.path / "other", "other"))
    put(actor, parent.node.path / "etc/app.conf", "shipped\n")
    nodes = [snapshot_tree(wrapped.node.path / name) for wrapped in (parent, child, sibling)
             for name in ("etc", "usr", "opt")]
    for wrapped, text in ((child, "one"), (sibling, "two")):
        wrapped.shell(f"echo {text} >/etc/app.conf; echo {text} >/etc/{text}; mkdir /etc/made; "
                      "touch /etc/made/x")
    for wrapped, text in ((child, "one"), (sibling, "two")):
        assert wrapped.shell("cat /etc/app.conf; ls /etc/made; cd /etc; ls one two 2>/dev/null; "
                             ":").split() == [text, "x", text]
        assert wrapped.run("test", "-e", f"/etc/{'two' if text == 'one' else 'one'}").returncode
    assert parent.output("cat", "/etc/app.conf") == "shipped\n"
    assert (child.node.path / "private/overlay/etc/upper/app.conf").read_text() == "one\n"
    # A file that is removed stays removed, for this node.
    child.shell("rm /etc/app.conf")
    assert child.run("test", "-e", "/etc/app.conf").returncode == 1
    assert sibling.output("cat", "/etc/app.conf") == "two\n"
    assert nodes == [snapshot_tree(wrapped.node.path / name)
                     for wrapped in (parent, child, sibling) for name in ("etc", "usr", "opt")]


def test_usr_and_opt_are_read_only_and_var_is_the_nodes_own(
    child: Wrapped, parent: Wrapped
) -> None:
    put(child.node.actor, parent.node.path / "var/lib/daemon/data", "parent\n")
    put(child.node.actor, parent.node.path / "opt/tool/bin/run", "#!/bin/sh\necho ran\n", 0o755)
    assert child.output("/opt/tool/bin/run") == "ran\n"
    for place in ("/usr/x", "/usr/bin/x", "/usr/lib/x", "/opt/x", "/opt/tool/x"):
        done = child.run("touch", place)
        assert done.returncode == 1 and "Read-only file system" in done.stderr
    child.shell("touch /var/lib/daemon/mine /var/mine")
    assert sorted(os.listdir(child.node.path / "var/lib/daemon")) == ["mine"]
    assert os.listdir(parent.node.path / "var/lib/daemon") == ["data"]


def test_a_node_is_changed_from_one_appearance_to_the_other(
    child: Wrapped, parent: Wrapped
) -> None:
    actor, update = child.node.actor, ["red-manager", "--update", "--template"]
    put(actor, parent.node.path / "usr/bin/of-parent", "#!/bin/sh\necho parent\n", 0o755)
    put(actor, child.node.path / "usr/bin/of-child", "#!/bin/sh\nof-parent; echo $0\n", 0o755)
    merged = "parent\n/usr/bin/of-child\n"
    assert [child.output("of-child") for _ in range(2)] == [merged] * 2
    for node in (parent.node, child.node):
        node.dnf(*update, "default")
    assert [child.output("of-child") for _ in range(2)] == [
        "parent\n/nodes/app/usr/bin/of-child\n"] * 2
    assert child.run("test", "-e", "/usr/bin/of-child").returncode == 1
    for node in (parent.node, child.node):
        node.dnf(*update, "merged")
    assert [child.output("of-child") for _ in range(2)] == [merged] * 2
    # Half and half: each node is where its own configuration says.
    parent.node.dnf(*update, "default")
    assert child.output("of-child") == merged
    assert child.shell("command -v of-parent; command -v of-child").split() == [
        "/nodes/core/usr/bin/of-parent", "/usr/bin/of-child"]


def test_what_an_ancestor_says_still_holds(child: Wrapped, parent: Wrapped) -> None:
    put(child.node.actor, parent.node.path / "usr/share/of-parent", "")
    config = child.node.path / "etc/redpack.yaml"
    config.write_text(config.read_text() + "\nconfig: {inherit: false, share_net: enabled}\n")
    main = parent.node.path / "etc/redpack.yaml"
    main.write_text(main.read_text() + "\nconfig: {share_net: disabled}\n")
    done = child.run("ls", "/usr/share/of-parent")
    assert done.returncode == 2 and "share_net" in done.stderr
    assert child.run("cat", "/proc/net/dev").stdout.count(":") == 1


def test_directories_that_the_caller_cannot_read_are_no_obstacle(
    child: Wrapped, parent: Wrapped
) -> None:
    """As /etc/ssl/private of the core OS is for a user."""
    closed = put(child.node.actor, parent.node.path / "etc/closed/x").parent
    put(child.node.actor, child.node.path / "etc/closed/y")
    put(child.node.actor, child.node.path / "usr/share/closed/y").parent.chmod(0o111)
    closed.chmod(0)
    try:
        if child.node.actor.uid:
            assert child.run("ls", "/etc/ssl/private").returncode == 2
        assert child.run("test", "-e", "/usr/share/closed/y").returncode == 0
        assert child.run("sh", "-c", "ls /etc /etc/ssl; touch /etc/fine").returncode == 0
    finally:
        closed.chmod(0o755)


@pytest.mark.parametrize("name", ["with:colon", "with,comma", "with\\backslash", "with space",
                                  "uml\u00e4ut", "-dash", "quo'te\"s", "deep"])
def test_odd_and_long_paths_can_be_layers(actor: Actor, pool: Path, name: str) -> None:
    directory = pool / name
    if name == "deep":
        # 12 layers with paths of more than 350 characters: the page that mount options may have is
        # too small for them. (From 512 on, rpm's database cannot be opened.)
        directory = pool.joinpath("d" * 120, "d" * (236 - len(str(pool))))
    node, count = directory, 12 if name == "deep" else 2
    for number in range(count):
        node = node / f"node{number}"
        made = make_merged(actor, node, f"n{number}")
        put(actor, node / f"usr/share/layered/{number}", name)
    assert len(Wrapped(made).output("ls", "/usr/share/layered").split()) == count
    Wrapped(made).shell("echo changed >/etc/changed")
    assert (node / "private/overlay/etc/upper/changed").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user: run as root")
def test_a_user_runs_roots_node_with_a_read_only_etc(
    pool_root: Path, installation: Installation
) -> None:
    root, user = (installation.actor(kind, pool_root / kind) for kind in ("root", "user"))
    node = make_merged(root, pool_root / "pool/core", "core")
    put(root, node.path / "etc/shipped", "shipped\n")
    Wrapped(node).shell("echo root >/etc/by-root")
    theirs = Wrapped(type(node)(user, node.path))
    for _ in range(2):
        assert theirs.output("cat", "/etc/shipped", "/etc/by-root") == "shipped\nroot\n"
        assert "Read-only" in theirs.run("touch", "/etc/x").stderr
    # Root has never run anything in this one; at last its /var lacks what redmain mounts there.
    fresh = make_merged(root, pool_root / "pool/fresh", "fresh")
    assert (fresh.path / "var/run").is_symlink() and (fresh.path / "var/tmp").is_dir()
    for _ in range(2):
        assert Wrapped(type(node)(user, fresh.path)).shell(
            "touch /var/tmp/x /run/x; ls /var/run").split() == ["x"]
    (fresh.path / "var/tmp").rmdir()
    (fresh.path / "var/run").unlink()
    assert Wrapped(type(node)(user, fresh.path)).output("ls", "/var").split() == [
        "cache", "lib", "log"]
    nowhere = theirs.run("cat", "/etc/shipped", env={"HOME": "/nonexistent"})
    assert nowhere.stdout == "shipped\n", nowhere.stderr


def red_wrap_below(child: Wrapped, mounts: str, *words: str) -> subprocess.CompletedProcess[str]:
    """red-wrap of the child in a mount namespace in which root has made `mounts`, a script."""
    actor = child.node.actor
    wrap = ["red-wrap", f"--redpath={child.node.path}", "--", *words]
    script = f"{mounts} && exec setpriv --reuid {actor.uid} --regid {actor.gid} --clear-groups " \
             + shlex.join(wrap)
    return subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True,
                          env=dict(actor.environ), stdin=subprocess.DEVNULL)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_mount_point_below_a_layer_is_gone_round(child: Wrapped, parent: Wrapped) -> None:
    """Of a node and of the core OS, as containers have them; without root overlayfs refuses it."""
    actor = child.node.actor
    for wrapped, name in ((parent, "parent"), (child, "child")):
        put(actor, wrapped.node.path / f"usr/share/part/{name}", name)
        put(actor, wrapped.node.path / f"usr/lib/part/{name}", name)
        put(actor, wrapped.node.path / f"usr/bin/{name}", f"#!/bin/sh\necho {name}\n", 0o755)
    (child.node.path / "usr/share/part/link").symlink_to("child")
    (parent.node.path / "usr/share/part/point").mkdir()
    os.chown(parent.node.path / "usr/share/part/point", actor.uid, actor.gid)
    mounts = (f"mount -t tmpfs x {parent.node.path}/usr/share/part/point && "
              f"touch {parent.node.path}/usr/share/part/point/mounted && "
              "mount --bind /usr/lib/os-release /usr/lib/os-release")
    script = ("parent; child; ls /usr/share/part /usr/lib/part /usr/share/part/point; "
              "cat /usr/share/part/link; touch /etc/fine; "
              "[ -e /usr/lib/os-release ] && [ -e /usr/share/misc ] && date >/dev/null")
    assert [child.shell("parent; child").split() for _ in range(2)] == [["parent", "child"]] * 2
    for _ in range(2):
        done = red_wrap_below(child, mounts, "sh", "-c", script)
        assert done.returncode == 0, done
        words = done.stdout.split()
        assert words[:6] == ["parent", "child", "/usr/lib/part:", "child", "parent",
                             "/usr/share/part:"]
        assert words[6:10] == ["child", "link", "parent", "point"] and words[-1] == "child"
        assert ("mounted" in words) == (actor.uid != 0)
    # The plan of such a launch is not kept.
    assert child.shell("parent; child").split() == ["parent", "child"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_file_system_that_cannot_be_a_layer_is_named(child: Wrapped, pool: Path) -> None:
    """An overlay of an overlay has used up what the kernel allows."""
    usr = child.node.path / "usr"
    mounts = f"mkdir -p {pool}/a {pool}/b {pool}/m && " + " && ".join(
        f"mount -t overlay none -o lowerdir={pool}/a:{below} {above}"
        for below, above in ((f"{pool}/b", f"{pool}/m"), (f"{pool}/m", usr)))
    done = red_wrap_below(child, mounts.replace(f"{pool}/a:{pool}/m", f"{pool}/m:{pool}/b"), "true")
    assert done.returncode == 125, done
    (line,) = done.stderr.splitlines()
    assert f"{child.node.path}/etc/redpack.yaml:" in line and f"{usr} (overlay)" in line
    assert "mount /usr: the kernel takes no overlay of" in line and "(node app)" in line
    assert line.endswith("or give it the template default")
    assert sorted(path.name for path in (child.node.path / "private/overlay/etc").iterdir()) == [
        "upper", "work.0"]
