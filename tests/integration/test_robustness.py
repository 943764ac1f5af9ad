# SPDX-License-Identifier: Apache-2.0
"""What a review broke: failing commits, prepared symlinks, scriptlets that look outside."""

from __future__ import annotations

import http.server
import os
import shutil
import stat
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from redpak.family import load_family, load_main
from redrpm.hold import NodeHold
from support.actors import Actor, actor_kinds, describe, find_actor
from support.frontends import is_dnf5
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository, write_repo_file

AS_ROOT = pytest.mark.parametrize(
    "actor", ["root"] if "root" in actor_kinds() else [], indirect=True
)
AS_USER_BESIDE_ROOT = pytest.mark.parametrize(
    "actor", ["user"] if "root" in actor_kinds() else [], indirect=True
)


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "robust"
    build_rpm(directory, "plain", files={"/usr/share/plain/file": "x\n"})
    build_rpm(directory, "second", files={"/usr/share/second": "x\n"})
    build_rpm(directory, "comma", files={"/we,i:rd/file": "x\n"})
    build_rpm(
        directory,
        "lnk",
        version="1",
        files={"/usr/share/lnk/real/sub/keep": "1\n"},
        install="ln -s real %{buildroot}/usr/share/lnk/link",
        extra_files="/usr/share/lnk/link",
    )
    build_rpm(
        directory,
        "lnk",
        version="2",
        files={"/usr/share/lnk/link/sub/file": "2\n"},
        scriptlets={"pretrans -p <lua>": 'os.remove("/usr/share/lnk/link")'},
    )
    build_rpm(
        directory,
        "nosy",
        files={"/usr/share/nosy/x": "x\n"},
        scriptlets={
            "post": "cd /usr/share/nosy\n"
            "(ls /proc/1/root/ > outside) 2>/dev/null || rm -f outside\n"
            "(umount /usr 2>/dev/null && echo yes > unmounted)\n"
            "(echo 1 > /proc/sys/vm/overcommit_memory) 2>/dev/null && echo yes > sysctl\n"
            "(hostname nosy) 2>/dev/null && echo yes > renamed\n"
            'echo "$SECRET" > secret\n'
            "mkdir attributed; true"
        },
    )
    build_rpm(
        directory,
        "private",
        version="1",
        install="mkdir -p %{buildroot}/srv/priv/d; echo x > %{buildroot}/srv/priv/d/f",
        extra_files="%dir %attr(0700,root,root) /srv/priv\n/srv/priv/d/f",
    )
    build_rpm(
        directory,
        "private",
        version="2",
        install="mkdir -p %{buildroot}/srv/priv; ln -s e %{buildroot}/srv/priv/d",
        extra_files="%dir %attr(0700,root,root) /srv/priv\n/srv/priv/d",
        scriptlets={"pretrans -p <lua>": 'os.rename("/srv/priv/d", "/srv/priv/old")'},
    )
    return create_repository(directory)


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    return make_node(actor, pool / "node", "node", repository)


@AS_USER_BESIDE_ROOT
def test_a_directory_of_somebody_else_is_refused_before_the_commit(node: TestNode) -> None:
    share = node.path / "usr/share"
    share.mkdir()
    os.chown(share, node.actor.uid, node.actor.gid)
    blocked = share / "plain"
    blocked.mkdir()  # root's: the owner of the node cannot write there
    blocked.chmod(0o755)
    message = f"{blocked}: belongs to another user, and the transaction changes it"
    node.fails("red-install", "-y", "plain", message=message)
    node.fails("red-install", "-y", "--plan", "plain", message=message)
    blocked.chmod(0o777)  # he could put files there, but not set its mode
    node.fails("red-install", "-y", "plain", message=message)
    os.chown(blocked, node.actor.uid, node.actor.gid)
    node.install("plain")
    assert (share / "plain/file").read_text() == "x\n"


@AS_USER_BESIDE_ROOT
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_of_somebody_else_can_be_replaced_and_removed(node: TestNode, mode: int) -> None:
    """fs.protected_hardlinks: its owner alone may link it into the previous generation."""
    node.install("lnk-1", "plain")
    keep, file = node.path / "usr/share/lnk/real/sub/keep", node.path / "usr/share/plain/file"
    for path in (keep, file):
        path.unlink()
        path.write_text("root's\n")
        path.chmod(mode)
    node.dnf("red-remove", "-y", "plain")
    assert not file.exists()
    if mode == 0o644:
        node.dnf("red-manager", "--rollback")
        assert file.read_text() == "root's\n"
    else:
        node.fails("red-manager", "--rollback", message="cannot roll back: ")
    node.dnf("red-reinstall", "-y", "lnk")
    assert keep.read_text() == "1\n"
    assert keep.stat().st_uid == node.actor.uid


@AS_ROOT
@pytest.mark.parametrize("place", ["var", "etc/plain", "usr/share/plain/file"])
def test_what_is_mounted_in_a_node_is_refused_before_the_commit(
    node: TestNode, pool: Path, place: str
) -> None:
    """Nothing can be renamed into another mount, though it were of the same file system."""
    build_rpm(pool / "r", "plain", version="2.0",
              files={"/usr/share/plain/file": "y\n", "/etc/plain/conf": "y\n"})
    create_repository(pool / "r")
    node.dnf("red-manager", f"--add-repo={pool / 'r'}", "--setopt=gpgcheck=0", "--save")
    node.install("plain-1.0")
    (node.path / "etc/plain").mkdir()
    target = node.path / place
    source = pool / "source"
    subprocess.run(["cp", "-a", target, source], check=True)
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        node.fails("red-upgrade", "-y", "plain", message=f"{target}: something is mounted there")
    finally:
        subprocess.run(["umount", target], check=True)
    node.dnf("red-upgrade", "-y", "plain")
    assert (node.path / "usr/share/plain/file").read_text() == "y\n"


@AS_ROOT
def test_a_child_private_and_the_caches_can_be_mounts(
    node: TestNode, repository: Path
) -> None:
    """docs/transactions.md, "Where a node can be"."""
    child = TestNode(node.actor, node.path / "child")
    child.path.mkdir()
    mounts = [child.path]
    subprocess.run(["mount", "-t", "tmpfs", "none", child.path], check=True)
    try:
        make_node(node.actor, child.path, "child", repository)
        for place in ("private", "var/cache", "var/log"):
            mounts.insert(0, child.path / place)
            mounts[0].mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "none", mounts[0]], check=True)
        child.install("plain")
        child.dnf("red-remove", "-y", "plain")
    finally:
        subprocess.run(["umount", *mounts], check=True)


def test_a_hold_that_is_closed_twice_leaves_another_commands_stage_alone(
    actor: Actor, pool: Path, redmain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(actor, pool / "node", "node")
    monkeypatch.setattr(os, "geteuid", lambda: node.path.stat().st_uid)
    family = load_family(str(node.path), main=load_main(str(redmain), {}))
    first = NodeHold(family, notify=print)
    first.close()
    second = NodeHold(family, notify=print)
    first.close()
    assert os.path.isdir(second.stage.root)
    second.close()
    assert not os.path.exists(second.stage.path)


def test_odd_names_of_top_level_directories_do_not_brick_the_node(node: TestNode) -> None:
    node.install("comma")
    node.install("plain")
    assert (node.path / "we,i:rd/file").read_text() == "x\n"
    node.dnf("red-remove", "-y", "comma")
    assert not (node.path / "we,i:rd/file").exists()


def test_a_symlink_replaced_by_a_directory_loses_no_file(node: TestNode) -> None:
    node.install("lnk-1")
    node.dnf("red-upgrade", "-y", "lnk")
    assert (node.path / "usr/share/lnk/link/sub/file").read_text() == "2\n"
    assert not (node.path / "usr/share/lnk/link").is_symlink()
    for generation in ("1\n", "2\n", "1\n"):
        if generation == "2\n":
            node.dnf("red-manager", "--rollback")
            assert (node.path / "usr/share/lnk/link/sub/file").read_text() == "2\n"
        else:
            node.dnf("red-manager", "--rollback")
            assert (node.path / "usr/share/lnk/link/sub/keep").read_text() == "1\n"
            assert os.readlink(node.path / "usr/share/lnk/link") == "real"


def test_rolling_back_twice_keeps_the_modes_of_directories(node: TestNode) -> None:
    node.install("plain")
    before = node.state()
    node.dnf("red-manager", "--rollback")
    assert not (node.path / "usr/share/plain").exists()
    node.dnf("red-manager", "--rollback")
    after = node.state()
    assert {path: row[0] for path, row in after.items()} == {
        path: row[0] for path, row in before.items()
    }


def test_a_private_directory_stays_private_when_a_symlink_comes_below_it(node: TestNode) -> None:
    node.install("private-1")
    node.dnf("red-upgrade", "-y", "private")
    assert stat.S_IMODE(os.stat(node.path / "srv/priv").st_mode) == 0o700
    assert (node.path / "srv/priv/d").is_symlink()


def test_a_scriptlet_cannot_leave_the_view(node: TestNode) -> None:
    node.actor.check(
        ["red-dnf", "red-install", "-y", "nosy", f"--redpath={node.path}"],
        env={"SECRET": "hunter2"},
    )
    place = node.path / "usr/share/nosy"
    assert sorted(path.name for path in place.iterdir()) in (
        ["attributed", "renamed", "secret", "x"],  # its own uts namespace may be named
        ["attributed", "secret", "x"],
    )
    assert (place / "secret").read_text() == "\n"
    assert os.uname().nodename != "nosy"


def test_a_symlinked_state_directory_is_refused(node: TestNode) -> None:
    (node.path / "var/lib").rename(node.path / "private/lib")
    (node.path / "var/lib").symlink_to("../private/lib")
    done = node.try_dnf("red-install", "-y", "plain")
    assert done.returncode == 1, describe(done)
    assert "Traceback" not in done.stderr
    assert not (node.path / "usr/share/plain").exists()


def test_a_plan_shows_names_that_no_terminal_should_get(node: TestNode, pool: Path) -> None:
    build_rpm(pool / "r", "odd", files={"/usr/share/odd/file": "x\n"}, scriptlets={
        "post": "cd /usr/share/odd; touch \"$(printf 'a\\377')\" \"$(printf 'b\\nc')\""
                " \"$(printf 'd\\033[1m')\""})
    create_repository(pool / "r")
    node.dnf("red-manager", f"--add-repo={pool / 'r'}", "--setopt=gpgcheck=0", "--save")
    plan = node.dnf("red-install", "--plan", "odd")
    for name in ("a\\udcff", "b\\nc", "d\\x1b[1m", "file"):
        assert f"  usr/share/odd/{name}\n" in plan, plan
    node.install("odd")
    assert len(os.listdir(node.path / "usr/share/odd")) == 4
    node.dnf("red-manager", "--rollback")
    assert not (node.path / "usr/share/odd").exists()


def test_caches_and_logs_that_somebody_removed_are_made_again(node: TestNode) -> None:
    shutil.rmtree(node.path / "var/cache")
    shutil.rmtree(node.path / "var/log")
    node.install("plain")
    assert (node.path / "var/cache").is_dir() and (node.path / "var/log").is_dir()


def test_the_callers_umask_does_not_hide_the_node(node: TestNode) -> None:
    shell = f"umask 077; exec red-dnf red-install -y plain --redpath={node.path}"
    node.actor.check(["sh", "-c", shell])
    assert stat.S_IMODE(os.stat(node.path / "var/lib/rpm/rpmdb.sqlite").st_mode) == 0o644


def test_a_repo_file_is_fetched_from_a_url(node: TestNode, pool_root: Path) -> None:
    served = pool_root / "served"
    write_repo_file(served / "web.repo", "web", pool_root)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node.dnf(
            "red-manager",
            f"--add-repo=http://127.0.0.1:{server.server_port}/web.repo",
            env={"no_proxy": "127.0.0.1"},
        )
        server.shutdown()
    assert (node.path / "etc/yum.repos.d/web.repo").read_text().startswith("[web]")


def test_a_directory_with_any_name_is_a_repository(node: TestNode, pool: Path) -> None:
    directory = pool / "r, 100% [mine] é"
    build_rpm(directory, "odd", files={"/usr/share/odd/file": "x\n"})
    create_repository(directory)
    words = ["--setopt=gpgcheck=0", "--save"]
    node.dnf("red-manager", f"--add-repo={directory.name}", *words, cwd=pool)
    assert "/r%2C%20100%25%20%5Bmine%5D%20%C3%A9\n" in "".join(
        file.read_text() for file in (node.path / "etc/yum.repos.d").iterdir()
    )
    node.install("odd")
    assert (node.path / "usr/share/odd/file").exists()


@AS_USER_BESIDE_ROOT
def test_root_creates_in_a_users_pool_as_that_user(actor: Actor, pool: Path) -> None:
    victim = pool.parent / "victim"
    victim.mkdir()
    prepared = pool / "prepared"
    prepared.mkdir()
    (prepared / "etc").symlink_to(victim)
    for path in (pool, prepared):
        os.chown(path, actor.uid, actor.gid)
    root = find_actor("root").with_environ(**actor.environ)
    done = root.run(["red-dnf", "red-manager", "--create", "--alias=p", f"--redpath={prepared}"])
    assert done.returncode == 1, describe(done)
    assert list(victim.iterdir()) == []
    fresh = pool / "fresh"
    root.check(["red-dnf", "red-manager", "--create", "--alias=f", f"--redpath={fresh}"])
    assert os.stat(fresh).st_uid == actor.uid


@AS_ROOT
def test_root_refuses_a_node_below_a_directory_that_others_may_change(
    node: TestNode, pool: Path
) -> None:
    pool.chmod(0o777)
    node.fails("red-install", "-y", "plain", message="on the way can be changed by others")


@AS_USER_BESIDE_ROOT
def test_a_neighbour_that_cannot_be_read_stops_nobody(
    actor: Actor, pool_root: Path, repository: Path
) -> None:
    root = find_actor("root").with_environ(**actor.environ)
    parent = make_node(root, pool_root / "parent", "parent", repository)
    parent.install("plain")
    (parent.path / "bob").mkdir(mode=0o700)
    mine = parent.path / "mine"
    mine.mkdir()
    os.chown(mine, actor.uid, actor.gid)
    child = make_node(actor, mine, "mine", repository)
    child.install("second")
    assert child.packages() == ["second"]


@AS_USER_BESIDE_ROOT
def test_a_node_may_be_a_file_system_of_its_own(node: TestNode) -> None:
    (node.path / "lost+found").mkdir(mode=0o700)  # root's, as mke2fs makes it
    node.install("plain")
    done = node.actor.run(["red-check", f"--redpath={node.path}", "--json"])
    assert done.returncode == 0, describe(done)


@AS_USER_BESIDE_ROOT
def test_a_broken_descendant_is_named_and_can_be_overridden(
    actor: Actor, pool_root: Path, repository: Path
) -> None:
    root = find_actor("root").with_environ(**actor.environ)
    parent = make_node(root, pool_root / "parent", "parent", repository)
    mine = parent.path / "mine"
    mine.mkdir()
    os.chown(mine, actor.uid, actor.gid)
    child = make_node(actor, mine, "mine", repository)
    (child.path / "etc/redpack.yaml").write_text("headers: {\n")
    done = parent.try_dnf("red-install", "-y", "plain")
    assert done.returncode == 1, describe(done)
    assert f"{child.path}" in done.stderr and "it cannot be checked" in done.stderr
    parent.dnf("red-install", "-y", "plain", "--force")
    assert os.stat(child.path / ".rednode.yaml").st_uid == actor.uid


@pytest.mark.skipif(is_dnf5(), reason="dnf5 takes no lock to rotate its log, and logs in the node")
def test_no_contained_dnf_rotates_the_logs_of_the_machine(
    actor: Actor, pool: Path
) -> None:
    """Its lock would name process 1 of a namespace, which is never taken for dead."""
    build_rpm(pool.parent / "r", "tiny", files={"/usr/share/tiny": "x\n"})
    node = make_node(actor, pool / "node", "node", create_repository(pool.parent / "r"))
    logs = pool / "logs"
    actor.check(["mkdir", str(logs)])
    node.dnf("red-install", "-y", f"--setopt=logdir={logs}", "--setopt=log_size=1", "tiny")
    # Every line of the host's process began a new file; the transaction's are all in one.
    assert len((logs / "dnf.log").read_text().splitlines()) > 5
