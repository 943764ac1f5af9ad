# SPDX-License-Identifier: Apache-2.0
"""Many mounts, and overlays: the mounts that red-wrap makes itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.wrapping import WITHOUT_CALLS, Ground


def node_of_many(ground: Ground, count: int = 80) -> Path:
    exports = [f"- {{mode: {'Public' if number % 2 else 'Restricted'}, mount: /many/{number}, "
               f"path: $NODE_PATH/many/{number}}}" for number in range(count)]
    exports += ["- {mode: Execfd, mount: /etc/who, path: 'echo $NODE_ALIAS'}",
                "- {mode: Anonymous, mount: /nodes/core/var/mine}"]
    node = ground.node("core", exports=exports)
    for number in range(count):
        ground.write(node / f"many/{number}/file", f"{number}\n")
    return node


def test_many_mounts_are_made_cold_and_warm(ground: Ground) -> None:
    node = node_of_many(ground)
    ground.settle()
    for _ in range(2):
        assert ground.output(node, "sh", "-c", "cat /many/7/file /many/79/file /etc/who; ls / ; "
                             "ls /nodes/core/var/mine; echo $HOME; hostname").split() == [
            "7", "79", "core", "bin", "dev", "etc", "lib", "lib64", "many", "nodes", "proc", "tmp",
            "usr", ground.actor.environ["HOME"], "core"]


def test_they_are_as_isolated_as_bubblewraps(ground: Ground) -> None:
    node = node_of_many(ground)
    for script in ("touch /many/0/x", "touch /usr/bin/x", "echo x >/etc/who",
                   "mount -o remount,rw,bind /many/0", "umount /many/1",
                   "unshare -Urm sh -c 'mount -o remount,rw,bind /many/0'"):
        assert ground.run(node, "sh", "-c", script).returncode not in (0, 125, 127), script
    ground.output(node, "touch", "/many/1/x")
    assert (node / "many/1/x").exists()
    options = [line.split()[3].split(",") for line in ground.output(
        node, "cat", "/proc/mounts").splitlines() if line.split()[1].startswith("/many/")]
    assert len(options) == 80 and all({"nosuid", "nodev"} <= set(each) for each in options)


def test_devices_are_bubblewraps_and_work(ground: Ground) -> None:
    many, few = node_of_many(ground), ground.node("few")
    script = ("cd /dev; ls -R .; readlink stdin fd ptmx; stat -c '%A %t:%T %N' null zero tty shm; "
              "echo x >null; head -c 3 zero | wc -c; test -c pts/ptmx && touch shm/x && echo fine; "
              "python3 -c 'import pty; pty.openpty(); print(1)'")
    assert ground.output(many, "sh", "-c", script) == ground.output(few, "sh", "-c", script)


def test_the_hosts_mounts_do_not_change(ground: Ground) -> None:
    node = node_of_many(ground)
    before = Path("/proc/self/mountinfo").read_text()
    ground.output(node, "true")
    assert Path("/proc/self/mountinfo").read_text() == before


def test_a_link_put_in_place_of_a_source_is_not_followed(ground: Ground) -> None:
    node = node_of_many(ground)
    ground.settle()
    ground.output(node, "true")
    ground.output(node, "true")
    (node / "many/3").rename(node / "many/aside")
    (node / "many/3").symlink_to(ground.directory)
    done = ground.run(node, "ls", "/many/3")
    assert done.returncode == 125
    assert f"{node}/etc/redpack.yaml:10: {node}/many/3 is a symbolic link to " in done.stderr


def test_a_link_put_in_place_of_a_mount_point_is_not_followed(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Tmpfs, mount: /nodes/core/var/cache/x}"])
    ground.write(node / "var/cache/x/file", "")
    ground.settle()
    for _ in range(2):
        assert ground.output(node, "ls", "/nodes/core/var/cache/x") == ""
    (node / "var/cache").rename(node / "var/aside")
    (node / "var/cache").symlink_to("/tmp")
    done = ground.run(node, "true")
    assert done.returncode == 125 and f"{node}/var/cache is a symbolic link" in done.stderr


def test_overlays_stack_the_family_leaf_on_top(ground: Ground) -> None:
    layer = "- {mode: Overlay, mount: /stack, path: $NODE_PATH/layer}"
    parent = ground.node("core", exports=[layer])
    child = ground.node("core/app", exports=[layer])
    ground.write(parent / "layer/both", "parent\n")
    ground.write(parent / "layer/parent", "")
    ground.write(child / "layer/both", "child\n")
    ground.settle()
    for _ in range(2):
        assert ground.output(child, "sh", "-c", "ls /stack; cat /stack/both") == (
            "both\nparent\nchild\n")
        assert ground.output(parent, "cat", "/stack/both") == "parent\n"
        assert ground.run(child, "touch", "/stack/x").returncode == 1


def test_a_private_overlay_keeps_its_changes_in_the_leaf(ground: Ground) -> None:
    layer = "- {mode: %s, mount: /stack, path: $NODE_PATH/layer}"
    parent = ground.node("core", exports=[layer % "Overlay"])
    child = ground.node("core/app", exports=[layer % "OverlayPrivate"])
    ground.write(parent / "layer/file", "parent\n")
    (child / "layer").mkdir()
    ground.output(child, "sh", "-c", "echo changed >/stack/file; echo new >/stack/new")
    assert ground.output(child, "cat", "/stack/file", "/stack/new") == "changed\nnew\n"
    assert (parent / "layer/file").read_text() == "parent\n"
    assert list((child / "layer").iterdir()) == []
    assert (child / "private/overlay/stack/upper/file").read_text() == "changed\n"


def test_what_is_mounted_in_an_overlay_needs_no_place_in_its_layers(ground: Ground) -> None:
    node = ground.node("core", exports=[
        "- {mode: Overlay, mount: /stack, path: $NODE_PATH/layer}",
        "- {mode: Restricted, mount: /stack/a/directory, path: $NODE_PATH/other}",
        "- {mode: RestrictedFile, mount: /stack/a/file, path: $NODE_PATH/other/file}",
        "- {mode: Execfd, mount: /stack/made, path: echo made}",
        "- {mode: Symlink, mount: /stack/link, path: a/file}",
        "- {mode: OverlayPrivate, mount: /write, path: $NODE_PATH/layer}",
        "- {mode: Execfd, mount: /write/made, path: echo made}"])
    ground.write(node / "layer/own", "own\n")
    ground.write(node / "other/file", "file\n")
    ground.settle()
    for _ in range(2):
        assert ground.output(node, "sh", "-c", "cd /stack; ls . a a/directory; cat own link made; "
                             "ls /write; cat /write/made").split() == [
            ".:", "a", "link", "made", "own", "a:", "directory", "file", "a/directory:", "file",
            "own", "file", "made", "made", "own", "made"]
    assert [path.name for path in (node / "layer").iterdir()] == ["own"]
    assert list((node / "private/overlay/write/upper").iterdir()) == []


def test_two_applications_of_a_node_can_both_write(ground: Ground) -> None:
    """Each mount has a work directory of its own: overlayfs empties it when it is mounted."""
    node = ground.node("core", exports=[
        "- {mode: OverlayPrivate, mount: /stack, path: $NODE_PATH/layer}"])
    ground.write(node / "layer/file", "layer\n")
    script = "echo started; read line; echo mine >>/stack/file; mkdir /stack/d; cat /stack/file"
    first = ground.actor.popen(
        [ground.command, f"--redpath={node}", "--", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None and first.stdout.readline() == "started\n"
    ground.output(node, "sh", "-c", "echo other >/stack/other; rm /stack/other")
    assert first.communicate("\n")[0] == "layer\nmine\n" and first.returncode == 0
    assert sorted(path.name for path in (node / "private/overlay/stack").iterdir()) == [
        "upper", "work.0", "work.1"]
    ground.output(node, "touch", "/stack/x")
    assert len(list((node / ".redpak/running").iterdir())) == 2


def test_a_private_overlay_is_written_as_long_as_the_caller_may(ground: Ground) -> None:
    if ground.actor.kind != "user":
        pytest.skip("root may write everywhere")
    node = ground.node("core", exports=[
        "- {mode: OverlayPrivate, mount: /stack, path: $NODE_PATH/layer}"])
    ground.write(node / "layer/file", "")
    overlay = node / "private/overlay/stack"
    ground.output(node, "touch", "/stack/x")
    for mode, status in ((0o555, 1), (0o755, 0), (0o555, 1)):
        overlay.chmod(mode)
        ground.settle()
        for _ in range(2):
            assert ground.run(node, "sh", "-c", "ls /stack/x && touch /stack/y", env={
                "LC_ALL": "C"}).returncode == status
    overlay.chmod(0o755)


def test_a_private_overlay_does_not_follow_a_link_out_of_the_node(ground: Ground) -> None:
    node = ground.node("core", exports=[
        "- {mode: OverlayPrivate, mount: /stack, path: $NODE_PATH/layer}"])
    ground.write(node / "layer/file", "")
    outside = ground.directory / "outside"
    outside.mkdir()
    os.chown(outside, ground.actor.uid, ground.actor.gid)
    (node / "private/overlay").symlink_to(outside)
    done = ground.run(node, "touch", "/stack/x")
    assert done.returncode == 125
    assert f"{node}/private/overlay is a symbolic link to {outside}" in done.stderr
    assert list(outside.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_mount_below_a_layer_with_a_blank_in_its_name_is_noticed(ground: Ground) -> None:
    """Without root the kernel refuses such a layer; the kept plan does not know a way round."""
    layer = "- {mode: Overlay, mount: /stack, path: $NODE_PATH/layer}"
    parent = ground.node("a b", alias="parent", exports=[layer])
    child = ground.node("a b/app", exports=[layer])
    ground.write(parent / "layer/point/file", "")
    ground.write(child / "layer/own", "")
    ground.settle()
    for _ in range(2):
        assert ground.output(child, "ls", "/stack").split() == ["own", "point"]
    actor = ground.actor
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs x '{parent}/layer/point' && exec \"$@\"",
         "sh", "setpriv", f"--reuid={actor.uid}", f"--regid={actor.gid}", "--clear-groups",
         ground.command, f"--redpath={child}", "ls", "/stack"],
        env=dict(actor.environ), text=True, capture_output=True)
    assert done.stdout.split() == ["own", "point"], done.stderr


def test_on_an_old_kernel_bubblewrap_makes_the_mounts(ground: Ground) -> None:
    node = node_of_many(ground, 5)
    ground.settle()
    for _ in range(2):
        assert ground.actor.check(
            ["python3", "-c", WITHOUT_CALLS, ground.command, f"--redpath={node}", "sh", "-c",
             "cat /many/3/file /etc/who; ls /; touch /many/1/x"]).split() == [
            "3", "core", "bin", "dev", "etc", "lib", "lib64", "many", "nodes", "proc", "tmp", "usr"]
    assert "\nbase\t" not in ground.plan(node).read_text()
    (node / "many/3").rename(node / "many/aside")
    (node / "many/3").symlink_to(ground.directory)
    done = ground.actor.run(["python3", "-c", WITHOUT_CALLS, ground.command, f"--redpath={node}",
                             "true"])
    assert done.returncode == 125 and f"{node}/many/3 is a symbolic link" in done.stderr
    (node / "many/3").unlink()
    (node / "many/aside").rename(node / "many/3")
    ground.output(node, "true")
    assert "\nbase\t" in ground.plan(node).read_text()


def test_more_mounts_than_a_process_may_have_files(ground: Ground) -> None:
    node = ground.node("core", exports=[
        f"- {{mode: Restricted, mount: /many/{number}/deep, path: $NODE_PATH/many/{number}}}"
        for number in range(200)])
    for number in range(200):
        ground.write(node / f"many/{number}/file", f"{number}\n")
    ground.settle()
    for _ in range(2):
        assert ground.actor.check(
            ["sh", "-c", f"ulimit -S -n 64; exec {ground.command} --redpath={node} sh -c "
             "'cat /many/199/deep/file; ulimit -S -n'"]).split() == ["199", "64"]
