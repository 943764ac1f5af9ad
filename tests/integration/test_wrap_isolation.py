# SPDX-License-Identifier: Apache-2.0
"""What an application that wants out tries: all of it fails, for users and for root."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Iterator

import pytest

from support.actors import Actor
from support.wrapping import Ground


@pytest.fixture
def node(ground: Ground) -> Path:
    return ground.node("core")


def fails(ground: Ground, node: Path, script: str) -> str:
    """Run a script that must fail; what it says."""
    done = ground.run(node, "sh", "-c", script)
    assert done.returncode not in (0, 125, 127), (done.stdout, done.stderr)
    return done.stderr


def test_a_parents_private_files_are_not_seen(ground: Ground, node: Path) -> None:
    ground.write(node / "private/secret", "parent's")
    child = ground.node("core/app")
    ground.write(child / "private/secret", "child's")
    assert ground.output(child, "cat", "/nodes/_private/secret") == "child's"
    assert ground.output(node, "cat", "/nodes/_private/secret") == "parent's"
    assert "child's" not in ground.output(node, "sh", "-c", "grep -rs child.s /nodes || true")


def test_a_siblings_private_files_are_not_seen(ground: Ground, node: Path) -> None:
    one, two = ground.node("core/one"), ground.node("core/two")
    ground.write(one / "private/secret", "one's")
    assert ground.output(two, "sh", "-c", "ls /nodes; ls /nodes/_private") == (
        "_private\ncore\ntwo\n")


def test_restricted_mounts_cannot_be_written(ground: Ground, node: Path) -> None:
    ground.write(node / "usr/file", "content")
    assert "Read-only file system" in fails(ground, node, "echo x >/nodes/core/usr/file")
    assert "Read-only file system" in fails(ground, node, "touch /usr/bin/x")
    assert (node / "usr/file").read_text() == "content"


@pytest.mark.parametrize("script", [
    "mount -o remount,rw,bind /nodes/core/usr",
    "umount /nodes/core/usr",
    "mount -t tmpfs none /mnt",
    "unshare -Urm sh -c 'mount -o remount,rw,bind /nodes/core/usr && touch /nodes/core/usr/x'",
    "unshare -Urm sh -c 'umount /nodes/core/usr'",
    "unshare -Urm sh -c 'umount -l /usr/lib'",
])
def test_mounts_cannot_be_changed(ground: Ground, node: Path, script: str) -> None:
    fails(ground, node, script)
    assert not (node / "usr/x").exists()


def test_public_mounts_can_be_written(ground: Ground, node: Path) -> None:
    ground.output(node, "sh", "-c", "echo x >/nodes/core/var/file")
    assert (node / "var/file").read_text() == "x\n"
    assert (node / "var/file").stat().st_uid == ground.actor.uid


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_what_is_mounted_later_does_not_open_a_restricted_mount(ground: Ground) -> None:
    """Where mounts are shared, as systemd has them, the new one would be writable, with devices."""
    node = ground.node("core", exports=["- {mode: Restricted, mount: /shown, path: $NODE_PATH/s}"])
    ground.write(node / "s/later/file", "")
    (node / "s/later").chmod(0o777)
    host = ("mount --make-rshared / && { read line; mount -t tmpfs -o mode=777 x "
            f'{node}/s/later; echo; }} | "$@"')
    application = ["sh", "-c", "echo ready; read line; touch /shown/later/x; ls /shown/later"]
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", host, "sh", "setpriv", f"--reuid={ground.actor.uid}",
         f"--regid={ground.actor.gid}", "--clear-groups", ground.command, f"--redpath={node}",
         *application], env=dict(ground.actor.environ), text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    said = process.communicate("\n", timeout=60)
    assert said[0] == "file\n" and "Read-only file system" in said[1]


def test_two_instances_do_not_share_an_anonymous_directory(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Anonymous, mount: /nodes/core/var/mine}"])
    first = ground.actor.popen(
        [ground.command, f"--redpath={node}", "sh", "-c",
         "echo x >/nodes/core/var/mine/file; echo ready; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout and first.stdout.readline() == "ready\n"
    assert ground.output(node, "ls", "/nodes/core/var/mine") == ""
    first.communicate("\n")


def test_the_network_is_out_of_reach(ground: Ground, node: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        accepted = threading.Thread(target=server.accept, daemon=True)
        accepted.start()
        done = ground.run(node, "python3", "-c", script)
        assert done.returncode == 1 and "Error" in done.stderr
        shared = ground.node("shared", config=["share_net: enabled"])
        assert ground.run(shared, "python3", "-c", script).returncode == 0


def test_host_processes_are_neither_seen_nor_signalled(ground: Ground, node: Path) -> None:
    target = ground.actor.popen(["sleep", "100"])
    try:
        assert int(ground.output(node, "sh", "-c", "ls -d /proc/[0-9]* | wc -l")) < 8
        fails(ground, node, f"kill -9 {target.pid}" if target.pid > 50 else "false")
        fails(ground, node, "kill -9 -1; exit 3")
        assert target.poll() is None
    finally:
        target.kill()
        target.wait()


def test_no_capability_is_left_and_none_comes_back(ground: Ground, node: Path) -> None:
    status = ground.output(node, "grep", "Cap", "/proc/self/status")
    assert {line.split()[1] for line in status.splitlines()} == {"0" * 16}
    assert "NoNewPrivs:\t1" in ground.output(node, "cat", "/proc/self/status")


def test_one_capability_is_given_and_no_other(ground: Ground) -> None:
    node = ground.node("core", config=["capabilities:", "  - {cap: CAP_NET_ADMIN, add: true}"])
    status = ground.output(node, "grep", "CapEff", "/proc/self/status")
    assert status.split()[1] == f"{1 << 12:016x}"


def test_no_process_leads_out(ground: Ground, node: Path) -> None:
    """A process outside has no number here; bwrap's own, number 1, has the application's root."""
    script = ("import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); "
              f"libc.ptrace(16, {os.getpid()}, 0, 0); print(os.strerror(ctypes.get_errno()))")
    if os.getpid() > 50:
        assert ground.output(node, "python3", "-c", script) == "No such process\n"
    inside = ground.output(node, "ls", "/")
    assert ground.output(node, "sh", "-c", "ls /proc/1/root/ 2>/dev/null || ls /") == inside


def test_a_symlink_in_a_node_does_not_lead_out(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Public, mount: /data, path: $NODE_PATH/var/a/b}"])
    (node / "var/a/b").mkdir(parents=True)
    outside = ground.directory / "outside"
    outside.mkdir()
    ground.settle()
    ground.output(node, "true")
    ground.output(node, "true")
    for step, target in (("var/a/b", outside), ("var/a", outside)):
        (node / step).rename(node / "var/aside")
        (node / step).symlink_to(target)
        done = ground.run(node, "ls", "/data")
        assert done.returncode == 125
        assert f"{node}/{step} is a symbolic link to {outside}" in done.stderr
        (node / step).unlink()
        (node / "var/aside").rename(node / step)
    ground.output(node, "true")


SWAP = """\
import ctypes, sys
directory, link = (word.encode() for word in sys.argv[1:])
libc = ctypes.CDLL(None)
while True:
    libc.renameat2(-100, directory, -100, link, 2)  # AT_FDCWD, RENAME_EXCHANGE
"""


def test_a_symlink_that_comes_during_the_launch_does_not_lead_out(ground: Ground) -> None:
    """As an application would exchange it that can write there."""
    node = ground.node("core", exports=[
        "- {mode: Public, mount: /data, path: $NODE_PATH/var/a/b}",
        "- {mode: Overlay, mount: /stack, path: $NODE_PATH/var/a/b}",
        "- {mode: Tmpfs, mount: /nodes/core/var/a/point}"])
    ground.write(node / "var/a/b/inside", "")
    (node / "var/a/point").mkdir()
    outside = ground.directory / "outside"
    ground.write(outside / "b/out", "")
    (node / "var/link").symlink_to(outside)
    os.chown(node / "var/a", ground.actor.uid, ground.actor.gid)
    ground.settle()
    ground.output(node, "true")
    swapping = ground.actor.popen(["python3", "-c", SWAP, node / "var/a", node / "var/link"])
    try:
        seen = [ground.run(node, "ls", "/data", "/stack") for _ in range(15)]
    finally:
        swapping.kill()
        swapping.wait()
    assert all("out" not in done.stdout.split() for done in seen)
    assert [done.stderr for done in seen if done.returncode not in (0, 125)] == []
    assert sorted(path.name for path in outside.rglob("*")) == ["b", "out"]


def test_a_symlink_at_a_mount_point_makes_nothing_outside(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Tmpfs, mount: /nodes/core/var/cache/x}"])
    outside = ground.directory / "outside"
    outside.mkdir()
    os.chown(outside, ground.actor.uid, ground.actor.gid)
    (node / "var/cache").symlink_to(outside)
    done = ground.run(node, "true")
    assert done.returncode == 125 and "is a symbolic link" in done.stderr
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(("export", "message"), [
    ("{mode: Tmpfs, mount: $NODE_PATH/.redpak/x}", "choose another mount point"),
    ("{mode: Public, mount: /x, path: $NODE_PATH/.redpak}", "is redpak's own"),
    ("{mode: Restricted, mount: /x, path: $NODE_PATH/.redpak}", "is redpak's own"),
    ("{mode: PublicFile, mount: /x, path: $NODE_PATH/etc/redpack.yaml}", "is redpak's own"),
    ("{mode: Public, mount: /x, path: $NODE_PATH/etc}", "would be writable"),
    ("{mode: Public, mount: /x, path: $NODE_PATH}", "would be writable"),
    ("{mode: Public, mount: /x/../y, path: $NODE_PATH/var}", '".." part'),
    ("{mode: Public, mount: /x, path: $NODE_PATH/var/../../..}", '".." part'),
])
def test_redpaks_own_files_and_traversal_are_refused(
        ground: Ground, export: str, message: str) -> None:
    node = ground.node("core", exports=[f"- {export}"])
    done = ground.run(node, "true")
    assert done.returncode == 125 and message in done.stderr, done.stderr
    assert f"{node}/etc/redpack.yaml:7" in done.stderr


def test_the_seccomp_profile_refuses_what_containers_refuse(ground: Ground) -> None:
    node = ground.node("core", config=["seccomp: default"])
    ground.settle()
    for _ in range(2):
        assert "Operation not permitted" in fails(ground, node, "unshare -U true")
        assert ground.output(node, "sh", "-c", "echo fine | cat; (exit 0) & wait") == "fine\n"
    # pidfd_getfd, quotactl_fd, open_tree_attr: as what they are like.
    numbers = ("import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); print([os.strerror("
               "libc.syscall(number, -1, 0, 0) and ctypes.get_errno()) for number in (438, 443, "
               "467)])")
    assert ground.output(node, "python3", "-c", numbers).count("not permitted") == 3
    assert ground.output(node, "python3", "-c", "import threading; t = threading.Thread(target="
                         "print, args=['thread']); t.start(); t.join()") == "thread\n"
    profile = ground.write(ground.directory / "profile", "")
    broken = ground.node("broken", config=[f"seccomp: {profile}"])
    for text in ("odd", "8 bytes."):
        profile.write_text(text)
        done = ground.run(broken, "true")
        assert done.returncode == 125 and f"{profile} is no compiled filter: it" in done.stderr


def test_set_user_and_map_root_user_change_who_one_is(ground: Ground, node: Path) -> None:
    (node / "private").chmod(0o755)
    mapped = ground.node("mapped", config=["map-root-user: true"])
    ground.settle()
    for _ in range(2):
        assert ground.output(mapped, "id", "-u") == "0\n"
    other = ground.node("other", config=["set-user: 12345", "set-group: 12346"])
    (other / "private").chmod(0o755)
    ground.settle()
    for _ in range(2):
        assert ground.output(other, "sh", "-c", "id -u; id -g") == "12345\n12346\n"
    assert ground.output(node, "sh", "-c", "id -u; id -g", options=[
        "--user=12345", "--group=12346"]) == "12345\n12346\n"
    unknown = ground.node("unknown", config=["set-user: nobody-has-this"])
    done = ground.run(unknown, "true")
    assert f"{unknown}/etc/redpack.yaml:3: config.set-user: there is no user" in done.stderr


@pytest.mark.parametrize(("tag", "message"), [
    ("set-user: 4294967296", "config.set-user: 4294967296 is not the number of a user or group; "),
    ("set-group: 99999999999", "config.set-group: 99999999999 is not the number of a user or"),
    ("set-user: '\u00b2'", "config.set-user: there is no user \u00b2; write a name of this system"),
    (f"hostname: {'a' * 65}", "is too long a name (node core); write at most 64 bytes"),
    ("chdir: tmp", "config.chdir: tmp is not absolute (node core); write a path of the namespace"),
])
def test_a_value_that_means_nothing_names_its_line(
        ground: Ground, tag: str, message: str) -> None:
    node = ground.node("core", config=[tag])
    done = ground.run(node, "true")
    assert done.returncode == 125 and message in done.stderr, done.stderr
    assert done.stderr.startswith(f"red-wrap: error: {node}/etc/redpack.yaml:3: config.")


def test_a_namespace_can_be_joined(ground: Ground) -> None:
    if ground.actor.kind != "root":
        node = ground.node("core", config=["share_net: /proc/1/ns/net"])
        done = ground.run(node, "true")
        assert done.returncode == 125 and "config.share_net: cannot" in done.stderr
        return
    holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec sleep 100"],
                              stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "ready\n"
        path = f"/proc/{holder.pid}/ns/net"
        node = ground.node("core", config=[f"share_net: {path}"])
        ground.settle()
        for _ in range(2):
            assert ground.output(node, "readlink", "/proc/self/ns/net").strip() == os.readlink(path)
    finally:
        holder.kill()
        holder.wait()


def test_a_user_namespace_can_be_joined(ground: Ground) -> None:
    holder = ground.actor.popen(["unshare", "-Ur", "sh", "-c", "echo ready; exec sleep 100"],
                                stdout=subprocess.PIPE)
    try:
        assert holder.stdout and holder.stdout.readline() == "ready\n"
        path = f"/proc/{holder.pid}/ns/user"
        node = ground.node("core", config=[f"share_user: {path}"])
        ground.settle()
        for _ in range(2):
            assert ground.output(node, "readlink", "/proc/self/ns/user").strip() == (
                os.readlink(path))
    finally:
        holder.kill()
        holder.wait()


@contextlib.contextmanager
def held_namespaces(actor: Actor) -> Iterator[str]:
    """Where the namespaces, one of each kind, of a process of the actor's are."""
    holder = actor.popen(["unshare", "-Urpfniu", "sh", "-c", "echo $$; exec sleep 100"],
                         stdout=subprocess.PIPE)
    try:
        assert holder.stdout and holder.stdout.readline() == "1\n"
        (child,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        yield f"/proc/{child}/ns"
        os.kill(int(child), signal.SIGKILL)
    finally:
        holder.kill()
        holder.wait()


def test_a_pid_namespace_is_joined_together_with_its_user_namespace(ground: Ground) -> None:
    with held_namespaces(ground.actor) as held:
        node = ground.node("core", config=[f"share_user: {held}/user", f"share_pid: {held}/pid"])
        ground.settle()
        for _ in range(2):
            assert ground.output(node, "readlink", "/proc/self/ns/pid").strip() == (
                os.readlink(f"{held}/pid"))


# Each as an ordinary user and as root: what is joined, and what red-wrap says.
NOT_GRANTED: list[tuple[list[str], dict[str, str]]] = [
    (["share_pid: {held}/pid"], {
        "user": "config.share_pid: {held}/pid cannot be joined by an ordinary user alone "
                "(node core); run red-wrap as root, or say share_user: ",
        "root": "config.share_pid: {held}/pid cannot be joined from a new user namespace "
                "(node core); say share_user: enabled without map-root-user, or share_user: "}),
    (["share_pid: {held}/pid", "share_user: enabled"], {
        "user": "config.share_pid: {held}/pid cannot be joined by an ordinary user alone"}),
    (["share_pid: {held}/pid", "share_user: enabled", "map-root-user: true"], {
        "user": "config.share_pid: {held}/pid cannot be joined by an ordinary user alone",
        "root": "config.share_pid: {held}/pid cannot be joined from a new user namespace"}),
    *(([f"share_{kind}: {{held}}/{kind}", "share_user: {held}/user"], {
        "user": f"config.share_{kind}: cannot join {{held}}/{kind}: Operation not permitted"
                f" (node core); only root can join a namespace of this kind ({kind})"})
      for kind in ("net", "ipc", "cgroup", "time")),
    (["share_pid: /proc/self/ns/pid", "share_user: {held}/user"], dict.fromkeys(
        ("user", "root"), "config.share_pid: cannot join /proc/self/ns/pid: Operation not permitted"
        " (node core); share_user must name the user namespace that it was made in")),
    (["share_user: /proc/self/ns/user"], dict.fromkeys(
        ("user", "root"), "config.share_user: cannot join /proc/self/ns/user: Invalid argument"
                          " (node core); it is the caller's own already")),
    (["share_net: {held}/pid"], dict.fromkeys(
        ("user", "root"), "config.share_net: {held}/pid is a namespace of another kind (pid)")),
    (["share_net: /etc/passwd"], dict.fromkeys(
        ("user", "root"), "config.share_net: /etc/passwd is not a namespace (node core); name")),
    (["share_ipc: /proc/0/ns/ipc"], dict.fromkeys(
        ("user", "root"), "config.share_ipc: cannot open the namespace /proc/0/ns/ipc: No such")),
]


@pytest.mark.parametrize(("config", "messages"), NOT_GRANTED)
def test_a_namespace_that_cannot_be_joined_is_one_clear_line(
    ground: Ground, config: list[str], messages: dict[str, str]
) -> None:
    with held_namespaces(ground.actor) as held:
        node = ground.node("core", config=[line.format(held=held) for line in config])
        done = ground.run(node, "true")
    message = messages.get(ground.actor.kind, "")
    if not message:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 125 and done.stderr.count("\n") == 1, done.stderr
    assert f"red-wrap: error: {node}/etc/redpack.yaml:" in done.stderr
    assert message.format(held=held) in done.stderr


def test_a_namespace_may_have_a_name_in_tmp(ground: Ground) -> None:
    """Where red-wrap makes its mounts."""
    if ground.actor.kind != "root":
        pytest.skip("only root can give a namespace a name")
    # unshare(1) waits for the one that it starts as pid 1.
    holder = subprocess.Popen(["unshare", "-pf", "sh", "-c", "echo ready; exec sleep 100"],
                              stdout=subprocess.PIPE, text=True)
    with tempfile.NamedTemporaryFile(dir="/tmp") as name:
        try:
            assert holder.stdout and holder.stdout.readline() == "ready\n"
            path = f"/proc/{holder.pid}/ns/pid_for_children"
            subprocess.run(["mount", "--bind", path, name.name], check=True)
            node = ground.node("core", config=[f"share_pid: {name.name}",
                                               "share_user: enabled"])
            ground.settle()
            for _ in range(2):
                assert ground.output(node, "readlink", "/proc/self/ns/pid").strip() == (
                    os.readlink(path))
        finally:
            subprocess.run(["umount", name.name], check=False)
            holder.kill()
            holder.wait()


def test_a_time_namespace_of_its_own_is_possible(ground: Ground) -> None:
    node = ground.node("core", config=["share_time: disabled"])
    ground.settle()
    for _ in range(2):
        assert ground.output(node, "readlink", "/proc/self/ns/time").strip() != os.readlink(
            "/proc/self/ns/time")


def own_control_group() -> Path:
    """A group of the real cgroup v2 tree with a controller to hand on; skips without one."""
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        controllers = root / "cgroup.controllers"
        if controllers.exists() and "pids" in controllers.read_text().split():
            return root
    pytest.skip("no cgroup v2 tree with the controller pids: only the recorded tree was tested "
                "(tests/unit/test_wrap_parts.py)")


def test_processes_are_in_the_leaf_of_the_real_control_groups(ground: Ground) -> None:
    if ground.actor.kind != "root":
        pytest.skip("only root may make groups without a delegated one")
    root = own_control_group()
    group = root / f"redpak-test-{os.getpid()}"
    node = ground.node("core", config=[f"cgrouproot: {group}", "cgroups: {pids: {max: 20}}"])
    (root / "cgroup.subtree_control").write_text("+pids")
    group.mkdir()
    try:
        for _ in range(2):
            seen = ground.output(node, "cat", "/proc/self/cgroup")
            assert seen.strip() == "0::/", "a cgroup namespace of its own"
            assert (group / "core/pids.max").read_text() == "20\n"
        assert ground.run(node, "sh", "-c", "for i in $(seq 40); do sleep 1 & done").returncode
    finally:
        for path in ("core/red-wrap:", "core", ""):
            (group / path).rmdir()


def test_smack_without_smack_is_explained(ground: Ground) -> None:
    if os.path.ismount("/sys/fs/smackfs"):
        pytest.skip("this kernel has SMACK")
    node = ground.node("core", config=["smack: App"])
    done = ground.run(node, "true")
    assert done.returncode == 125 and "SMACK is not active on this kernel" in done.stderr


def test_a_constraint_that_is_loosened_is_told_each_time(ground: Ground) -> None:
    ground.node("core", config=["share_net: disabled"])
    child = ground.node("core/app", config=["share_net: enabled"])
    ground.settle()
    for _ in range(2):
        done = ground.run(child, "readlink", "/proc/self/ns/net")
        assert done.returncode == 0 and done.stdout.strip() != os.readlink("/proc/self/ns/net")
        assert done.stderr.startswith("red-wrap: warning: ") and "cannot loosen" in done.stderr
    # Both from the plan and, with another command to look up, without one.
    for options in (["--quiet"], ["-q"], ["--quiet", "--explain"]):
        done = ground.run(child, "true", options=options)
        assert (done.returncode, done.stderr) == (0, "")
    done = ground.run(child, "true", options=["--strict"])
    assert done.returncode == 125 and "cannot loosen" in done.stderr


def test_a_lock_is_held_while_the_application_runs(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Lock, mount: /nodes/core/var/lock}"])
    ground.write(node / "var/lock", "")
    script = ("import fcntl; f = open('/nodes/core/var/lock', 'r+'); "
              "fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)")
    done = ground.run(node, "python3", "-c", script)
    assert done.returncode == 1 and "BlockingIOError" in done.stderr
