# SPDX-License-Identifier: Apache-2.0
"""dnf red-check and red-check: what is proven, what is found, and how it is told."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest

from support.actors import Actor, describe
from support.nodes import TestNode, make_node
from support.rpms import RpmFile, build_rpm, create_repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, session_pool: Path) -> Path:
    directory = session_pool / "check-repository"
    build_rpm(directory, "base", files={"/usr/bin/base": RpmFile("base\n", 0o755),
                                        "/etc/base.conf": RpmFile("a=1\n", directive="%config")})
    build_rpm(directory, "app", requires=["base"], files={"/usr/share/app/data": "data\n"})
    build_rpm(directory, "accounts", files={"/etc/passwd": RpmFile(
        "root:x:0:0::/:/bin/sh\n", directive="%config")})
    build_rpm(directory, "lone", files={"/usr/share/lone/data": "data\n"})
    return create_repository(directory)


@pytest.fixture
def parent(actor: Actor, pool: Path, repository: Path) -> TestNode:
    node = make_node(actor, pool / "parent", "parent", repository)
    node.install("base")
    return node


@pytest.fixture
def child(actor: Actor, parent: TestNode, repository: Path) -> Iterator[TestNode]:
    node = make_node(actor, parent.path / "child", "child", repository)
    node.install("app", "lone")
    yield node


def check(node: TestNode, *words: str, status: int) -> str:
    done = node.try_dnf("red-check", *words)
    assert done.returncode == status, describe(done)
    assert "Traceback" not in done.stderr, describe(done)
    return done.stdout


def findings(node: TestNode, *words: str, status: int = 1) -> list[tuple[str, str]]:
    """Rule and alias of each finding."""
    report = json.loads(check(node, "--json", *words, status=status))
    return [(finding["rule"], finding["alias"]) for finding in report["findings"]]


def start_waiting(node: TestNode) -> tuple[subprocess.Popen[str], int]:
    """A check that waits for the node, and the descriptor that holds the lock until it is closed.
    """
    held = os.open(node.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    process = node.actor.popen(["red-check", f"--redpath={node.path}"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Waiting for another command on node ")
    return process, held


def timestamp(node: TestNode) -> int:
    lines = (node.path / ".rednode.yaml").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("timestamp:"))


def test_a_fresh_tree_is_proven_and_stamped(parent: TestNode, child: TestNode) -> None:
    before = timestamp(parent), timestamp(child)
    assert check(child, status=0) == "Proven: 1 node, 2 packages\n"
    assert timestamp(parent) == before[0]
    assert timestamp(child) > before[1]
    assert check(child, "--family", status=0) == "Proven: 2 nodes, 3 packages\n"
    assert timestamp(parent) > before[0]
    stamped = timestamp(child)
    assert check(parent, status=0) == "Proven: 1 node, 1 package\n"
    assert check(parent, "--tree", "--no-stamp", status=0) == "Proven: 2 nodes, 3 packages\n"
    assert timestamp(child) == stamped
    done = child.actor.run(["red-check", f"--redpath={child.path}"])
    assert (done.returncode, done.stdout) == (0, "Proven: 1 node, 2 packages\n"), describe(done)


def test_damage_is_found_at_its_node_also_by_the_next_check(parent: TestNode,
                                                            child: TestNode) -> None:
    check(parent, "--tree", status=0)
    before = timestamp(child)
    (child.path / "usr/share/app/data").write_text("DATA\n")
    (parent.path / "usr/bin/base").unlink()
    (parent.path / "usr/bin/stray").write_text("")
    (parent.path / "etc/base.conf").write_text("a=2\n")
    wanted = [("missing-file", "parent"), ("unowned-file", "parent"),
              ("changed-config", "parent"), ("changed-file", "child")]
    for words in ([], [], ["--no-cache"]):
        assert findings(parent, "--tree", *words) == wanted
    text = check(parent, "--tree", status=1)
    assert "error: child (" in text and "/usr/share/app/data: ..5....T. (content" in text, text
    assert "why it matters: " in text and "what to do: reinstall the package" in text
    assert "2 errors, 1 warning, 1 note" in text
    assert timestamp(child) == before
    child.dnf("red-reinstall", "-y", "app")
    assert [found for found in findings(parent, "--tree") if found[1] == "child"] == []


def test_what_a_directory_lost_is_found_when_all_else_is_known(parent: TestNode) -> None:
    """Once everything was old enough, only the directory that changed is looked at."""
    time.sleep(2.1)
    check(parent, status=0)
    (parent.path / "usr/bin/base").rename(parent.path / "usr/bin/stray")
    for words in ([], [], ["--no-cache"]):
        assert findings(parent, *words) == [("missing-file", "parent"), ("unowned-file", "parent")]
    (parent.path / "usr/bin/stray").rename(parent.path / "usr/bin/base")
    assert findings(parent, status=0) == []
    (parent.path / "usr/bin/base").unlink()
    (parent.path / "usr/bin").rmdir()
    for words in ([], [], ["--no-cache"]):
        assert findings(parent, *words) == [("missing-file", "parent")]


def test_owners_are_looked_at_again_when_they_have_other_names(
        actor: Actor, parent: TestNode, child: TestNode) -> None:
    parent.install("accounts")
    time.sleep(2.1)
    check(parent, "--tree", status=0)
    (parent.path / "etc/passwd").write_text("toor:x:0:0::/:/bin/sh\n")
    # An ordinary user's files are that user's, whomever their package gives them to.
    root = actor.kind == "root"
    found = findings(child, status=1 if root else 0)
    assert set(found) == ({("changed-file", "child")} if root else set())
    assert findings(child, "--no-cache", status=1 if root else 0) == found


def test_a_damaged_rpmdb_is_never_proven_whatever_is_looked_for(parent: TestNode) -> None:
    database = parent.path / "var/lib/rpm/rpmdb.sqlite"
    database.chmod(0o644)
    with database.open("r+b") as stream:
        stream.seek(100)
        stream.write(b"damage" * 1000)
    assert findings(parent) == [("rpmdb", "parent")]
    done = parent.try_dnf("red-check", "--files")
    assert done.returncode == 2, describe(done)
    assert "could not check: " in done.stdout and "damaged rpmdb" in done.stdout, describe(done)


def test_nothing_is_proven_on_an_ancestor_that_commands_refuse(
        actor: Actor, parent: TestNode, child: TestNode, repository: Path) -> None:
    leaf = make_node(actor, child.path / "leaf", "leaf", repository)
    status = "state: {}\nrealpath: {}\ntimestamp: 1\n"
    for file, text, rule, alias in (
            ("etc/redpack.yaml", "nonsense: 1\n", "configuration", "parent"),
            ("etc/redpack.yaml", "headers: {alias: child, name: parent}\n", "alias", "child"),
            (".rednode.yaml", status.format("Disable", parent.path), "state", "parent"),
            (".rednode.yaml", status.format("Enable", "/elsewhere"), "moved", "parent"),
            (".redpak/journal", "", "journal", "parent")):
        place = parent.path / file
        before = place.read_text() if place.exists() else ""
        place.write_text(text)
        # Rules and aliases only: a fault may be told more than once.
        assert set(findings(leaf)) == {(rule, alias)}, rule
        if rule in ("configuration", "journal", "alias"):
            done = leaf.try_dnf("red-check", "--files", "--signatures")
            assert done.returncode == 2 and "could not check: " in done.stdout, describe(done)
        place.write_text(before)


def test_what_hides_the_rest_is_told_whatever_is_looked_for(parent: TestNode) -> None:
    """Nothing is said of files where nobody looked at them."""
    config, journal = parent.path / "etc/redpack.yaml", parent.path / ".redpak/journal"
    before = config.read_text()
    config.write_text("nonsense: 1\n")
    assert "could not check: " in check(parent, "--files", status=2)
    config.write_text(before)
    journal.touch()
    assert "a commit was not finished" in check(parent, "--provides", status=2)


def test_what_a_command_changes_while_a_check_waits_is_checked(parent: TestNode) -> None:
    process, held = start_waiting(parent)
    config = parent.path / "etc/redpack.yaml"
    config.write_text(config.read_text() + "nonsense: 1\n")
    os.close(held)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and 'unknown section "nonsense"' in stdout, stdout + stderr


@pytest.mark.parametrize("name", ["dnf/dnf.conf", "yum.repos.d"])
def test_who_may_not_read_whether_signatures_are_needed_proves_nothing(
        parent: TestNode, name: str) -> None:
    (parent.path / "etc/dnf/dnf.conf").write_text("[main]\ngpgcheck=1\n")
    place = parent.path / "etc" / name
    mode = place.stat().st_mode
    place.chmod(0)
    done = parent.try_dnf("red-check", "--signatures")
    place.chmod(mode)
    assert "Traceback" not in done.stderr, describe(done)
    if parent.actor.kind == "root":
        assert "package without signature" in done.stdout, describe(done)  # root may read
    else:
        assert done.stdout.startswith(f"could not check: {place}: Permission denied\n")
        assert done.returncode == 2, describe(done)


@pytest.mark.parametrize("name", [".", "rpmdb.sqlite"])
def test_an_rpmdb_that_the_caller_may_not_read_is_not_damaged(parent: TestNode, name: str) -> None:
    place = parent.path / "var/lib/rpm" / name
    mode, before = place.stat().st_mode, timestamp(parent)
    place.chmod(0)
    for words in ([], ["--dependencies"], ["--files", "--jobs=1"]):
        done = parent.try_dnf("red-check", *words, "--no-stamp", "--no-cache")
        if parent.actor.kind == "root":
            assert done.returncode == 0, describe(done)  # root may
        else:
            assert done.returncode == 2 and "damaged rpmdb" not in done.stdout, describe(done)
            assert "Permission denied\n" in done.stdout, describe(done)
    place.chmod(mode)
    assert timestamp(parent) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_is_no_finding(parent: TestNode, child: TestNode, pool: Path) -> None:
    """Neither that of the copies of rpmdbs, nor that of their union."""
    small = pool / "small"
    small.mkdir()
    size = (parent.path / "var/lib/rpm/rpmdb.sqlite").stat().st_size
    for room in (size // 2, 3 * size, 5 * size):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room},mode=1777", "none", small],
                       check=True)
        try:
            done = child.actor.run(["red-check", f"--redpath={child.path}", "--no-cache"],
                                   env={"TMPDIR": str(small)})
        finally:
            subprocess.run(["umount", small], check=True)
        told = done.returncode == 2 and "No space left" in done.stdout + done.stderr
        assert told or (room > size and done.returncode == 0), describe(done)
        assert "Traceback" not in done.stderr, describe(done)


def test_streams_may_be_closed_or_full(parent: TestNode, pool: Path) -> None:
    """The status alone is an answer, and --output another place for the report."""
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        for words in ("--verbose", "--json --output=/dev/null", "--no-cache --jobs=3 --tree"):
            line = f"red-check --redpath={parent.path} {words} {closed}"
            done = parent.actor.run(["sh", "-c", line])
            assert (done.returncode, done.stderr) == (0, ""), describe(done)
    done = parent.actor.run(["sh", "-c", f"red-check --redpath={parent.path} >/dev/full"])
    assert done.stderr == "red-check: error: cannot write to stdout: No space left on device\n"
    assert done.returncode == 2, describe(done)
    done = parent.actor.run(["sh", "-c", f"red-conf tree --redpath={parent.path} >&-"])
    assert (done.returncode, done.stderr) == (0, ""), describe(done)


def test_who_is_tired_of_waiting_interrupts_a_check(parent: TestNode) -> None:
    process, held = start_waiting(parent)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    os.close(held)
    assert (process.returncode, stdout, stderr) == (130, "", "")
    assert check(parent, status=0) == "Proven: 1 node, 1 package\n"


def test_a_configuration_change_alone_is_a_note(parent: TestNode) -> None:
    (parent.path / "etc/base.conf").write_text("a=2\n")
    assert findings(parent, status=0) == [("changed-config", "parent")]


def test_a_broken_family_is_found(parent: TestNode, child: TestNode) -> None:
    parent.dnf("red-remove", "-y", "--force", "base")
    found = findings(parent, "--tree")
    assert ("dependency", "child") in found and ("state", "child") in found, found
    assert findings(child, "--dependencies") == [("dependency", "child")]
    assert findings(child, "--duplicates", "--obsoleted", "--provides", status=0) == []


def test_a_baseline_accepts_what_is_known(parent: TestNode, pool: Path) -> None:
    (parent.path / "usr/bin/stray").write_text("")
    baseline = pool / "baseline.json"
    check(parent, "--json", f"--output={baseline}", status=1)
    text = check(parent, f"--baseline={baseline}", status=0)
    assert text.startswith("Proven: 1 node, 1 package; 1 accepted by the baseline"), text
    (parent.path / "usr/bin/stray2").write_text("")
    assert findings(parent, f"--baseline={baseline}") == [("unowned-file", "parent")]


@pytest.mark.parametrize("words, message", [
    (["--redpath=/nowhere"], "red-check: error: /nowhere does not exist; check --redpath"),
    (["--redpath=/usr"], "red-check: error: /usr is not a node; check --redpath, or say --tree"),
    (["--redpath=/usr/bin", "--tree"], "red-check: error: /usr/bin: there is no node in it"),
    (["--redpath=relative"], "red-check: error: redpath relative is not absolute"),
    (["--redroot=/nowhere"], "red-check: error: /nowhere is not a directory; check --redroot"),
    (["--baseline=/nowhere"], "red-check: error: /nowhere: cannot read the baseline"),
    (["--baseline=/etc/passwd"], "red-check: error: /etc/passwd: not a report of red-check"),
    (["--jobs=-1"], "red-check: error: --jobs=-1 is no number of processes; write 1 or more"),
])
@pytest.mark.parametrize("front", [["red-check"], ["red-dnf", "red-check"]])
def test_what_cannot_be_checked_ends_with_status_2(
        front: list[str], words: list[str], message: str, parent: TestNode) -> None:
    node = [] if "--red" in words[0] else [f"--redpath={parent.path}"]
    done = parent.actor.run([*front, *node, *words])
    assert done.returncode == 2, describe(done)
    assert done.stderr.startswith(message), describe(done)
    assert len(done.stderr.splitlines()) == 1, describe(done)


def test_a_copied_rpmdb_file_is_not_trusted_for_its_time(parent: TestNode) -> None:
    """The cache goes by what nobody can set: a file with its old size and time is looked at."""
    check(parent, status=0)
    time.sleep(2.1)
    check(parent, status=0)
    program = parent.path / "usr/bin/base"
    status = program.stat()
    program.write_text("evil\n"[: status.st_size])
    shutil.copystat(parent.path / "etc/base.conf", program)
    os.utime(program, ns=(status.st_atime_ns, status.st_mtime_ns))
    program.chmod(0o755)
    assert findings(parent) == [("changed-file", "parent")]
