# SPDX-License-Identifier: Apache-2.0
"""red-wrap runs applications: namespaces, environment, exit status, bad input."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.wrapping import Ground


@pytest.fixture
def node(ground: Ground) -> Path:
    return ground.node("core")


def test_an_application_sees_the_family_and_nothing_else(ground: Ground, node: Path) -> None:
    child = ground.node("core/app")
    ground.script(node / "usr/bin/from-parent", "echo parent")
    ground.script(child / "usr/bin/from-child", "echo child")
    seen = ground.output(child, "sh", "-c", "ls / /nodes; hostname; "
                         "/nodes/core/usr/bin/from-parent; /nodes/app/usr/bin/from-child")
    assert seen.split() == [
        "/:", "bin", "dev", "etc", "lib", "lib64", "nodes", "proc", "tmp", "usr", "/nodes:",
        "_private", "app", "core", "app", "parent", "child"]


def test_the_search_path_is_made_from_the_tags_leaf_first(ground: Ground) -> None:
    ground.node("core", config=["path: [/nodes/$NODE_ALIAS/usr/bin]"])
    child = ground.node("core/app", config=["path: [/nodes/$NODE_ALIAS/usr/bin]",
                                            "ldpath: [/nodes/$NODE_ALIAS/usr/lib]"])
    ground.script(child / "usr/bin/hello", "echo hello from the leaf")
    ground.script(ground.directory / "core/usr/bin/hello", "echo hello from the parent")
    assert ground.output(child, "hello") == "hello from the leaf\n"
    assert ground.output(child, "sh", "-c", "echo $PATH $LD_LIBRARY_PATH") == (
        "/nodes/app/usr/bin:/nodes/core/usr/bin:/usr/bin /nodes/app/usr/lib\n")


def test_variables_come_in_every_mode(ground: Ground) -> None:
    node = ground.node("core", environ=[
        "- {key: PLAIN, value: $NODE_ALIAS}",
        "- {key: AS_WRITTEN, value: $NODE_ALIAS, mode: Static}",
        "- {key: COMPUTED, value: 'echo $NODE_ALIAS; echo', mode: Execfd}",
        "- {key: GONE, mode: Remove}",
        "- {key: KEPT, mode: Inherit}"])
    for _ in range(2):
        assert ground.output(
            node, "sh", "-c", 'echo "$PLAIN|$AS_WRITTEN|$COMPUTED|${GONE-unset}|$KEPT|$OTHER"',
            env={"GONE": "here", "KEPT": "kept", "OTHER": "inherited"},
        ) == "core|$NODE_ALIAS|core\n|unset|kept|inherited\n"
        ground.settle()


def test_without_inherit_env_only_configured_variables_cross(ground: Ground) -> None:
    node = ground.node("core", config=["inherit-env: false"],
                       environ=["- {key: KEPT, mode: Inherit}", "- {key: SET, value: x}"])
    names = {line.split("=")[0] for line in ground.output(
        node, "env", env={"KEPT": "1", "OTHER": "2"}).splitlines()}
    assert names == {"KEPT", "SET", "PATH", "PWD"}


def test_variables_of_the_dynamic_linker_never_cross(ground: Ground, node: Path) -> None:
    hostile = {"LD_PRELOAD": "/tmp/evil.so", "LD_AUDIT": "/tmp/evil.so", "LD_LIBRARY_PATH": "/evil",
               "GLIBC_TUNABLES": "glibc.malloc.check=3", "GCONV_PATH": "/evil"}
    ground.settle()
    for _ in range(2):
        done = ground.run(node, "env", env=hostile)
        assert done.returncode == 0
        # (What ld.so says on stderr, it says to the caller's own shell.)
        assert not set(hostile) & {line.split("=")[0] for line in done.stdout.splitlines()}


def test_the_output_of_commands_becomes_files(ground: Ground) -> None:
    node = ground.node("core", exports=[
        "- {mode: Execfd, mount: /etc/who, path: 'echo $NODE_ALIAS $LEAF_ALIAS $UID'}",
        "- {mode: Execfd, mount: /etc/no-newline, path: 'printf x'}",
        "- {mode: Execfd, mount: /etc/empty, path: ':'}",
        "- {mode: Execfd, mount: /etc/large, path: 'seq 1 40000'}"])
    ground.settle()
    for _ in range(2):
        assert ground.output(node, "sh", "-c", "cat /etc/who; wc -c /etc/no-newline /etc/empty "
                             "/etc/large | head -3; stat -c %a /etc/who") == (
            f"core core {ground.actor.uid}\n     1 /etc/no-newline\n     0 /etc/empty\n"
            "228894 /etc/large\n444\n")


def test_values_are_no_commands(ground: Ground) -> None:
    """A value with shell syntax reaches an Execfd command as a value."""
    node = ground.node("core", environ=["- {key: V, value: 'echo \"$EVIL\"', mode: Execfd}"])
    ground.settle()
    for _ in range(2):
        assert ground.output(node, "sh", "-c", 'echo "$V"', env={"EVIL": "$(id); `id`'\"; id"}) == (
            "$(id); `id`'\"; id\n")


def test_a_failing_command_names_its_line(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Execfd, mount: /etc/x, path: 'exit 3'}"])
    done = ground.run(node, "true")
    assert done.returncode == 125
    assert done.stderr == (
        f"red-wrap: error: {node}/etc/redpack.yaml:7: mount /etc/x (node core): the command failed "
        "with status 3: exit 3; run it in a shell to see why\n")


@pytest.mark.parametrize(("script", "status"), [
    ("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137),
    ("kill -SEGV $$", 139)])
def test_the_exit_status_is_the_applications(
        ground: Ground, node: Path, script: str, status: int) -> None:
    ground.settle()
    assert ground.run(node, "sh", "-c", script).returncode == status
    assert ground.run(node, "sh", "-c", script).returncode == status


def test_a_command_that_does_not_exist_is_127(ground: Ground, node: Path) -> None:
    ground.settle()
    for _ in range(2):
        done = ground.run(node, "no-such-command")
        assert (done.returncode, done.stderr) == (127, (
            "red-wrap: error: no-such-command: no such command in the namespace (PATH=/usr/bin); "
            "install the package that has it, or look at red-wrap --explain\n"))
    done = ground.run(node, "/usr/local/bin/only-on-the-host")
    assert done.returncode == 127


def test_a_command_that_cannot_be_executed_is_126(ground: Ground, node: Path) -> None:
    ground.write(node / "usr/bin/data", "no program\n")
    done = ground.run(node, "/nodes/core/usr/bin/data")
    assert (done.returncode, done.stderr) == (126, (
        "red-wrap: error: /nodes/core/usr/bin/data: cannot be executed in the namespace; check "
        "that it is a file with execute permission\n"))


def test_a_link_is_followed_as_the_namespace_has_it(ground: Ground, node: Path) -> None:
    (node / "usr/bin/to-host").symlink_to("/opt/only-on-the-host")
    (node / "usr/bin/to-tool").symlink_to("/usr/bin/echo")
    ground.settle()
    for _ in range(2):
        assert ground.run(node, "/nodes/core/usr/bin/to-host").returncode == 127
        assert ground.output(node, "/nodes/core/usr/bin/to-tool", "x") == "x\n"


def test_input_and_output_pass_through(ground: Ground, node: Path) -> None:
    process = ground.actor.popen([ground.command, f"--redpath={node}", "cat"],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate("through\n")[0] == "through\n"


def test_arguments_pass_unchanged(ground: Ground, node: Path) -> None:
    words = ["", " ", "a b", "*", "$HOME", "'", '"', "--version", "-x", "\n", "é"]
    ground.settle()
    for _ in range(2):
        assert ground.output(node, "printf", "[%s]", *words) == "".join(
            f"[{word}]" for word in words)


def test_the_umask_is_the_configured_one_or_the_callers(ground: Ground, node: Path) -> None:
    strict = ground.node("strict", config=["umask: 027"])
    ground.settle()
    for _ in range(2):
        assert ground.output(strict, "sh", "-c", "umask") == "0027\n"
        previous = os.umask(0o037)
        try:
            assert ground.output(node, "sh", "-c", "umask") == "0037\n"
        finally:
            os.umask(previous)


@pytest.mark.parametrize(("options", "message"), [
    ([], "no command given; write it after the options: red-wrap --redpath=DIR -- COMMAND"),
    (["--nonsense", "ls"], "red-wrap: error: "),
    (["--redpath=relative", "ls"], "redpath relative is not absolute; write --redpath=/relative"),
    (["--redpath=/usr/bin", "ls"], "/usr/bin is not a node, it has no .rednode.yaml; make it one "
     "with red-manager --create --alias=NAME"),
    (["--rmain=/nonexistent", "ls"], "/nonexistent does not exist, it describes the core OS; "
     "install redpak's configuration or say --rmain=FILE"),
    (["--bwrap=/nonexistent", "ls"], "/nonexistent: bubblewrap not found; correct --bwrap"),
])
def test_bad_input_is_one_line_and_125(
        ground: Ground, node: Path, options: list[str], message: str) -> None:
    done = ground.actor.run([ground.command, f"--redpath={node}", *options])
    assert done.returncode == 125
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_without_a_node_the_message_says_how_to_name_one(ground: Ground) -> None:
    done = ground.actor.run([ground.command, "ls"])
    assert (done.returncode, done.stderr) == (125, (
        "red-wrap: error: no node given; say which with --redpath=DIR or REDPATH\n"))


def test_a_redpath_behind_the_command_is_noticed(ground: Ground) -> None:
    done = ground.actor.run([ground.command, "ls", "--redpath=/x"])
    assert (done.returncode, done.stderr) == (125, (
        "red-wrap: error: no node given; write --redpath=DIR before the command: what comes after "
        "it is the command's own\n"))


def test_an_empty_command_is_none(ground: Ground, node: Path) -> None:
    done = ground.run(node, "")
    assert (done.returncode, done.stderr) == (127, (
        "red-wrap: error: the command is an empty word; write red-wrap --redpath=DIR -- COMMAND\n"))


@pytest.mark.parametrize("option", ["--help", "--json"])
def test_a_reader_may_stop_in_the_middle(ground: Ground, node: Path, option: str) -> None:
    script = f"{ground.command} --redpath={node} {option} | true; sleep 0.3"
    assert ground.actor.run(["sh", "-c", script]).stderr == ""


def test_the_node_may_come_from_the_environment(ground: Ground, node: Path) -> None:
    for spelling in (["--rpath", str(node)], [f"--rp={node}"], []):
        done = ground.actor.run([ground.command, *spelling, "echo", "ok"],
                                env={"REDPATH": str(node)})
        assert done.stdout == "ok\n", done.stderr


def test_red_wrap_may_be_called_through_a_link(ground: Ground, node: Path) -> None:
    link = ground.directory / "red-wrap"
    link.symlink_to(ground.command)
    ground.settle()
    for _ in range(2):
        assert ground.actor.check([link, f"--redpath={node}", "echo", "ok"]) == "ok\n"


def test_broken_yaml_is_named_with_its_line(ground: Ground, node: Path) -> None:
    ground.write(node / "etc/redpack.yaml", "headers:\n  alias: core\n bad: [\n")
    done = ground.run(node, "ls")
    assert done.returncode == 125
    assert f"{node}/etc/redpack.yaml:" in done.stderr and "Traceback" not in done.stderr


def test_a_missing_source_names_node_file_and_line(ground: Ground) -> None:
    node = ground.node("core", exports=[
        "- {mode: Public, mount: /data, path: $NODE_PATH/var/data}"])
    done = ground.run(node, "true")
    assert (done.returncode, done.stderr) == (125, (
        f"red-wrap: error: {node}/etc/redpack.yaml:7: mount /data: no such file or directory: "
        f"{node}/var/data (node core); create it, or use --force to create what is missing\n"))
    assert ground.run(node, "true", options=["--force"]).returncode == 0
    assert (node / "var/data").is_dir()
    assert ground.run(node, "true").returncode == 0


def test_a_mount_point_that_cannot_be_made_is_explained(ground: Ground) -> None:
    node = ground.node("core", exports=["- {mode: Tmpfs, mount: /usr/lib/nowhere}"])
    done = ground.run(node, "true")
    assert done.returncode == 125
    assert (f"{node}/etc/redpack.yaml:7: mount /usr/lib/nowhere: /usr/lib is read-only and has no "
            "such entry: /usr/lib/nowhere (node core)") in done.stderr


def test_a_moved_node_is_refused_unless_forced(ground: Ground, node: Path) -> None:
    moved = node.rename(node.with_name("moved"))
    assert "was created at" in ground.run(moved, "true").stderr
    assert ground.run(moved, "true", options=["--force"]).returncode == 0


def test_an_unfinished_transaction_stops_the_launch(ground: Ground, node: Path) -> None:
    ground.settle()
    ground.output(node, "true")
    ground.write(node / ".redpak/journal", "")
    done = ground.run(node, "true")
    assert done.returncode == 125
    assert done.stderr == (
        f"red-wrap: error: node core at {node} has an unfinished transaction; finish it with dnf "
        f"red-manager --redpath={node} --recover\n")
    child = ground.node("core/app")
    assert "node core at" in ground.run(child, "true").stderr


def test_a_launch_waits_for_a_commit_to_end(ground: Ground, node: Path) -> None:
    """Cold and warm: the lock is taken, or the journal is seen and the lock waited for."""
    ground.settle()
    ground.output(node, "true")
    fd = os.open(node, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    journal = ground.write(node / ".redpak/journal", "")
    process = ground.actor.popen([ground.command, f"--redpath={node}", "echo", "started"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(
        f"red-wrap: waiting for a transaction on {node} (process {os.getpid()} of ")
    journal.unlink()
    os.close(fd)
    assert process.communicate() == ("started\n", "")


def test_dump_only_prints_one_option_a_line_in_a_stable_order(ground: Ground, node: Path) -> None:
    first = ground.actor.check([ground.command, f"--redpath={node}", "--dump-only"])
    assert first == ground.actor.check([ground.command, f"--redpath={node}", "--dump-only"])
    lines = first.splitlines()
    assert "--cap-drop ALL" in lines and f"--ro-bind {node}/usr /nodes/core/usr" in lines
    mounts = [line.split()[-1] for line in lines if line.startswith(("--ro-bind", "--tmpfs"))]
    assert mounts == sorted(mounts)


def test_explain_names_the_line_of_everything(ground: Ground, node: Path) -> None:
    text = ground.actor.check([ground.command, f"--redpath={node}", "--explain"])
    rows = [line.split() for line in text.splitlines()]
    assert ["/nodes/core/usr", f"{node}/usr", "(read-only)", "core",
            f"{node}/etc/redpack.yaml:4"] in rows
    assert ["hostname", "core", "redmain", f"{ground.main}:2"] in rows


def test_the_plan_as_json_has_operations_with_origins(ground: Ground, node: Path) -> None:
    plan = json.loads(ground.actor.check([ground.command, f"--redpath={node}", "--json"]))
    entry = next(step for step in plan["operations"] if step.get("mount") == "/nodes/core/usr")
    assert entry == {
        "operation": "Bind", "arguments": ["--ro-bind", f"{node}/usr", "/nodes/core/usr"],
        "mount": "/nodes/core/usr",
        "origin": {"node": "core", "file": f"{node}/etc/redpack.yaml", "line": 4, "column": 5}}


def test_an_optional_source_that_is_missing_is_left_out(ground: Ground) -> None:
    node = ground.node("core", exports=[
        "- {mode: Restricted, mount: /maybe, path: $NODE_PATH/maybe, optional: true}"])
    ground.settle()
    assert ground.run(node, "test", "-e", "/maybe").returncode == 1
    (node / "maybe").mkdir()
    assert ground.run(node, "test", "-e", "/maybe").returncode == 0


def test_a_node_that_was_not_proven_lately_does_not_start(ground: Ground) -> None:
    node = ground.node("core", config=["maxage: 30"])
    done = ground.run(node, "true")
    assert done.returncode == 125 and "config.maxage allows 30" in done.stderr
    assert ground.run(node, "true", options=["--force"]).returncode == 0


def test_two_hundred_launches_at_once_all_run(ground: Ground, node: Path) -> None:
    processes = [ground.actor.popen(
        [ground.command, f"--redpath={node}", "sh", "-c", f"exit {number % 100}"],
        stderr=subprocess.PIPE) for number in range(200)]
    statuses = [(process.wait(), process.stderr.read()) for process in processes if process.stderr]
    assert statuses == [(number % 100, "") for number in range(200)]


def test_a_signal_to_red_wrap_ends_the_application(ground: Ground) -> None:
    node = ground.node("core", config=["die-with-parent: true"])
    process = ground.actor.popen(
        [ground.command, f"--redpath={node}", "sh", "-c", "echo ready; exec sleep 1000"],
        stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    # The pipe ends when the last process that holds it is gone.
    assert process.stdout.read() == ""

