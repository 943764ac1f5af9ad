# SPDX-License-Identifier: Apache-2.0
"""The parts of red-wrap that need no namespace."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
import yaml

from redpak.findings import Origin
from redwrap.cgroups import PROCESSES, enter_control_groups
from redwrap.cli import OPTIONS, help_text, parse_arguments
from redwrap.errors import LaunchError
from redwrap.operations import Bind, ControlGroups, FileSystem, Mount
from redwrap.seccomp import default_filter, load_profile
from redwrap.sources import check_own_files, links_to_check

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ORIGIN = Origin("/n/etc/redpack.yaml", 3, 5, "core")


def bind(mount: str, source: str, *, writable: bool = False, base: str = "") -> Bind:
    return Bind(ORIGIN, mount, source, writable, base=base)


def test_options_end_where_the_command_begins() -> None:
    options = parse_arguments(["--redpath=/n", "--force", "ls", "--force", "--", "-x"])
    assert options.text("redpath") == "/n" and options.has("force")
    assert options.command == ("ls", "--force", "--", "-x")


def test_two_dashes_end_the_options() -> None:
    assert parse_arguments(["--rp", "/n", "--", "--version"]).command == ("--version",)
    assert parse_arguments(["--rp=/n", "--", "--", "x"]).command == ("--", "x")


@pytest.mark.parametrize(("words", "message"), [
    (["--nonsense"], "unknown option --nonsense; see red-wrap --help"),
    (["--force=yes"], "the option --force takes no value; write --force"),
    (["--redpath"], "the option --redpath needs a value; write --redpath=DIR"),
])
def test_a_wrong_option_is_explained(words: list[str], message: str) -> None:
    with pytest.raises(LaunchError, match="^" + message.replace("$", r"\$") + "$"):
        parse_arguments(words)


def test_help_names_every_option() -> None:
    text = help_text()
    assert all(option.names[0] in text for option in OPTIONS if option.help)
    assert "--warm" not in text


def test_links_are_looked_for_below_the_node_only() -> None:
    mounts: list[Mount] = [
        bind("/data", "/n/var/a/b", base="/n"),
        bind("/nodes/core/var", "/n/var", writable=True, base="/n"),
        FileSystem(ORIGIN, "/nodes/core/var/tmp/x", "--tmpfs"),
        bind("/usr/bin", "/usr/bin")]
    assert links_to_check(mounts) == [
        "/n/var", "/n/var/a", "/n/var/a/b", "/n/var/tmp", "/n/var/tmp/x"]


def test_redpaks_own_files_are_refused_by_their_text() -> None:
    check_own_files([bind("/x", "/n/etc", base="/n")], ["/n"])
    for mount in (bind("/x", "/n/etc", writable=True, base="/n"),
                  bind("/x", "/n/.redpak/lock", base="/n"),
                  FileSystem(ORIGIN, "/n/.rednode.yaml", "--tmpfs")):
        with pytest.raises(LaunchError, match=r"^/n/etc/redpack.yaml:3: mount .*\(node core\)"):
            check_own_files([mount], ["/n"])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_the_default_filter_never_jumps_out_of_itself(machine: str) -> None:
    program = [struct.unpack_from("HBBI", default_filter(machine), at)
               for at in range(0, len(default_filter(machine)), 8)]
    for at, (code, yes, no, _) in enumerate(program):
        if code & 7 == 5:  # a jump
            assert at + 1 + max(yes, no) < len(program)
    assert program[-1] == (6, 0, 0, 0x7FFF0000)


def test_a_file_that_is_no_filter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("abc")
    with pytest.raises(LaunchError, match=r"is no compiled filter: it has 3 bytes"):
        load_profile(str(tmp_path / "text"), ORIGIN)
    with pytest.raises(LaunchError, match=r"redpack.yaml:3: config.seccomp: .*No such file"):
        load_profile(str(tmp_path / "missing"), ORIGIN)


def fake_tree(directory: Path, controllers: str) -> Path:
    """A recorded cgroup v2 tree of two nodes: the kernel makes the files that mkdir does not."""
    for path in ("", "core", "core/app", f"core/app/{PROCESSES}"):
        (directory / path).mkdir(parents=True, exist_ok=True)
        for name in ("cgroup.subtree_control", "cgroup.procs", "memory.max", "pids.max"):
            (directory / path / name).write_text("")
        (directory / path / "cgroup.controllers").write_text(controllers)
    return directory


def groups(root: Path) -> ControlGroups:
    return ControlGroups(ORIGIN, str(root), (
        ("core", (("memory.max", "512M"),)), ("app", (("pids.max", "20"),))))


def test_each_node_has_a_group_and_processes_are_in_a_leaf(tmp_path: Path) -> None:
    """On a recorded tree: the machine that runs the tests may have no cgroup v2 controllers."""
    root = fake_tree(tmp_path, "cpu memory pids\n")
    enter_control_groups(groups(root))
    assert (root / "core/memory.max").read_text() == "512M"
    assert (root / "core/app/pids.max").read_text() == "20"
    assert (root / f"core/app/{PROCESSES}/cgroup.procs").read_text() == str(os.getpid())
    assert (root / "core/cgroup.procs").read_text() == ""
    assert "+" in (root / "cgroup.subtree_control").read_text()


def test_a_missing_controller_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchError) as caught:
        enter_control_groups(groups(fake_tree(tmp_path, "cpu pids\n")))
    assert str(caught.value).startswith(
        f"/n/etc/redpack.yaml:3: control group: {tmp_path} has no controller memory (it has: cpu, "
        "pids) (node core); enable it in the cgroup.subtree_control of the group above")


def test_a_place_without_control_groups_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"cannot read .*/cgroup.controllers: No such file"):
        enter_control_groups(groups(tmp_path / "nowhere"))


HEAVY = frozenset(
    "typing dataclasses inspect argparse json logging subprocess tempfile shutil hashlib ctypes "
    "random pathlib socket threading redwrap.linker redwrap.layers redwrap.refusals "
    "redwrap.seccomp redwrap.explain".split())


def test_a_cold_launch_loads_no_heavy_module() -> None:
    """Each costs milliseconds; only launches that need them have them."""
    site = Path(yaml.__file__).parent.parent
    script = (f"import sys; sys.path += [{str(CHECKOUT)!r}, {str(site)!r}]; import redwrap.cli, "
              "redwrap.launch; print(*sys.modules)")
    loaded = subprocess.run(["/usr/bin/python3", "-IS", "-c", script], capture_output=True,
                            text=True, check=True).stdout.split()
    assert "redwrap.launch" in loaded
    assert not HEAVY & set(loaded)
