# SPDX-License-Identifier: Apache-2.0
"""red-conf as a user runs it: its output, messages and exit status."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from redpak import VERSION
from redpak.expand import Caller
from redpak.family import load_family, load_main
from redpak.load import load_text
from redpak.merge import merge_family
from redpak.node import read_node
from redpak.plain import config_data
from redpak.yamltree import parse_tree

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "conf/main.yaml"


def red_conf(*arguments: object, cwd: Path | None = None,
             **environ: str) -> subprocess.CompletedProcess[str]:
    """Run red-conf with the shipped main.yaml."""
    return subprocess.run(
        [sys.executable, "-m", "redpak.cli", *map(str, arguments)], cwd=cwd, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "redpak_MAIN": str(MAIN),
             "LC_ALL": "C.UTF-8", **environ}, capture_output=True, text=True)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """core, with demo below."""
    for name, alias in (("core", "agl-core"), ("core/demo", "agl-demo")):
        done = red_conf("create", f"--redpath={tmp_path / name}", f"--alias={alias}")
        assert (done.returncode, done.stdout, done.stderr) == (
            0, f"created node {alias} at {tmp_path / name}\n", "")
    return tmp_path


def add_config(node: Path, text: str) -> None:
    file = node / "etc/redpack.yaml"
    file.write_text(file.read_text().replace("config:\n", f"config:\n{text}", 1))


def test_the_version_is_that_of_the_packages() -> None:
    setup, spec = ((ROOT / name).read_text() for name in ("setup.cfg", "redpak.spec"))
    done = red_conf("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"red-conf {VERSION}\n", "")
    assert f"\nversion = {VERSION}\n" in setup
    assert re.search(rf"\nVersion: +{re.escape(VERSION)}\n", spec)


def test_create_needs_an_alias_and_a_redpath(tmp_path: Path) -> None:
    done = red_conf("create", f"--redpath={tmp_path}/a")
    assert (done.returncode, done.stderr) == (
        1, "red-conf: error: a node needs an alias; say --alias=NAME\n")
    done = red_conf("create", "--alias=a")
    assert (done.returncode, done.stderr) == (
        1, "red-conf: error: no node given; say which with --redpath=DIR or REDPATH\n")


def test_wrong_usage_has_the_status_two() -> None:
    assert red_conf("mergeconf").returncode == 2
    assert red_conf().returncode == 2
    assert red_conf("tree", "--json", "--yaml").returncode == 2


def test_create_with_each_template_and_flavour(tmp_path: Path) -> None:
    for name in ("default", "root", "full", "leaf"):
        done = red_conf("create", f"--rp={tmp_path / name}", f"--alias={name}", "--json",
                        f"--template={name}", f"--template-admin={name}", "--info=an info")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["path"] == str(tmp_path / name)
        node = read_node(str(tmp_path / name), admin=True)
        assert node.admin is not None
        assert node.config.headers.info == "an info"
        check = red_conf("validate", "--admin", tmp_path / name)
        assert (check.returncode, check.stdout) == (0, "")


def test_a_template_given_by_path_may_be_any_file(tmp_path: Path) -> None:
    template = tmp_path / "mine.yaml"
    template.write_text("# mine\nheaders:\n  info: of $USER\n# kept\nenviron:\n"
                        "  - {key: A, value: $B}\n")
    assert red_conf("create", f"--rp={tmp_path}/a", "--alias=a",
                    f"--template={template}").returncode == 0
    text = (tmp_path / "a/etc/redpack.yaml").read_text()
    assert "# mine\n" in text and "{key: A, value: $B}" in text
    assert text.count("headers:") == 1
    assert "$USER" not in read_node(f"{tmp_path}/a").config.headers.info


def test_a_faulty_template_leaves_nothing(tmp_path: Path) -> None:
    template = tmp_path / "mine.yaml"
    template.write_text("headers: {alias: x}\n")
    done = red_conf("create", f"--rp={tmp_path}/a", "--alias=a", f"--template={template}")
    assert (done.returncode, done.stderr) == (1, (
        f'red-conf: error: {template}:1:11: headers: unknown key "alias"; known keys: info\n'))
    assert not (tmp_path / "a").exists()


def test_update_writes_another_template_and_keeps_the_headers(pool: Path) -> None:
    before = read_node(str(pool / "core"))
    done = red_conf("create", "--update", f"--rp={pool}/core", "--template=leaf")
    assert (done.returncode, done.stdout) == (0, f"updated node agl-core at {pool}/core\n")
    after = read_node(str(pool / "core"))
    assert after.config.headers == before.config.headers
    assert {export.mode.value for export in after.config.exports} == {
        "Private", "PrivateRestricted"}


def test_update_changes_the_alias_and_keeps_the_rest(pool: Path) -> None:
    add_config(pool / "core", "  # a comment\n  maxage: 7\n")
    assert red_conf("create", "--update", f"--rp={pool}/core", "--alias=new").returncode == 0
    node = read_node(str(pool / "core"))
    assert (node.alias, node.config.tags.maxage) == ("new", 7)
    assert "# a comment" in (pool / "core/etc/redpack.yaml").read_text()
    done = red_conf("create", "--update", f"--rp={pool}/core", "--alias=agl-demo")
    assert "the alias agl-demo belongs to both" in done.stderr
    assert read_node(str(pool / "core")).alias == "new"


def test_create_without_permission_says_so(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o555)
    done = red_conf("create", f"--rp={tmp_path}/a", "--alias=a")
    assert done.stderr == (f"red-conf: error: cannot write {tmp_path}/a: Permission denied; check "
                           "the owner and permissions of the directory\n")


def test_tree_draws_states_and_package_counts(pool: Path) -> None:
    red_conf("create", f"--rp={pool}/core/other", "--alias=other")
    red_conf("create", f"--rp={pool}/core/demo/leaf", "--alias=leaf")
    database = sqlite3.connect(pool / "core/var/lib/rpm/rpmdb.sqlite")
    database.execute("create table Name (key text, hnum integer, idx integer)")
    database.executemany("insert into Name values (?, ?, 0)",
                         [("bash", 1), ("glibc", 2), ("gpg-pubkey", 3)])
    database.commit()
    database.close()
    expected = (f"agl-core  Enable  2 packages  {pool}/core\n"
                "├── agl-demo  Enable  0 packages  demo\n"
                "│   └── leaf  Enable  0 packages  leaf\n"
                "└── other  Enable  0 packages  other\n")
    assert red_conf("tree", f"--rp={pool}/core/demo").stdout == expected
    assert red_conf("tree", f"--redroot={pool}").stdout == expected
    entries = json.loads(red_conf("tree", "--json", f"--redroot={pool}").stdout)
    assert [(entry["alias"], entry["packages"]) for entry in entries] == [
        ("agl-core", 2), ("agl-demo", 0), ("leaf", 0), ("other", 0)]
    assert entries[2]["parent"] == f"{pool}/core/demo"
    assert "rpmdb.sqlite-wal" not in os.listdir(pool / "core/var/lib/rpm")


def test_tree_shows_a_broken_node_instead_of_failing(pool: Path) -> None:
    (pool / "core/demo/etc/redpack.yaml").write_text("headers: {}\n")
    done = red_conf("tree", f"--redroot={pool}")
    assert done.returncode == 0
    assert re.search(r"└── demo  Error  \? packages  demo  \(.*redpack\.yaml:1:10: headers: the "
                     r'key "alias" is missing', done.stdout)


def test_tree_is_coloured_on_a_terminal_only(pool: Path) -> None:
    import pty
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-m", "redpak.cli", "tree", f"--redroot={pool}"],
                   env={"PYTHONPATH": str(ROOT), "redpak_MAIN": str(MAIN),
                        "LC_ALL": "C.UTF-8"}, stdout=slave, check=True)
    os.close(slave)
    assert b"\x1b[32mEnable\x1b[0m" in os.read(master, 10_000)
    os.close(master)
    assert "\x1b" not in red_conf("tree", f"--redroot={pool}").stdout


@pytest.mark.parametrize("form", ["--yaml", "--json", None])
def test_config_prints_what_loads_as_the_same(pool: Path, form: str | None) -> None:
    red_conf("create", "--update", f"--rp={pool}/core", "--template=full")
    done = red_conf("config", f"--rp={pool}/core", *([form] if form else []))
    again = load_text(done.stdout.encode(), "again.yaml")
    assert config_data(again) == config_data(read_node(str(pool / "core")).config)


@pytest.mark.parametrize("form", [["--yaml"], ["--json"], ["--expand"], ["--expand", "--json"],
                                  []])
def test_mergeconfig_loads_as_a_single_node_that_means_the_same(pool: Path,
                                                                form: list[str]) -> None:
    add_config(pool / "core", "  share_net: disabled\n  maxage: 30\n  cgroups: {mem: {max: 1G}}\n")
    add_config(pool / "core/demo", "  umask: 077\n  capabilities: [{cap: all, add: false}]\n")
    done = red_conf("mergeconfig", f"--rp={pool}/core/demo", *form)
    assert (done.returncode, done.stderr) == (0, "")
    main = load_main(str(MAIN), {})
    family = load_family(str(pool / "core/demo"), main=main)
    caller = Caller.current()
    first = merge_family(family, environ={}, caller=caller)
    # The same leaf, now alone with the merged configuration.
    (pool / "core/.rednode.yaml").unlink()
    (pool / "core/demo/etc/redpack.yaml").write_text(done.stdout)
    second = merge_family(load_family(str(pool / "core/demo"), main=main), environ={},
                          caller=caller)
    assert second.tags == first.tags
    for attribute in ("mode", "mount", "path", "optional"):
        assert [getattr(export, attribute) for export in second.exports] == [
            getattr(export, attribute) for export in first.exports]
    assert [(one.key, one.value, one.mode) for one in second.environ] == [
        (one.key, one.value, one.mode) for one in first.environ]
    assert [(one.cap, one.action) for one in second.capabilities] == [
        (one.cap, one.action) for one in first.capabilities]


def test_mergeconfig_says_where_each_value_came_from(pool: Path) -> None:
    add_config(pool / "core", "  umask: 027\n")
    add_config(pool / "core/demo", "  umask: 077\n  share_net: enabled\n")
    core, demo = (f"{pool}/{name}/etc/redpack.yaml" for name in ("core", "core/demo"))
    lines = red_conf("mergeconfig", f"--rp={pool}/core/demo").stdout
    assert (f"  umask: \"027\"  # agl-core, {core}:11; not '077' of {demo}:11 (agl-core wins); "
            f"not '022' of {MAIN}:16 (agl-core wins over the default of redmain)\n") in lines
    assert f"    - /nodes/agl-demo/usr/bin  # agl-demo, {demo}:14\n" in lines
    assert "  hostname: $LEAF_ALIAS  # redmain, " in lines
    assert f"  # agl-core, {core}:" in lines
    expanded = red_conf("mergeconfig", "--expand", f"--rp={pool}/core/demo").stdout
    assert "  hostname: agl-demo  # redmain, " in expanded


def test_mergeconfig_gives_the_provenance_to_programs_too(pool: Path) -> None:
    add_config(pool / "core", "  umask: 027\n")
    done = red_conf("mergeconfig", "--json", "--provenance", f"--rp={pool}/core/demo")
    provenance = json.loads(done.stdout)["provenance"]
    assert provenance["config"]["umask"]["from"] == [
        {"file": f"{pool}/core/etc/redpack.yaml", "line": 11, "node": "agl-core"}]
    assert provenance["config"]["umask"]["overrode"][0]["value"] == "022"
    assert {lost["value"] for lost in provenance["dropped"]} == {
        "Private /nodes/_private", "PrivateRestricted /var/lib/rpm"}


def test_an_attempt_to_loosen_is_a_warning_and_strictly_an_error(pool: Path) -> None:
    add_config(pool / "core", "  gpgcheck: true\n")
    add_config(pool / "core/demo", "  gpgcheck: false\n")
    text = (f"{pool}/core/demo/etc/redpack.yaml:11:3: config.gpgcheck: agl-demo cannot loosen "
            f"true, which agl-core sets ({pool}/core/etc/redpack.yaml:11), to false; remove it\n")
    done = red_conf("mergeconfig", f"--rp={pool}/core/demo")
    assert (done.returncode, done.stderr) == (0, f"red-conf: warning: {text}")
    done = red_conf("mergeconfig", "--strict", f"--rp={pool}/core/demo")
    assert (done.returncode, done.stderr) == (1, f"red-conf: error: {text}")
    done = red_conf("validate", f"{pool}/core/demo")
    assert (done.returncode, done.stdout) == (0, f"warning: {text}")
    assert red_conf("validate", "--strict", f"{pool}/core/demo").returncode == 1


def test_diff_shows_what_differs(pool: Path) -> None:
    add_config(pool / "core/demo", "  umask: 077\n")
    done = red_conf("diff", f"{pool}/core", f"{pool}/core/demo")
    assert done.returncode == 0
    assert "- headers.alias: agl-core\n+ headers.alias: agl-demo\n" in done.stdout
    assert '- config.umask: "022"\n+ config.umask: "077"\n' in done.stdout
    assert f"+ exports /nodes/agl-demo/usr: mode=Restricted path={pool}/core/demo/usr" in (
        done.stdout)
    assert "chdir" not in done.stdout
    found = json.loads(red_conf("diff", "--json", f"{pool}/core", f"{pool}/core/demo").stdout)
    assert {"key": "config.umask", "first": '"022"', "second": '"077"'} in found
    assert red_conf("diff", f"{pool}/core", f"{pool}/core").stdout == ""


def test_validate_reports_every_finding_of_every_path(pool: Path) -> None:
    bad = pool / "bad.yaml"
    bad.write_text("headers: {alias: a}\nconfig:\n  umaks: 1\nexports:\n  - {mode: Publik}\n")
    (pool / "main.yaml").write_text("enforce: {gpgcheck: 2}\n")
    done = red_conf("validate", bad, pool / "main.yaml", pool / "none.yaml", pool / "core")
    assert done.returncode == 1
    assert done.stdout == (
        f'error: {bad}:3:3: config: unknown key "umaks"; did you mean "umask"?\n'
        f'error: {bad}:5:5: exports: the key "mount" is missing; add mount: with a path\n'
        f'error: {bad}:5:12: exports.mode: "Publik" is not an export mode; did you mean '
        '"Public"?\n'
        f'error: {pool}/main.yaml:1:21: enforce.gpgcheck: "2" is not true or false; write true '
        'or false\n'
        f"error: cannot read {pool}/none.yaml: No such file or directory\n")
    found = json.loads(red_conf("validate", "--json", bad).stdout)
    assert [(entry["line"], entry["key"], entry["severity"]) for entry in found] == [
        (3, "config", "error"), (5, "exports", "error"), (5, "exports.mode", "error")]


def test_validate_passes_what_we_ship() -> None:
    files = sorted(ROOT.glob("conf/*.yaml")) + sorted(ROOT.glob("conf/templates.d/*.yaml"))
    done = red_conf("validate", *files)
    assert (done.returncode, done.stdout) == (0, "")


def test_schema_prints_the_published_one() -> None:
    assert red_conf("schema").stdout == (ROOT / "conf/redpak.schema.json").read_text()
    assert yaml.safe_load(red_conf("schema", "--yaml").stdout) == json.loads(
        red_conf("schema", "--json").stdout)


@pytest.mark.parametrize("command", [
    ["tree"], ["config"], ["mergeconfig", "--provenance"], ["validate", "."], ["schema"],
    ["diff", ".", "demo"]])
def test_yaml_and_json_of_every_command_say_the_same_and_load(pool: Path,
                                                              command: list[str]) -> None:
    arguments = [*command, f"--rp={pool}/core"]
    as_json = red_conf(*arguments, "--json", cwd=pool / "core")
    as_yaml = red_conf(*arguments, "--yaml", cwd=pool / "core")
    assert (as_json.returncode, as_json.stderr) == (0, "")
    assert yaml.safe_load(as_yaml.stdout) == json.loads(as_json.stdout)
    if command != ["schema"]:
        for text in (as_json.stdout, as_yaml.stdout):
            parse_tree(text.encode(), "output")


def test_an_error_has_no_traceback_and_one_line_for_each_fault(pool: Path) -> None:
    (pool / "core/etc/redpack.yaml").write_text("headers: {alias: a/b}\nconfig: {a: b}\n")
    done = red_conf("mergeconfig", f"--rp={pool}/core/demo")
    assert done.returncode == 1
    assert [line[:17] for line in done.stderr.splitlines()] == ["red-conf: error: "] * 2


def test_a_reader_that_stops_reading_gets_no_traceback(pool: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "redpak.cli", "mergeconfig", f"--rp={pool}/core"], check=False,
        env={"PYTHONPATH": str(ROOT), "redpak_MAIN": str(MAIN)}, stdout=write_end,
        stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("text", [
    "---\nheaders: {info: x}\nCONFIG\n", "%YAML 1.1\n# kept\n--- # lost\nCONFIG",
    "\ufeffCONFIG\nheaders: {info: x}", "# a\r# b\rheaders: {info: x}\rCONFIG\r",
    "# \u2028\nheaders:\n  info: x\nCONFIG", "---\n",
    "# \x85headers: {info: x}\nCONFIG\n...\n"])
def test_a_template_may_start_and_break_its_lines_as_yaml_allows(tmp_path: Path, text: str) -> None:
    template = tmp_path / "t.yaml"
    template.write_bytes(text.replace("CONFIG", "config: {umask: 027}").encode())
    done = red_conf("create", f"--redpath={tmp_path}/n", "--alias=n", f"--template={template}")
    assert (done.returncode, done.stderr) == (0, "")
    node = read_node(f"{tmp_path}/n")
    assert node.config.tags.umask == (0o027 if "CONFIG" in text else None)
    file = tmp_path / "n/etc/redpack.yaml"
    assert ("# kept" in file.read_text()) == ("# kept" in text)
    file.write_text(f"---\n{file.read_text()}")
    done = red_conf("create", f"--redpath={tmp_path}/n", "--update", "--info=new")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_node(f"{tmp_path}/n").config.headers.info == "new"


@pytest.mark.parametrize("text", ["{config: {umask: 027}}", "  config: {umask: 027}"])
def test_a_template_that_headers_cannot_be_put_before_is_refused(tmp_path: Path,
                                                                 text: str) -> None:
    template = tmp_path / "t.yaml"
    template.write_text(text)
    done = red_conf("create", f"--redpath={tmp_path}/n", "--alias=n", f"--template={template}")
    assert done.returncode == 1 and f"error: {template}:1:" in done.stderr
    assert "write its sections as lines that no space starts" in done.stderr


def test_hostile_names_and_texts_reach_no_terminal_as_they_are(pool: Path) -> None:
    core = pool / "core"
    for name in (b"a\x1b[31mb\nc", b"\xff"):
        place = os.path.join(os.fsencode(core), name)
        os.makedirs(place)
        Path(os.fsdecode(place), ".rednode.yaml").write_text("state: foo\n")
    file = core / "etc/redpack.yaml"
    file.write_text(re.sub("info: .*", r'info: "d\\e[31me\\nf"', file.read_text(), count=1)
                    + '\nenviron: [{key: E, value: "$MISSING \\e[31m\\x9b"}]\n')
    assert "\\e[31m" in file.read_text()
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    done = red_conf("tree", "-v", f"--redroot={pool}", **strict)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"─ a\x1b[31mb\nc  Error" in done.stdout
    assert r"─ \udcff  Error" in done.stdout
    assert r"d\x1b[31me\nf" in done.stdout
    nodes = json.loads(red_conf("tree", "--json", f"--redroot={pool}", **strict).stdout)
    assert [os.fsencode(node["path"]) for node in nodes][-1] == os.fsencode(core) + b"/\xff"
    for command in (["tree", "-v", f"--redroot={pool}"], ["mergeconfig", f"--redpath={core}"],
                    ["validate", core], ["diff", core, core / "demo"]):
        done = red_conf(*command, **strict)
        shown = done.stdout + done.stderr
        assert shown and all(line.isprintable() for line in shown.split("\n")), shown
    file = core / ".rednode.yaml"
    file.write_text(file.read_text().replace("Enable", "Disable").replace(
        'info: ""', r'info: "\e[31m\nlast"'))
    done = red_conf("create", f"--redpath={core}/new", "--alias=new")
    assert r"has the state Disable (\x1b[31m\nlast); set it" in done.stderr
