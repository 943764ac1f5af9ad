# SPDX-License-Identifier: Apache-2.0
"""A compiled launch plan is used while nothing it came from has changed, and never after."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from support.wrapping import Ground

SHOW = ["- {key: SHOWN, value: one}"]


@pytest.fixture
def node(ground: Ground) -> Path:
    node = ground.node("core", environ=SHOW)
    assert shown(ground, node) == "one"
    return node


def shown(ground: Ground, node: Path, **environ: str) -> str:
    """What $SHOWN is, launched when all files have settled; then launched warm the same."""
    ground.settle()
    first = ground.output(node, "sh", "-c", "echo $SHOWN", env=environ)
    assert ground.output(node, "sh", "-c", "echo $SHOWN", env=environ) == first
    return first.strip()


def is_warm(ground: Ground, node: Path, **environ: str) -> bool:
    """Whether a launch goes without Python: one that cannot start."""
    main = ground.command.parent.parent / "__main__.py"
    hidden = main.with_suffix(".hidden")
    main.rename(hidden)
    try:
        return ground.run(node, "true", env=environ).returncode == 0
    finally:
        hidden.rename(main)


def edit(path: Path, old: str, new: str) -> None:
    """Change a file in place: same inode."""
    text = path.read_text()
    assert old in text
    with path.open("r+") as stream:
        stream.write(text.replace(old, new))
        stream.truncate()


def test_an_unchanged_node_is_launched_warm(ground: Ground, node: Path) -> None:
    assert is_warm(ground, node)
    assert ground.plan(node).stat().st_mode & 0o777 == 0o600


CALLERS = {
    "as it is": 'exec "$@"',
    "ignoring signals": 'trap "" INT QUIT HUP PIPE USR1 XFSZ CHLD; exec "$@"',
    "with limits": 'ulimit -S -n 64; ulimit -S -u 4000; ulimit -c 0; umask 077; exec "$@"',
    "without an environment": 'exec env -i redpak_MAIN="$redpak_MAIN" "$@"',
    "without stdin": 'exec "$@" <&-',
    "without stdin and stderr": 'exec "$@" <&- 2>&-',
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("mode", ["Restricted", "Overlay"])
def test_a_warm_launch_equals_a_cold_one(ground: Ground, mode: str, caller: str) -> None:
    node = ground.node("core", environ=SHOW, exports=[
        "- {mode: Execfd, mount: /etc/who, path: 'echo $LEAF_ALIAS'}",
        f"- {{mode: {mode}, mount: /layer, path: $NODE_PATH/layer}}"])
    (node / "layer").mkdir()
    script = ("env | sort; cat /etc/who /proc/mounts /proc/self/limits; id; umask; pwd; "
              "readlink /proc/self/fd/* | sed 's/[0-9]*//g'; "
              "grep -E 'Sig(Blk|Ign)|Cap|Groups|NoNew|Umask' /proc/self/status")
    argv = ["bash", "-c", CALLERS[caller], "bash", str(ground.command), f"--redpath={node}", "--",
            "sh", "-c", script]
    ground.settle()
    cold = ground.actor.run(argv)
    assert cold.returncode == 0 and ("core\n" in cold.stdout), cold.stderr
    assert ground.plan(node).exists()
    warm = ground.actor.run(argv)
    assert (warm.returncode, warm.stdout, warm.stderr) == (0, cold.stdout, cold.stderr)


def test_an_installation_adds_nothing_to_the_environment(ground: Ground, prefix: Path) -> None:
    """Not even the first time, when its main.yaml has to be found."""
    environ = {key: value for key, value in ground.actor.environ.items() if key != "redpak_MAIN"}
    installed = Ground(replace(ground.actor, environ=environ), ground.directory,
                       prefix / "bin/red-wrap")
    node = ground.node("core", environ=SHOW)
    ground.settle()
    cold = installed.output(node, "env")
    assert ground.plan(node).exists() and "redpak_MAIN" not in cold
    assert installed.output(node, "env") == cold


def test_changed_content_is_noticed(ground: Ground, node: Path) -> None:
    edit(node / "etc/redpack.yaml", "one", "two")
    assert shown(ground, node) == "two"


def test_changed_content_of_the_same_size_and_times_is_noticed(ground: Ground, node: Path) -> None:
    config = node / "etc/redpack.yaml"
    before = config.stat()
    edit(config, "one", "two")
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert config.stat().st_mtime_ns == before.st_mtime_ns
    assert not is_warm(ground, node)
    assert shown(ground, node) == "two"


def test_a_replacement_with_an_older_time_is_noticed(ground: Ground, node: Path) -> None:
    config = node / "etc/redpack.yaml"
    other = ground.write(node / "etc/new.yaml", config.read_text().replace("one", "two"))
    os.utime(other, (1, 1))
    other.rename(config)
    assert shown(ground, node) == "two"


def test_a_change_right_after_a_launch_is_noticed(ground: Ground, node: Path) -> None:
    """No time stamp granularity lets two states of a file look the same."""
    for value in ("two", "six", "ten", "two", "six", "ten"):
        edit(node / "etc/redpack.yaml", ground.output(
            node, "sh", "-c", "echo $SHOWN").strip(), value)
        assert ground.output(node, "sh", "-c", "echo $SHOWN").strip() == value


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_change_within_the_time_stamps_second_is_noticed(ground: Ground) -> None:
    """Some file systems of small devices (ext4 with small inodes, vfat, jffs2) have no parts of a
    second."""
    image, place = ground.directory / "image", ground.directory / "coarse"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(8 << 20)
    for command in (["/usr/sbin/mkfs.ext4", "-q", "-I", "128", image],
                    ["mount", "-o", "loop", image, place]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs mkfs.ext4 and a loop device: {done.stderr.strip()}")
    try:
        node = ground.node("coarse/core", environ=SHOW)
        config = node / "etc/redpack.yaml"
        time.sleep(1.1 - time.time() % 1)  # early in a second
        for value in ("two", "six"):
            edit(config, shown(ground, node), value)
            time.sleep(0.1)
            assert shown(ground, node) == value
        assert config.stat().st_mtime_ns % 10**9 == 0
        time.sleep(2.2)
        shown(ground, node)
        assert is_warm(ground, node)
    finally:
        subprocess.run(["umount", place], check=True)


def test_changes_of_the_status_are_noticed(ground: Ground, node: Path) -> None:
    edit(node / ".rednode.yaml", "Enable", "Disable")
    done = ground.run(node, "true")
    assert done.returncode == 125 and "has the state Disable" in done.stderr


def test_changes_of_main_yaml_and_another_one_are_noticed(ground: Ground, node: Path) -> None:
    other = ground.write(ground.directory / "other/main.yaml", ground.main.read_text())
    edit(other, "hostname: $LEAF_ALIAS", "hostname: elsewhere")
    assert ground.output(node, "hostname") == "core\n"
    assert ground.output(node, "hostname", options=[f"--rmain={other}"]) == "elsewhere\n"
    assert ground.output(node, "hostname", env={"redpak_MAIN": str(other)}) == "elsewhere\n"
    assert ground.output(node, "hostname") == "core\n"
    edit(ground.main, "hostname: $LEAF_ALIAS", "hostname: changed")
    assert ground.output(node, "hostname") == "changed\n"


def test_a_relative_path_is_looked_up_where_the_caller_is(ground: Ground, node: Path) -> None:
    """The plan of one directory is not for another."""
    for name in ("one", "two"):
        edit(ground.write(ground.directory / name / "main.yaml", ground.main.read_text()),
             "hostname: $LEAF_ALIAS", f"hostname: {name}")
        ground.script(ground.directory / name / "tool", f"echo {name}")
    ground.settle()
    for name in ("one", "one", "two"):
        for option, said in (("--rmain=main.yaml", name), ("--bwrap=./tool", name)):
            assert ground.output(node, "hostname", options=[option],
                                 cwd=ground.directory / name) == f"{said}\n"
        assert ground.output(node, "hostname", env={"redpak_MAIN": "main.yaml"},
                             cwd=ground.directory / name) == f"{name}\n"


def test_a_bubblewrap_where_the_caller_happens_to_be_is_not_run(
        ground: Ground, node: Path) -> None:
    ground.script(ground.directory / "bwrap", "echo somebody else\'s")
    for search in (".", "", "sub/.."):
        search = f"{search}:{ground.actor.environ['PATH']}"
        ground.settle()
        for _ in range(2):
            assert ground.output(node, "echo", "fine", env={"PATH": search},
                                 cwd=ground.directory) == "fine\n"


def test_changes_of_an_ancestor_are_noticed(ground: Ground, node: Path) -> None:
    child = ground.node("core/app")
    assert shown(ground, child) == "one"
    edit(node / "etc/redpack.yaml", "one", "two")
    assert shown(ground, child) == "two"


def test_a_new_node_between_is_noticed(ground: Ground) -> None:
    leaf = ground.node("pool/between/leaf", environ=SHOW)
    assert shown(ground, leaf) == "one"
    ground.node("pool/between", environ=["- {key: SHOWN, value: older}"])
    assert shown(ground, leaf) == "older"
    (ground.directory / "pool/between/.rednode.yaml").unlink()
    assert shown(ground, leaf) == "one"


def test_a_configuration_of_the_preferred_name_is_noticed(ground: Ground, node: Path) -> None:
    config = node / "etc/redpack.yaml"
    config.rename(node / "etc/redpak.yaml")
    assert shown(ground, node) == "one"
    ground.write(config, (node / "etc/redpak.yaml").read_text().replace("one", "two"))
    assert shown(ground, node) == "two"


def test_a_moved_node_is_noticed(ground: Ground, node: Path) -> None:
    moved = node.rename(node.with_name("moved"))
    done = ground.run(moved, "true")
    assert done.returncode == 125 and "was created at" in done.stderr
    assert ground.run(node, "true").returncode == 125


def test_a_link_to_another_node_is_noticed(ground: Ground, node: Path) -> None:
    other = ground.node("other", environ=["- {key: SHOWN, value: two}"])
    link = ground.directory / "link"
    link.symlink_to(node)
    assert shown(ground, link) == "one"
    link.unlink()
    link.symlink_to(other)
    assert shown(ground, link) == "two"


def test_changed_variables_of_the_template_are_noticed(ground: Ground) -> None:
    node = ground.node("core", environ=["- {key: SHOWN, value: '$ASKED-${NODE_PREFIX}'}"])
    assert shown(ground, node, ASKED="a") == "a-"
    assert shown(ground, node, ASKED="b") == "b-"
    assert shown(ground, node, ASKED="") == "-"
    assert shown(ground, node, ASKED="b", NODE_PREFIX="p") == "b-p"
    assert shown(ground, node) == "#undef:ASKED-"


def test_variables_that_nothing_asks_for_do_not_matter(ground: Ground, node: Path) -> None:
    assert is_warm(ground, node, UNRELATED="changed")


def test_inherited_variables_are_todays(ground: Ground) -> None:
    node = ground.node("core", config=["inherit-env: false"],
                       environ=["- {key: SHOWN, mode: Inherit}"])
    assert shown(ground, node, SHOWN="a") == "a"
    assert shown(ground, node, SHOWN="b") == "b"
    assert shown(ground, node) == ""


def test_commands_see_the_families_names_and_todays_environment(ground: Ground) -> None:
    """Whatever the environment was when the plan was made."""
    node = ground.node("core", environ=[
        "- {key: SHOWN, mode: Execfd, value: 'echo $USER $LEAF_ALIAS $PID $UUID $OTHER'}"])
    name, environ = ground.actor.name, {"USER": ground.actor.name, "LEAF_ALIAS": "core"}
    assert shown(ground, ground.node("other"), **environ) == ""
    ground.settle()
    seen = set()
    for extra in (environ, environ, {"USER": "x", "LEAF_ALIAS": "x", "PID": "x", "OTHER": "later"}):
        words = ground.output(node, "sh", "-c", "echo $SHOWN", env=extra).split()
        assert words[:2] == [name, "core"] and words[2].isdigit() and len(words[3]) == 36
        assert words[4:] == ([extra["OTHER"]] if "OTHER" in extra else [])
        seen.add(words[3])
    assert len(seen) == 3
    assert is_warm(ground, node)


@pytest.mark.parametrize("value", ["$HOME", "$UUID"])
def test_all_of_a_launch_has_one_uuid(ground: Ground, value: str) -> None:
    node = ground.node(
        "core", exports=["- {mode: Execfd, mount: /uuid, path: 'echo $UUID'}"],
        environ=["- {key: ONE, mode: Execfd, value: 'echo $UUID'}",
                 "- {key: TWO, mode: Execfd, value: 'sleep 0.1; echo $UUID'}",
                 f"- {{key: THREE, value: {value}}}"])
    ground.settle()
    seen = []
    for _ in range(3):
        words = ground.output(node, "sh", "-c", "cat /uuid; echo $ONE $TWO $THREE").split()
        assert words.pop() == words[0] or value == "$HOME"
        assert len(words) == 3 and len(set(words)) == 1 and len(words[0]) == 36
        seen.append(words[0])
    assert len(set(seen)) == 3
    assert ground.plan(node).exists() == (value == "$HOME")


def test_values_of_one_launch_are_never_kept(ground: Ground) -> None:
    node = ground.node("core", environ=["- {key: SHOWN, value: $UUID}"])
    ground.settle()
    seen = {ground.output(node, "sh", "-c", "echo $SHOWN") for _ in range(3)}
    assert len(seen) == 3 and not ground.plan(node).exists()


def test_an_age_that_is_reached_meanwhile_is_noticed(ground: Ground) -> None:
    node = ground.node("core", config=["maxage: 1"])
    almost_a_day_ago = int(time.time() * 1000) - 86_400_000 + 3000
    edit(node / ".rednode.yaml", "timestamp: 1", f"timestamp: {almost_a_day_ago}")
    ground.settle()
    ground.output(node, "true")
    assert is_warm(ground, node)
    time.sleep(4)
    assert "was last proven coherent" in ground.run(node, "true").stderr


def test_what_the_configuration_says_is_said_at_each_launch(ground: Ground) -> None:
    node = ground.node("core", config=["verbose: true"], environ=[
        "- {key: SHOWN, value: one, info: a remark, warn: a caution}"])
    ground.settle()
    said = [ground.run(node, "true").stderr for _ in range(2)]
    assert said[0] == said[1] and "a remark" in said[0] and "a caution" in said[0]
    assert is_warm(ground, node)


def test_another_bubblewrap_is_noticed(ground: Ground, node: Path) -> None:
    tool = ground.script(ground.directory / "tools/bwrap", 'SHOWN=other exec echo "other bwrap"')
    search = f"{tool.parent}:{ground.actor.environ['PATH']}"
    assert ground.output(node, "true") == ""
    assert ground.output(node, "true", options=[f"--bwrap={tool}"]) == "other bwrap\n"
    assert ground.output(node, "true", env={"PATH": search}) == "other bwrap\n"
    tool.rename(tool.with_name("hidden"))
    assert shown(ground, node, PATH=search) == "one"
    tool.with_name("hidden").rename(tool)
    assert ground.output(node, "true", env={"PATH": search}) == "other bwrap\n"


def test_a_replaced_bubblewrap_is_noticed(ground: Ground, node: Path) -> None:
    tool = ground.directory / "tools/bwrap"
    tool.parent.mkdir()
    shutil.copy(shutil.which("bwrap") or "", tool)
    options = [f"--bwrap={tool}"]
    ground.settle()
    ground.output(node, "true", options=options)
    tool.unlink()
    ground.script(tool, "echo replaced")
    assert not ground.plan(node).read_text().startswith("echo")
    assert ground.output(node, "true", options=options) == "replaced\n"


def test_another_user_makes_a_plan_of_his_own(ground: Ground, node: Path) -> None:
    if ground.actor.kind != "user" or os.geteuid() != 0:
        pytest.skip("needs a second user: run as root")
    home = ground.directory / "other-home"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    (node / "private").chmod(0o755)
    actor = replace(ground.actor, uid=12345, gid=12345).with_environ(HOME=str(home))
    other = Ground(actor, ground.directory, ground.command)
    before = ground.plan(node).read_bytes()
    assert other.output(node, "id", "-u") == "12345\n"
    assert ground.plan(node).read_bytes() == before
    assert (home / f".cache/redpak{node}/launch").exists()
    assert other.output(node, "id", "-u") == "12345\n"
    assert ground.output(node, "id", "-u") == f"{ground.actor.uid}\n"


def with_record(plan: str, record: str) -> str:
    """A plan with one record more, and so with another number at its end."""
    head, _, count = plan.replace("\nbwrap\t", f"\n{record}\nbwrap\t").rpartition("\t")
    return f"{head}\t{int(count) + 1}\n"


def test_a_plan_that_somebody_else_wrote_is_not_read(ground: Ground, node: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs a second user: run as root")
    plan = ground.plan(node)
    plan.write_text(with_record(plan.read_text(), "say\tstolen"))
    assert ground.run(node, "echo", "x").stderr == "red-wrap: stolen\n"
    os.chown(plan, 12345, 12345)
    assert ground.run(node, "echo", "x").stderr == ""


def test_a_plan_that_others_could_write_is_not_read(ground: Ground, node: Path) -> None:
    plan = ground.plan(node)
    stolen = with_record(plan.read_text(), "say\tstolen")
    for changed, mode in ((plan, 0o622), (plan.parent, 0o777)):
        plan.write_text(stolen)
        before = changed.stat().st_mode
        changed.chmod(mode)
        assert ground.run(node, "true").stderr == ""
        changed.chmod(before)
    aside = plan.with_name("aside")
    aside.write_text(stolen)
    plan.unlink()
    plan.symlink_to(aside)
    assert ground.run(node, "true").stderr == ""


def test_a_damaged_plan_is_not_used(ground: Ground, node: Path) -> None:
    plan = ground.plan(node)
    good = plan.read_text()
    half = good[:len(good) // 2]
    for text in ("", "#redpak-launch-plan 0\n", "rubbish", good[20:], half, half + "\nend\t10\n",
                 good[:-1], good.replace("\numask", "\n\0umask"), good + "words\t--nonsense\n",
                 with_record(good, "nonsense"), with_record(good, "variable"),
                 with_record(good, "variable\tX\t7\tx"), with_record(good, "variable\tX\t-7\tx"),
                 with_record(good, "say\t\\x"), "\0" * len(good)):
        plan.write_text(text)
        assert ground.output(node, "sh", "-c", "echo $SHOWN") == "one\n"


def test_an_installation_of_another_red_wrap_is_noticed(ground: Ground, node: Path) -> None:
    module = ground.command.parent.parent / "compiled.py"
    module.touch()
    assert not is_warm(ground, node)
    ground.settle()
    ground.output(node, "true")
    assert is_warm(ground, node)
    ground.command.touch()
    assert not is_warm(ground, node)
    ground.settle()  # other tests use the same red-wrap


def test_the_warm_path_starts_nothing_beside_bwrap(ground: Ground, node: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    done = ground.actor.run(["strace", "-f", "-e", "trace=execve", ground.command,
                             f"--redpath={node}", "/usr/bin/true"])
    started = [line.split('"')[1] for line in done.stderr.splitlines()
               if "execve(" in line and "= 0" in line]
    assert started == [str(ground.command), "/usr/bin/bwrap", "/usr/bin/true"]
