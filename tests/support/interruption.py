# SPDX-License-Identifier: Apache-2.0
"""Transactions to kill, and what is left of the node then: for the tests and the campaign."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from support.actors import Actor, describe
from support.frontends import is_dnf5
from support.nodes import NOT_STATE, TestNode
from support.rpms import RpmFile, build_rpm, create_repository
from support.trees import snapshot_tree

GONE = "threw away the unfinished transaction"
FINISHED = "finished the transaction"
VICTIMS = ("command", "child", "all")
DEPTH = 1  # of the process that works in the view, below the command: redsys.namespace
# One line for each file of each package, with what rpm holds of it in that installation.
_RPMDB_QUERY = "%{NEVRA} %{SIGMD5} %{SHA1HEADER}\\n[%{FILENAMES} %{FILESTATES} %{FILEDIGESTS}\\n]"
_DYING_PLUGIN = """
import os, sys
sys.path[:0] = ["{0}", "{1}"]
import libdnf5
from dying import lay_fuse
lay_fuse(os.environ["DYING_POINT"])
from reddnf5.plugin import RedpakPlugin as Plugin
"""
_HISTORY_QUERY = """
    SELECT trans.id, trans.state, trans_item.action, trans_item.reason, trans_item.state,
           coalesce(rpm.name || rpm.version, comps_group.groupid)
    FROM trans LEFT JOIN trans_item ON trans_item.trans_id = trans.id
    LEFT JOIN rpm ON rpm.item_id = trans_item.item_id
    LEFT JOIN comps_group ON comps_group.item_id = trans_item.item_id
"""


@dataclass(frozen=True)
class Scenario:
    """A command on a node that has the packages ``before``."""

    name: str
    words: Sequence[str]
    before: Sequence[str] = ()


SCENARIOS = (
    Scenario("install", ("red-install", "-y", "alpha", "beta")),
    Scenario("upgrade", ("red-upgrade", "-y"), ("alpha-1", "beta-1")),
    Scenario("downgrade", ("red-downgrade", "-y", "alpha", "beta"), ("alpha-2", "beta-2")),
    Scenario("remove", ("red-remove", "-y", "alpha"), ("alpha-2", "beta-2")),
    Scenario("group", ("red-group", "install", "-y", "kit"), ("alpha-1",)),
)


def build_repository(directory: Path) -> Path:
    """alpha and beta, in two versions that differ in files, directories and links, with scriptlets;
    gamma; the group kit of all three."""
    for version in ("1", "2"):
        build_rpm(
            directory,
            "alpha",
            version=version,
            files={
                **{f"/usr/share/alpha/{n}": f"{version} {n}\n" for n in range(6)},
                f"/usr/share/alpha/only-{version}/deep/file": "x\n",
                "/etc/alpha.conf": RpmFile(f"version={version}\n", directive="%config(noreplace)"),
                "/usr/bin/alpha": RpmFile("#!/bin/sh\n", mode=0o755 if version == "1" else 0o700),
            },
            install="mkdir -p %{buildroot}/usr/share/alpha/turn\n"
            + ("touch %{buildroot}/usr/share/alpha/turn/x" if version == "1" else ""),
            extra_files=f"%dir %attr(07{version}5,root,root) /usr/share/alpha/turn\n"
            + ("/usr/share/alpha/turn/x" if version == "1" else ""),
            scriptlets={
                "pre": "mkdir -p /usr/share/scripted && echo pre >> /usr/share/scripted/log",
                "post": "echo %{version} > /usr/share/scripted/version\n"
                "cp /usr/share/alpha/0 /etc/alpha.made",
                "postun": "if [ $1 = 0 ]; then rm -rf /usr/share/scripted /etc/alpha.made; fi",
                "posttrans": "echo done > /usr/share/scripted/posttrans",
            },
        )
        build_rpm(
            directory,
            "beta",
            version=version,
            files={f"/opt/beta/{version}": RpmFile("b\n", mode=0o640), "/opt/beta/both": version},
            install=f"ln -s {version} %{{buildroot}}/opt/beta/current\n"
            "ln %{buildroot}/opt/beta/both %{buildroot}/opt/beta/same",
            extra_files="/opt/beta/current\n/opt/beta/same",
            scriptlets={"post": "sleep 0.05; chmod 0711 /opt/beta\n"
            # rpm -Va shall have something to say.
            "echo changed >> /opt/beta/%{version}"},
        )
    build_rpm(directory, "gamma", files={"/srv/gamma/file": "c\n"}, requires=["beta"])
    return create_repository(directory, groups={"kit": ["alpha", "beta", "gamma"]})


@dataclass(frozen=True)
class Content:
    """A node as it must be, exactly (``strict``) or but for the time it was made (``loose``)."""

    strict: object
    loose: object

    @classmethod
    def of(cls, node: TestNode) -> Content:
        strict = {
            path: (*row, _attributes(node.path / path))
            for path, row in snapshot_tree(node.path, without=NOT_STATE).items()
        }
        loose: dict[str, object] = {
            path: (*row[:3], *row[4:])  # type: ignore[misc]
            for path, row in strict.items()
            if not path.startswith(("var/lib/dnf/", "var/lib/rpm/"))
        }
        with tempfile.TemporaryDirectory(prefix="redpak-content.") as work:
            copy = Path(work, "lib")
            shutil.copytree(node.path / "var/lib", copy)
            loose["rpmdb"] = read_rpmdb(copy / "rpm")
            loose["history"] = _read_history(copy / "dnf/history.sqlite")
            loose["dnf5"] = _read_dnf5_state(copy / "dnf/libdnf5")
        return cls(strict, loose)


def _attributes(path: Path) -> tuple[object, ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def read_rpmdb(directory: Path) -> list[str]:
    """What an rpmdb says of its packages and their files, whenever they were installed."""
    query = ["rpm", "--dbpath", str(directory), "-qa", "--qf", _RPMDB_QUERY]
    done = subprocess.run(query, capture_output=True, text=True, check=True)
    assert not done.stderr, done.stderr
    return sorted(done.stdout.split("\n"))


def _read_history(file: Path) -> list[tuple[object, ...]]:
    if not file.exists():
        return []
    connection = sqlite3.connect(file)
    try:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert sound == "ok", sound
        return sorted(connection.execute(_HISTORY_QUERY), key=repr)
    finally:
        connection.close()


def _read_dnf5_state(directory: Path) -> dict[str, str]:
    """What dnf5 notes of packages and groups; its history must be sound."""
    history = directory / "transaction_history.sqlite"
    if history.exists():
        with contextlib.closing(sqlite3.connect(history)) as connection:
            (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        assert sound == "ok", sound
    names = ("packages.toml", "nevras.toml", "groups.toml")
    return {name: (directory / name).read_text() for name in names if (directory / name).exists()}


@dataclass(frozen=True)
class Tools:
    """The drivers of this package where every actor can read them; ``library`` is redpak's."""

    directory: Path
    library: Path

    @classmethod
    def copy(cls, directory: Path, prefix: Path) -> Tools:
        directory.mkdir(exist_ok=True)
        for name in ("dying.py", "view_rpm.py"):
            shutil.copyfile(Path(__file__).parent / name, directory / name)
        library = prefix / "lib/redpak"
        plugin = directory / "plugin"
        plugin.mkdir(exist_ok=True)
        (plugin / "redpak_dnf5.py").write_text(_DYING_PLUGIN.format(directory, library))
        return cls(directory, library)

    def dying_dnf5(self, point: str) -> list[str]:
        """dnf5 whose plugin lays the fuse of dying.py before it is the real one."""
        own = self.library / "dnf5"
        return [
            "/usr/bin/env",
            f"LIBDNF_PYTHON_PLUGIN_DIR={self.directory}/plugin",
            f"LIBDNF_PLUGINS_CONFIG_DIR={own}/plugins",
            f"XDG_CONFIG_HOME={own}/config",
            f"DYING_POINT={point}",
            "dnf5",
        ]

    def command(self, name: str, *words: object) -> list[str]:
        argv = ["/usr/bin/env", f"PYTHONPATH={self.library}", "/usr/bin/python3", "-B"]
        return [*argv, str(self.directory / name), *map(str, words)]


class Bench:
    """A node that can be put back to where it was before the command of ``scenario``."""

    def __init__(self, node: TestNode, scenario: Scenario, tools: Tools) -> None:
        """Run the command once without interruption, and measure it."""
        self.node = node
        self.scenario = scenario
        self.tools = tools
        self.child_changes = 1_000_000  # until count_changes() has counted them
        self._saved = node.path.parent / f"{node.path.name}.saved"
        if scenario.before:
            node.install(*scenario.before)
        node.dnf("red-makecache")
        subprocess.run(["cp", "-a", node.path, self._saved], check=True)
        self.old = Content.of(node)
        self.old_verify = self.verify()
        start = time.monotonic()
        node.dnf(*scenario.words)
        self.duration = time.monotonic() - start  # seconds
        self.new = Content.of(node)
        self.new_verify = self.verify()
        assert self.old.loose != self.new.loose

    def restore(self) -> None:
        subprocess.run(["rm", "-rf", self.node.path], check=True)
        subprocess.run(["cp", "-a", self._saved, self.node.path], check=True)

    def verify(self) -> str:
        """What `rpm -Va` says in the node's view."""
        done = self.node.actor.run(
            self.tools.command("view_rpm.py", self.node.path, "-Va", "--nosignature")
        )
        assert not done.stderr, describe(done)
        return done.stdout

    def command(self) -> list[str]:
        return ["red-dnf", *self.scenario.words, f"--redpath={self.node.path}"]

    def dying_command(self, point: int) -> list[str]:
        """The same, killed before change number ``point`` of its commit; from ``child_changes`` on
        those of the cleaning by its supervisor are counted."""
        words = [*self.scenario.words, f"--redpath={self.node.path}"]
        late = point - self.child_changes
        return self._command_with_fuse(f"s{late}" if late >= 0 else str(point), words)

    def dying_child_command(self, point: int) -> list[str]:
        """The same, but its contained child alone is killed, and only in the commit."""
        words = [*self.scenario.words, f"--redpath={self.node.path}"]
        return self._command_with_fuse(f"c{point}", words)

    def _command_with_fuse(self, point: str, words: Sequence[str]) -> list[str]:
        if is_dnf5():
            return [*self.tools.dying_dnf5(point), *words]
        return self.tools.command("dying.py", point, *words)

    def count_changes(self) -> int:
        """The number of changes of an uninterrupted commit, and of the cleaning after it."""
        self.restore()
        words = [*self.scenario.words, f"--redpath={self.node.path}"]
        done = self.node.actor.run(self._command_with_fuse("-1", words))
        assert done.returncode == 0, describe(done)
        found = dict(re.findall(r"^changes of the (\w+): (\d+)$", done.stderr, re.MULTILINE))
        self.child_changes = int(found["child"])
        return self.child_changes + int(found["supervisor"])

    @property
    def journal(self) -> Path:
        return self.node.path / ".redpak/journal"

    @property
    def stage(self) -> Path:
        return self.node.path / ".redpak/stage"

    def check(self, *next_command: str) -> str:
        """Run the next command and insist that nothing was lost; returns "old" or "new"."""
        interrupted, committed = self.stage.exists(), self.journal.exists()
        done = self.node.try_dnf(*next_command)
        assert done.returncode == 0, describe(done)
        if committed:
            assert FINISHED in done.stderr, describe(done)
        elif interrupted:
            assert GONE in done.stderr or FINISHED in done.stderr, describe(done)
        assert not self.stage.exists() and not self.journal.exists(), describe(done)
        wait_until_alone(self.node.path)
        content = Content.of(self.node)
        if content.strict == self.old.strict:
            outcome = "old"
            assert FINISHED not in done.stderr, describe(done)
        else:
            difference(content.loose, self.new.loose)
            outcome = "new"
            assert GONE not in done.stderr, describe(done)
        assert not committed or outcome == "new"
        assert self.verify() == (self.old_verify if outcome == "old" else self.new_verify)
        leftovers = set(os.listdir(self.node.path / ".redpak")) - {"family-rpmdb"}
        assert all(name.startswith("previous.") for name in leftovers), leftovers
        assert len(leftovers) <= 1, leftovers
        return outcome


def difference(found: object, expected: object) -> None:
    """Insist that two contents are the same, and show what is not."""
    assert isinstance(found, dict) and isinstance(expected, dict)
    paths = sorted(found.keys() | expected.keys())
    wrong = [
        f"{path}: {found.get(path)} instead of {expected.get(path)}"
        for path in paths
        if found.get(path) != expected.get(path)
    ]
    assert not wrong, "\n".join(wrong)


def start_and_kill(actor: Actor, argv: Sequence[str], seconds: float, victim: str) -> bool:
    """Run argv and kill it after ``seconds``; whether there was something to kill.

    Victims: the command alone, whose children must follow; the process alone that works in the
    view, as the kernel does when memory runs out; all together, as when the power fails. A
    scriptlet alone is none of them: rpm takes that for a scriptlet that failed, and warns.
    """
    process = actor.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        process.wait(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        kill(process.pid, victim)
        process.wait()
        return True


def kill(pid: int, victim: str) -> None:
    family = [pid, *descendants(pid)]
    chosen = {"command": family[:1], "child": family[: DEPTH + 1][-1:], "all": family}[victim]
    for number in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Processes that ``pid`` started, and theirs; parents first."""
    found: list[int] = []
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return found
    for child in map(int, text.split()):
        found += [child, *descendants(child)]
    return found


def users_of(path: Path) -> list[str]:
    """Processes that work on ``path``, or have something mounted there."""
    found = []
    # mountinfo counts from the root of a file system, which may be mounted elsewhere.
    needle = os.fsencode("/".join(path.parts[-3:]))
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or process.name == str(os.getpid()):
            continue
        for name in ("cmdline", "mountinfo"):
            try:
                if needle in (process / name).read_bytes():
                    found.append(f"{process.name}: {name}")
            except OSError:
                continue  # it ended, or it is somebody else's
    return found


def wait_until_alone(path: Path, *, seconds: float = 10) -> None:
    """The kernel ends the processes of a namespace in its own time: insist that it does."""
    end = time.monotonic() + seconds
    while True:
        users = users_of(path)
        if not users:
            return
        assert time.monotonic() < end, users
        time.sleep(0.05)
