# SPDX-License-Identifier: Apache-2.0
"""The tables of the schema, and what is derived from them: JSON Schema and reference page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from redpak.kinds import CAPABILITIES
from redpak.load import FileKind, load_config, load_text
from redpak.reference import json_schema, replace_generated, schema_text
from redpak.schema import TAGS, EnvironMode, ExportMode, Rule, Tags
from redpak.show import kind_of_file

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(ROOT.glob("conf/*.yaml")) + sorted(ROOT.glob("conf/templates.d/*.yaml"))

DESIGN_TAGS = set("""
    rpmdir persistdir cachedir path ldpath umask hostname chdir verbose maxage inherit gpgcheck
    unsafe inherit-env map-root-user die-with-parent new-session set-user set-group smack seccomp
    share_all share_user share_cgroup share_net share_pid share_ipc share_time cgrouproot
    cgroups.cpuset.cpus cgroups.cpuset.mems cgroups.cpuset.cpus_partition
    cgroups.mem.max cgroups.mem.high cgroups.mem.min cgroups.mem.low cgroups.mem.oom_group
    cgroups.mem.swap_high cgroups.mem.swap_max cgroups.cpu.weight cgroups.cpu.weight_nice
    cgroups.cpu.max cgroups.io.cost_qos cgroups.io.cost_model cgroups.io.weight cgroups.io.max
    cgroups.pids.max derived-files""".split())


def test_the_published_schema_is_current() -> None:
    assert (ROOT / "conf/redpak.schema.json").read_text(encoding="utf-8") == schema_text(), (
        "run python3 -m redpak.reference")


def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == replace_generated(page), "run python3 -m redpak.reference"


def test_every_tag_of_the_design_is_declared_once() -> None:
    keys = [tag.key for tag in TAGS]
    assert len(keys) == len(set(keys))
    assert set(keys) == DESIGN_TAGS


def test_every_constraint_says_what_tighter_means_and_nothing_else_does() -> None:
    assert all((tag.tighten is not None) == (tag.rule is Rule.TIGHTEN) for tag in TAGS)


def test_nothing_is_set_in_tags_that_nobody_set() -> None:
    tags = Tags()
    assert all(getattr(tags, tag.attribute) in (None, ()) for tag in TAGS)


def test_the_schema_knows_every_key_and_mode() -> None:
    text = json.dumps(json_schema())
    for tag in TAGS:
        assert f'"{tag.key.rpartition(".")[2]}"' in text
    for mode in (*ExportMode, *EnvironMode):
        assert f'"{mode.value}"' in text


def test_capabilities_are_those_of_the_kernel() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    assert len(CAPABILITIES) == len(set(CAPABILITIES)) == 41
    assert last >= 40 and CAPABILITIES[40] == "CAP_CHECKPOINT_RESTORE"
    assert CAPABILITIES[12] == "CAP_NET_ADMIN" and CAPABILITIES[21] == "CAP_SYS_ADMIN"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_the_shipped_files_load(file: Path) -> None:
    assert load_config(str(file), kind=kind_of_file(str(file))).exports


def test_the_shipped_files_pass_the_json_schema() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    for file in SHIPPED:
        jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), json_schema())


@pytest.mark.parametrize("name", ["default", "root", "full", "leaf"])
def test_each_template_has_both_flavours(name: str) -> None:
    for flavour in (name, f"{name}-admin"):
        file = ROOT / f"conf/templates.d/{flavour}.yaml"
        assert load_config(str(file), kind=FileKind.TEMPLATE).exports


def test_an_admin_template_is_a_valid_admin_file() -> None:
    for file in (ROOT / "conf/templates.d").glob("*-admin.yaml"):
        load_text(file.read_bytes(), str(file), kind=FileKind.ADMIN, node="a")


ALL_TAGS = """
config:
  RPMDIR: var/lib/rpm
  Persistdir: var/lib/dnf
  cachedir: var/cache/dnf
  path: [/a, /b]
  ldpath: /c
  derived-files: ["/x/**"]
  umask: 027
  hostname: 0x10
  chdir: /
  verbose: yes
  maxage: 30
  inherit: false
  gpgcheck: TRUE
  unsafe: off
  inherit-env: 0
  map-root-user: 1
  die-with-parent: Enabled
  new-session: disabled
  set-user: 1000
  set-group: users
  smack: System
  seccomp: default
  share_all: Disabled
  share_user: ENABLED
  share_cgroup: unset
  share_net: /proc/1/ns/net
  share_pid: disabled
  share_ipc: enabled
  share_time: $HOME/ns
  cgrouproot: /sys/fs/cgroup/x
  cgroups:
    cpuset: {cpus: "0-1,4", mems: 0, cpus_partition: Root}
    mem: {max: 1G, high: 512m, min: 0, low: 4096, oom_group: true, swap_high: max, swap_max: 0}
    cpu: {weight: 100, weight_nice: -5, max: 50000 100000}
    io:
      cost_qos: ["8:0 enable=1"]
      cost_model: ["8:0 ctrl=auto"]
      weight: default 50
      max: ["8:0 rbps=2097152 wiops=max"]
    pids: {max: 64}
  capabilities:
    - {cap: ALL, add: false, info: none}
    - {cap: cap_kill, add: true, warn: careful}
"""


def test_every_tag_can_be_written_and_is_what_was_written() -> None:
    config = load_text(b"headers: {alias: a}\n" + ALL_TAGS.encode(), "a.yaml")
    tags = config.tags
    unset = {tag.key for tag in TAGS if getattr(tags, tag.attribute) in (None, ())}
    assert unset == {"share_cgroup"}
    assert (tags.umask, tags.hostname, tags.verbose, tags.maxage) == (0o027, "0x10", True, 30)
    assert (tags.inherit, tags.unsafe, tags.inherit_env, tags.map_root_user) == (
        False, False, False, True)
    assert (tags.ldpath, tags.set_user, tags.mem_max, tags.pids_max) == (
        ("/c",), "1000", "1g", "64")
    assert str(tags.share_net) == "/proc/1/ns/net"
    assert [(one.cap, one.action.value, one.info, one.warn)
            for one in config.settings.capabilities] == [
        ("all", "drop", "none", ""), ("CAP_KILL", "add", "", "careful")]
    assert config.settings.origins["umask"][0].line == 10
    assert [origin.line for origin in config.settings.origins["path"]] == [7, 7]
