# SPDX-License-Identifier: Apache-2.0
"""What of its caller reaches an application, and whose rights its node's commands have."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from support.actors import find_actor
from support.wrapping import WITHOUT_CALLS, Ground, make_ground

KEY_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219)}  # add_key, keyctl: asm/unistd.h


@pytest.fixture
def node(ground: Ground) -> Path:
    return ground.node("core")


def test_no_descriptor_of_the_first_process_leads_out(ground: Ground) -> None:
    """bwrap keeps the mark of a running application open: a file of the leaf, or for who may not
    write there its state directory."""
    node = ground.node("core", exports=["- {mode: Overlay, mount: /stack, path: $NODE_PATH/lower}"])
    ground.write(node / "lower/file", "")
    ground.write(node / "private/secret", "not for it")
    ground.write(ground.directory / "outside", "")
    climb = ("for fd in /proc/1/fd/*; do for up in .. ../.. ../../..; do ls -a $fd/$up; "
             "cat $fd/$up/private/secret; touch $fd/touched $fd/$up/touched; done; done 2>&1; "
             "[ -e /proc/1/fd/1 ]")
    running = node / ".redpak/running"
    for _ in range(2):
        running.mkdir(exist_ok=True)
        assert "outside" not in ground.output(node, "sh", "-c", climb)
        shutil.rmtree(running)
        running.write_text("")  # now no mark can be made in it
        seen = ground.output(node, "sh", "-c", climb)
        assert "running" in seen, "the state directory is held"
        assert "outside" not in seen and "not for it" not in seen
        running.unlink()
    assert not list(ground.directory.rglob("touched"))


KEEP_A_SECRET = """\
import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
assert call(%d, 1, None) > 0, "a session keyring"
key = call(%d, b"user", b"redpak-test", b"secret", ctypes.c_size_t(6), -3)
os.execv(sys.argv[1], [*sys.argv[1:], str(key)])
"""
READ_A_SECRET = """\
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(%d, 11, int(sys.argv[1]), None, 0), os.strerror(ctypes.get_errno()))
print(libc.syscall(%d, 10, -3, b"user", b"redpak-test", 0), os.strerror(ctypes.get_errno()))
print(libc.syscall(%d, b"user", b"own", b"x", ctypes.c_size_t(1), -3) > 0)
"""


def test_the_callers_keys_are_not_the_applications(ground: Ground, node: Path) -> None:
    if os.uname().machine not in KEY_CALLS:
        pytest.skip("knows the numbers of add_key and keyctl on x86_64 and aarch64 only")
    add, control = KEY_CALLS[os.uname().machine]
    ground.settle()
    for _ in range(2):
        done = ground.actor.run([
            "python3", "-c", KEEP_A_SECRET % (control, add), ground.command, f"--redpath={node}",
            "--", "python3", "-c", READ_A_SECRET % (control, control, add)])
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["-1", "-1", "True"]


TAKE_ALL_KEYS = """\
import ctypes, os, sys
call, number = ctypes.CDLL(None).syscall, 0
assert call(%d, 1, None) > 0, "a session keyring"
while call(%d, b"user", b"redpak-test-%%d" %% number, b"x", ctypes.c_size_t(1), -3) > 0:
    number += 1
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user of its own: keys are counted by user")
def test_a_user_without_keys_left_is_told(pool_root: Path, red_wrap: Path) -> None:
    if os.uname().machine not in KEY_CALLS:
        pytest.skip("knows the numbers of add_key and keyctl on x86_64 and aarch64 only")
    add, control = KEY_CALLS[os.uname().machine]
    somebody = replace(find_actor("user"), name="54321", uid=54321, gid=54321)
    ground = make_ground(somebody, pool_root, red_wrap)
    done = ground.actor.run([
        "python3", "-c", TAKE_ALL_KEYS % (control, add), red_wrap,
        f"--redpath={ground.node('core')}", "--", "true"])
    assert (done.returncode, done.stderr) == (
        125, "red-wrap: error: cannot make a keyring: too many keys; end other applications of "
        "this user, or raise kernel.keys.maxkeys\n")


def test_a_descriptor_that_the_caller_left_open_does_not_cross(ground: Ground, node: Path) -> None:
    ground.settle()
    for number in (5, 9, 10, 42, 255):
        script = f"exec {number}</etc; exec {ground.command} --redpath={node} ls /proc/self/fd"
        for _ in range(2):
            done = ground.actor.run(["bash", "-c", script])
            assert done.stdout.split() == ["0", "1", "2", "3"], (number, done.stderr)


WITHOUT_CLOSE_RANGE = WITHOUT_CALLS.replace("442", "436").replace("mount_setattr", "close_range")


def test_descriptors_are_closed_without_close_range(ground: Ground, node: Path) -> None:
    """Before Linux 5.11; whatever today's limit of descriptors is."""
    ground.settle()
    for _ in range(2):
        done = ground.actor.run([
            "bash", "-c", 'exec 100</; ulimit -n 50; exec "$@"', "bash", "python3", "-c",
            WITHOUT_CLOSE_RANGE, ground.command, f"--redpath={node}", "ls", "/proc/self/fd"])
        assert done.stdout.split() == ["0", "1", "2", "3"], done.stderr


def test_standard_descriptors_that_the_caller_closed_are_dev_null(
        ground: Ground, node: Path) -> None:
    """And not the next file that somebody opens."""
    ground.settle()
    for _ in range(2):
        done = ground.actor.run([
            "bash", "-c", 'exec "$@" <&- 2>&-', "bash", ground.command, f"--redpath={node}",
            "readlink", "/proc/self/fd/0", "/proc/self/fd/2"])
        assert done.stdout == "/dev/null\n/dev/null\n"


def test_the_rights_of_a_set_user_id_program_are_not_used(ground: Ground, node: Path) -> None:
    if ground.actor.kind != "user" or os.geteuid() != 0:
        pytest.skip("needs a second user: run as root")
    command = ground.directory / "red-wrap"
    shutil.copy(ground.command, command)
    command.chmod(0o4755)
    done = ground.actor.run([command, f"--redpath={node}", "id", "-u"])
    assert (done.returncode, done.stdout) == (125, "")
    if "\nNoNewPrivs:\t1\n" in Path("/proc/self/status").read_text():
        # Below bwrap, as in a root of scripts/prove: the program gets no rights (prctl(2)).
        assert done.stderr.endswith("has no red-wrap-cold; install redpak again\n")
        return
    assert done.stderr == (
        f"red-wrap: error: {command} runs with the rights of another user or group than its "
        "caller's; take its set-user-ID bit away, or that of the program that calls it\n")


def test_a_descriptor_that_is_exported_crosses_as_a_file(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Internal, mount: /etc/handed, path: 7}"])
    script = f"exec 7<<<handed; exec {ground.command} --redpath={node} cat /etc/handed"
    ground.settle()
    for _ in range(2):
        done = ground.actor.run(["bash", "-c", script])
        assert done.stdout == "handed\n", done.stderr
    for number in (7, 3):  # 3 is one that red-wrap opens itself
        assert ground.run(node, "true").stderr == (
            f"red-wrap: error: {node}/etc/redpack.yaml:7: mount /etc/handed: file descriptor "
            f"{number} is not open; start red-wrap with {number}<FILE\n")
        ground.write(node / "etc/redpack.yaml", (node / "etc/redpack.yaml").read_text().replace(
            "path: 7", "path: 3"))


def test_root_launches_a_users_node_as_that_user(ground: Ground) -> None:
    """Whatever the node's configuration asks for: exports, capabilities, commands."""
    if ground.actor.kind != "user" or os.geteuid() != 0:
        pytest.skip("needs a second user: run as root")
    secret = ground.directory / "roots"
    secret.mkdir(mode=0o700)
    node = ground.node(
        "core", config=["capabilities:", "  - {cap: all, add: true}"],
        exports=[f"- {{mode: Public, mount: /roots, path: {secret}}}",
                 "- {mode: Execfd, mount: /etc/who, path: id -u}"])
    root = Ground(find_actor("root").with_environ(**ground.actor.environ, SAID="x"),
                  ground.directory, ground.command)
    # A descriptor of root's is no file for the node's configuration either.
    words = ["sh", "-c", 'id -u; cat /etc/who; touch /roots/x 2>/dev/null; echo $SAID "$@"; '
             "ls /proc/self/fd; exit 7", "sh", "two words", "--redpath=x"]
    argv = ["bash", "-c", 'exec 9</; exec "$@"', "bash", ground.command, f"--redpath={node}", "--",
            *words]
    ground.settle()
    for _ in range(2):
        done = root.actor.run(argv)
        assert done.returncode == 7, done.stderr
        assert done.stdout == (f"{ground.actor.uid}\n{ground.actor.uid}\nx two words --redpath=x\n"
                               "0\n1\n2\n3\n")
    assert list(secret.iterdir()) == []
    assert ground.plan(node).stat().st_uid == ground.actor.uid
    assert root.output(node, "id", "-u", options=["--user=0"]) == "0\n"  # in his namespace only
    assert root.run(node, "touch", "/roots/x", options=["--user=0"]).returncode == 1


def test_root_launches_no_node_that_others_can_exchange(ground: Ground) -> None:
    if ground.actor.kind != "root":
        pytest.skip("others can do no harm but to themselves")
    node = ground.node("open/core")
    for mode, owner in ((0o777, 0), (0o755, 12345)):
        node.parent.chmod(mode)
        os.chown(node.parent, owner, 0)
        done = ground.run(node, "true")
        assert done.returncode == 125
        assert f"{node}: {node.parent} on the way can be changed by others" in done.stderr
    os.chown(node.parent, 0, 0)
    node.chmod(0o777)
    done = ground.run(node, "true")
    assert (done.returncode, done.stderr) == (125, (
        f"red-wrap: error: {node}: can be changed by others than root; give it the mode 0755\n"))
    node.chmod(0o1777)
    ground.output(node, "true")


def test_a_command_of_a_third_user_is_not_run(ground: Ground) -> None:
    if ground.actor.kind != "user" or os.geteuid() != 0:
        pytest.skip("needs a second user: run as root")
    node = ground.node("core", environ=["- {key: WHO, value: id -u, mode: Execfd}"])
    os.chown(node / "etc/redpack.yaml", 12345, 12345)
    done = ground.run(node, "true")
    assert done.returncode == 125
    assert "the command is not run: that file belongs to uid 12345" in done.stderr


def test_a_command_that_anybody_may_change_is_not_run(ground: Ground) -> None:
    node = ground.node("core", environ=["- {key: WHO, value: id -u, mode: Execfd}"])
    (node / "etc/redpack.yaml").chmod(0o666)
    done = ground.run(node, "true")
    assert done.returncode == 125 and "anybody may write that file" in done.stderr
    assert ground.run(node, "true", options=["--unsafe"]).returncode == 0


def test_who_may_write_a_file_cannot_license_himself(ground: Ground) -> None:
    """The tag `unsafe` counts from a file that its commands would be run from without it."""
    parent = ground.node("parent", config=["unsafe: true"])
    child = ground.node("parent/child", environ=["- {key: WHO, value: id -u, mode: Execfd}"])
    (child / "etc/redpack.yaml").chmod(0o666)
    ground.settle()
    for _ in range(2):
        assert ground.output(child, "sh", "-c", "echo $WHO") == f"{ground.actor.uid}\n"
    (parent / "etc/redpack.yaml").chmod(0o666)
    done = ground.run(child, "true")
    assert done.returncode == 125 and "anybody may write that file" in done.stderr
    alone = ground.node("alone", config=["unsafe: true"],
                        environ=["- {key: WHO, value: id -u, mode: Execfd}"])
    (alone / "etc/redpack.yaml").chmod(0o666)
    done = ground.run(alone, "true")
    assert done.returncode == 125 and "anybody may write that file" in done.stderr
