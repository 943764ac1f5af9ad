# SPDX-License-Identifier: Apache-2.0
"""What can go wrong from outside: the node is as it was, or correctly changed, and says why."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest

from support.actors import Actor, describe
from support.frontends import interrupts_to_end, is_dnf5, says, status_of_interrupt
from support.interruption import users_of, wait_until_alone
from support.nodes import Finished, TestNode, make_node
from support.rpms import build_rpm, create_repository
from support.web import Server, serve

SMALL = 12 << 20  # bytes of a small file system
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "failures"
    build_rpm(directory, "plain", files={"/usr/share/plain/file": "plain\n"})
    build_rpm(
        directory,
        "filler",
        files={"/usr/share/filler/file": "x\n"},
        scriptlets={"pre": f"head -c {SMALL} /dev/zero > /usr/share/filling"},
    )
    build_rpm(
        directory,
        "big",
        files={"/usr/share/big/file": ""},
        install=f"head -c {2 * SMALL} /dev/zero > %{{buildroot}}/usr/share/big/file",
    )
    build_rpm(
        directory,
        "hanging",
        files={"/usr/share/hanging/file": "x\n"},
        scriptlets={"post": "exec sleep 1000"},
    )
    build_rpm(
        directory,
        "daemon",
        files={"/usr/share/daemon/file": "x\n"},
        scriptlets={
            "post": "setsid sleep 1000 < /dev/null > /dev/null 2>&1 &\nsleep 1001 &\n"
            "echo started > /usr/share/daemon/started"
        },
    )
    for name, scriptlet in (("pre", "pre"), ("preun", "preun"), ("post", "post")):
        build_rpm(
            directory,
            f"fails-{name}",
            files={f"/usr/share/fails-{name}/file": "x\n"},
            scriptlets={scriptlet: "touch /usr/share/trace; exit 3"},
        )
    return create_repository(directory)


@pytest.fixture
def node(actor: Actor, pool: Path, repository: Path) -> TestNode:
    return make_node(actor, pool / "node", "node", repository)


@pytest.fixture
def small(actor: Actor, pool: Path) -> Iterator[Path]:
    """A small file system that belongs to the actor."""
    directory = pool / "small"
    directory.mkdir()
    options = f"size={SMALL},uid={actor.uid},gid={actor.gid},mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def assert_clean(node: TestNode) -> None:
    wait_until_alone(node.path)
    left = set(os.listdir(node.path / ".redpak"))
    assert not left & {"stage", "stage.discarded", "journal"}, left


def fill(directory: Path, *, leave: int) -> None:
    """Use up the space of a file system but for ``leave`` bytes."""
    with open(directory / "filling", "wb") as stream:
        room = shutil.disk_usage(directory).free - leave
        os.posix_fallocate(stream.fileno(), 0, room)


# --- space and permissions ---


@needs_root
def test_a_package_larger_than_the_disk_is_refused(
    actor: Actor, small: Path, repository: Path
) -> None:
    node = make_node(actor, small / "node", "node", repository)
    node.fails("red-install", "-y", "big", message=says("disk too small"))
    assert_clean(node)
    node.install("plain")


@needs_root
def test_a_scriptlet_that_fills_the_disk_changes_nothing(
    actor: Actor, small: Path, repository: Path
) -> None:
    node = make_node(actor, small / "node", "node", repository)
    node.fails("red-install", "-y", "filler", message=says("disk full"))
    assert_clean(node)
    node.install("plain")


@needs_root
def test_a_disk_that_gets_full_at_any_moment_changes_nothing(
    actor: Actor, small: Path, repository: Path
) -> None:
    node = make_node(actor, small / "node", "node", repository)
    node.dnf("red-makecache")
    before = node.state()
    refused = 0
    for leave in range(0, SMALL // 4, 192 << 10):
        fill(small, leave=leave)
        done = node.try_dnf("red-install", "-y", "plain")
        (small / "filling").unlink()
        if done.returncode == 0:
            break
        refused += 1
        assert "Traceback" not in done.stderr, describe(done)
        assert "No space left on device" in done.stderr or "is full" in done.stderr, describe(done)
        assert_clean(node)
        if "Complete!" in done.stdout:
            break  # dnf had no room left for its cache only
        assert node.state() == before, describe(done)
    assert refused
    assert node.packages() == ["plain"]
    assert (node.path / "usr/share/plain/file").read_text() == "plain\n"


@needs_root
def test_a_read_only_node_can_be_read_and_says_that_it_cannot_be_changed(
    actor: Actor, small: Path, repository: Path
) -> None:
    node = make_node(actor, small / "node", "node", repository)
    node.install("plain")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    node.fails(
        "red-remove", "-y", "plain", message="cannot create the stage: Read-only file system"
    )
    assert "plain.noarch" in node.dnf("red-list", "--installed")


def test_a_node_whose_own_directory_may_not_be_written_is_left_alone(
    actor: Actor, node: TestNode
) -> None:
    if actor.uid == 0:
        pytest.skip("root may write everywhere")
    os.chmod(node.path / ".redpak", 0o555)
    node.fails(
        "red-install",
        "-y",
        "plain",
        message="cannot create the stage: Permission denied; the node's owner, or root, must",
    )


@needs_root
def test_a_node_of_somebody_else_is_refused(actor: Actor, node: TestNode) -> None:
    if actor.uid == 0:
        pytest.skip("root becomes the owner")
    for place in [node.path, *node.path.rglob("*")]:
        os.chown(place, 0, 0, follow_symlinks=False)
    node.fails("red-install", "-y", "plain", message="no permission, the node belongs to user 0")


@needs_root
def test_a_commit_that_cannot_go_on_is_finished_by_the_next_command(node: TestNode) -> None:
    node.install("plain")
    stuck = node.path / "var/lib/rpm"  # the view shows it apart: only the commit meets it
    done = subprocess.run(["chattr", "+i", stuck], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this file system has no immutable directories")
    try:
        done = node.try_dnf("red-remove", "-y", "plain")
        assert done.returncode == 1, describe(done)
        assert "the commit was interrupted: " in done.stderr, describe(done)
        assert "the next command on the node finishes it" in done.stderr, describe(done)
        done = node.try_dnf("red-list", "--installed")
        assert done.returncode == 1, describe(done)
        assert os.strerror(errno.EPERM) in done.stderr, describe(done)
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)
    done = node.try_dnf("red-list", "--installed")
    assert "finished the transaction" in done.stderr, describe(done)
    assert node.packages() == []
    assert not (node.path / "usr/share/plain/file").exists()
    assert_clean(node)


# --- damage ---


@pytest.mark.parametrize("kept", [0, 60000])
def test_a_damaged_rpmdb_is_never_taken_for_an_empty_one(
    actor: Actor, pool: Path, repository: Path, node: TestNode, kept: int
) -> None:
    """As a crash of the machine or worn out flash leaves one; only a rollback gets past it."""
    node.install("plain")
    child = make_node(actor, node.path / "child", "child", repository)
    database = node.path / "var/lib/rpm/rpmdb.sqlite"
    content = database.read_bytes()
    database.write_bytes(content[:kept])
    message = f"{database}: damaged rpmdb: "
    for loser, words in ((node, ("red-install", "-y", "fails-post")),
                         (node, ("red-list", "--installed")),
                         (node, ("red-upgrade", "-y", "--plan")),
                         (child, ("red-install", "-y", "plain"))):
        loser.fails(*words, message=message)
        assert_clean(loser)
    for option in ("-Va", "--rebuilddb"):
        done = actor.run(["red-rpm", f"--redpath={node.path}", option])
        assert done.returncode == 1 and message in done.stderr, describe(done)
        assert done.stderr.count("\n") == 1, describe(done)
    node.dnf("red-manager", "--rollback")
    assert node.packages() == []
    node.fails("red-manager", "--rollback", message=message)
    node.install("plain")


@pytest.mark.parametrize(("text", "message"), [
    ('{"version": 2}', "the journal has the format 2 of another version of redpak"),
    ('{"version": 1, "generation": 1, "steps": [{"kind": "put", "path": 1, "source": "x"}]}',
     "damaged journal: "),
    ("[" * 100_000, "damaged journal: "),
    ("", "damaged journal: "),
])
def test_a_journal_that_cannot_be_read_changes_nothing(
    node: TestNode, text: str, message: str
) -> None:
    node.install("plain")
    (node.path / ".redpak/journal").write_text(text)
    (node.path / ".redpak/stage").mkdir()
    before = node.state()
    for words in (("red-list", "--installed"), ("red-remove", "-y", "plain"),
                  ("red-manager", "--recover")):
        done = node.try_dnf(*words)
        assert done.returncode == 1 and message in done.stderr, describe(done)
        assert "Traceback" not in done.stderr, describe(done)
    assert node.state() == before


# --- repositories ---


@pytest.fixture
def server(pool_root: Path) -> Iterator[Server]:
    """Serves a repository of the test's own, with the package served."""
    directory = pool_root / "served"
    build_rpm(directory, "served", files={"/usr/share/served/file": "served " * 5000})
    create_repository(directory)
    with serve(directory) as found:
        yield found


@pytest.fixture
def client(actor: Actor, pool: Path, server: Server) -> TestNode:
    node = make_node(actor, pool / "client", "client")
    words = ("--setopt=retries=1", "--setopt=timeout=5", "--save")
    node.dnf("red-manager", f"--add-repo={server.url}", *words)
    return node


def test_a_repository_that_dies_in_mid_download_changes_nothing(
    client: TestNode, server: Server
) -> None:
    server.cut = ".rpm"
    message = says("cannot download", "served-1.0-1.noarch")
    client.fails("red-install", "-y", "served", message=message)
    assert_clean(client)
    server.cut = ""
    client.install("served")
    assert client.packages() == ["served"]


def test_a_repository_whose_metadata_are_cut_changes_nothing(
    client: TestNode, server: Server
) -> None:
    server.cut = "primary.xml"
    client.fails("red-install", "-y", "served", message=says("no metadata"))
    assert_clean(client)
    server.cut = ""
    client.install("served")


def test_a_repository_that_is_gone_changes_nothing(client: TestNode, server: Server) -> None:
    server.shutdown()
    server.server_close()
    client.fails("red-install", "-y", "served", message=says("no metadata"))
    assert_clean(client)


@pytest.mark.parametrize("way", ["file", "http"])
def test_a_corrupt_package_is_refused(
    actor: Actor, pool: Path, pool_root: Path, server: Server, way: str
) -> None:
    directory = pool_root / "served"
    (package,) = directory.glob("*.rpm")
    content = bytearray(package.read_bytes())
    content[-100] ^= 0xFF
    package.write_bytes(bytes(content))
    refuse_package(actor, pool, directory if way == "file" else server.url)


@pytest.mark.parametrize("way", ["file", "http"])
def test_a_package_with_another_digest_than_the_metadata_say_is_refused(
    actor: Actor, pool: Path, pool_root: Path, server: Server, way: str
) -> None:
    directory = pool_root / "served"
    build_rpm(directory, "served", files={"/usr/share/served/file": "evil"})
    refuse_package(actor, pool, directory if way == "file" else server.url)


def test_a_corrupt_package_whose_metadata_fit_is_refused_by_rpm(
    actor: Actor, pool: Path, pool_root: Path, server: Server
) -> None:
    directory = pool_root / "served"
    (package,) = directory.glob("*.rpm")
    content = bytearray(package.read_bytes())
    content[-100] ^= 0xFF
    package.write_bytes(bytes(content))
    create_repository(directory)
    refuse_package(actor, pool, directory)


def refuse_package(actor: Actor, pool: Path, source: object) -> None:
    node = make_node(actor, pool / "node", "node")
    words = ("--setopt=retries=1", "--save")
    node.dnf("red-manager", f"--add-repo={source}", *words)
    before = node.state()
    done = node.try_dnf("red-install", "-y", "served")
    assert done.returncode == 1, describe(done)
    assert "served-1.0-1.noarch" in done.stdout + done.stderr, describe(done)
    assert any(
        text in done.stdout + done.stderr
        for text in (
            "checksum doesn't match", "incorrect checksum", "file length", says("corrupt package")
        )
    ), describe(done)
    assert "Traceback" not in done.stderr, describe(done)
    assert node.state() == before
    assert node.packages() == []
    assert_clean(node)


# --- scriptlets ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("red-install", "fails-pre"), says("pre failed", "fails-pre")),
        (("red-remove", "fails-preun"), says("preun failed", "fails-preun")),
    ],
)
def test_a_scriptlet_that_fails_stops_the_whole_transaction(
    node: TestNode, words: tuple[str, str], message: str
) -> None:
    node.install("plain", "fails-preun")
    command, package = words
    node.fails(command, "-y", package, "plain", message=message)
    assert node.packages() == ["fails-preun", "plain"]
    assert not (node.path / "usr/share/trace").exists()
    assert_clean(node)


@pytest.mark.skipif(is_dnf5(), reason="stock dnf5 calls it a failure: see test_dnf5.py")
def test_a_post_scriptlet_that_fails_is_a_warning_as_in_stock_dnf(node: TestNode) -> None:
    done = node.try_dnf("red-install", "-y", "fails-post")
    assert done.returncode == 0, describe(done)
    assert says("post failed", "fails-post") in done.stderr, describe(done)
    assert node.packages() == ["fails-post"]
    assert (node.path / "usr/share/trace").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_command_that_is_stopped_while_a_scriptlet_hangs_changes_nothing(
    node: TestNode, name: str
) -> None:
    node.install("plain")
    before = node.state()
    number = signal.Signals[name]
    done = stop_while_hanging(node, number)
    expected = status_of_interrupt() if number == signal.SIGINT else 128 + number
    assert done.returncode == expected, describe(done)
    assert "Node node: stopped, nothing was changed." in done.stderr, describe(done)
    assert "Traceback" not in done.stderr, describe(done)
    assert node.state() == before
    assert_clean(node)
    node.dnf("red-remove", "-y", "plain")


def stop_while_hanging(node: TestNode, number: signal.Signals) -> Finished[str]:
    """Ctrl-C reaches every process of the terminal, and the first one is dnf's to handle."""
    argv = ["red-dnf", "red-install", "-y", "hanging", f"--redpath={node.path}"]
    process = node.actor.popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", start_new_session=True
    )
    try:
        end = time.monotonic() + 60
        while not any(is_sleeping(user) for user in users_of(node.path)):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        if number == signal.SIGINT:
            for _ in range(interrupts_to_end() - 1):
                os.killpg(process.pid, number)
                time.sleep(0.5)
                assert process.poll() is None
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def is_sleeping(user: str) -> bool:
    """Whether a process, as users_of() names it, is the hanging scriptlet."""
    try:
        words = Path("/proc", user.split(":")[0], "cmdline").read_bytes()
    except OSError:
        return False
    return words == b"sleep\x001000\x00"


def test_a_daemon_that_a_scriptlet_started_ends_with_the_command(node: TestNode) -> None:
    node.install("daemon")
    assert (node.path / "usr/share/daemon/started").read_text() == "started\n"
    assert_clean(node)
