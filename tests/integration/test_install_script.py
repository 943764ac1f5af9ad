# SPDX-License-Identifier: Apache-2.0
"""scripts/install and scripts/uninstall, in prefixes and on a copy-on-write view of the system."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor, describe, find_actor
from support.rpms import RpmFile, build_rpm, create_repository, write_repo_file
from support.trees import snapshot_tree

COMMANDS = {"red-conf": "red-conf", "red-dnf": "red-install", "red-wrap": "red-wrap"}


@pytest.fixture
def source(pool_root: Path, readable_checkout: Path) -> Path:
    """A copy of the checkout that a test may change."""
    return Path(shutil.copytree(readable_checkout, pool_root / "source"))


def install(actor: Actor, source: Path, prefix: Path) -> str:
    return actor.check([source / "scripts/install", f"--prefix={prefix}"])


def uninstall(actor: Actor, source: Path, prefix: Path) -> str:
    return actor.check([source / "scripts/uninstall", f"--prefix={prefix}"])


@pytest.mark.parametrize("command", COMMANDS)
def test_installed_commands_start_from_anywhere(actor: Actor, prefix: Path, command: str) -> None:
    done = actor.run([prefix / "bin" / command, "--help"])
    assert done.returncode == 0, describe(done)
    assert COMMANDS[command] in done.stdout


def test_a_callers_pythonpath_does_not_reach_installed_commands(
    actor: Actor, prefix: Path, pool: Path
) -> None:
    (pool / "redwrap").mkdir()
    (pool / "redwrap/__init__.py").write_text("raise SystemExit('hijacked')\n")
    done = actor.run([prefix / "bin/red-wrap", "--help"], env={"PYTHONPATH": str(pool)}, cwd=pool)
    assert done.returncode == 0, describe(done)


def test_uninstall_leaves_the_prefix_as_it_was(actor: Actor, source: Path, pool: Path) -> None:
    prefix = pool / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/mine").write_text("not redpak's\n")
    for path in (prefix, prefix / "bin", prefix / "bin/mine"):
        os.chown(path, actor.uid, actor.gid)
    before = sorted(snapshot_tree(prefix))
    install(actor, source, prefix)
    actor.check([prefix / "bin/red-wrap", "--help"])
    assert sorted(snapshot_tree(prefix)) != before
    uninstall(actor, source, prefix)
    assert sorted(snapshot_tree(prefix)) == before


def test_installing_again_is_an_upgrade(actor: Actor, source: Path, pool: Path) -> None:
    prefix = pool / "prefix"
    (source / "redpak/gone.py").write_text("# SPDX-License-Identifier: Apache-2.0\n")
    install(actor, source, prefix)
    assert (prefix / "lib/redpak/redpak/gone.py").exists()
    (source / "redpak/gone.py").unlink()
    (source / "redpak/fresh.py").write_text("# SPDX-License-Identifier: Apache-2.0\n")
    install(actor, source, prefix)
    left = [path.name for path in (prefix / "lib/redpak/redpak").rglob("*")]
    assert "fresh.py" in left
    assert not [name for name in left if name.startswith("gone")]


def test_configuration_that_the_administrator_changed_is_kept(
    actor: Actor, source: Path, pool: Path
) -> None:
    prefix = pool / "prefix"
    main = prefix / "etc/redpak/main.yaml"
    install(actor, source, prefix)
    main.write_text("# mine\n" + main.read_text())
    mine = main.read_text()

    shipped = source / "conf/main.yaml"
    shipped.write_text(shipped.read_text() + "# newer\n")
    assert f"kept {main}, which was changed; the new one is {main}.new" in install(
        actor, source, prefix
    )
    assert main.read_text() == mine
    assert Path(f"{main}.new").read_text().endswith("# newer\n")

    assert f"kept {main}, which was changed" in uninstall(actor, source, prefix)
    left = [path for path in prefix.rglob("*") if path.is_file()]
    assert left == [main]


def test_configuration_that_nobody_changed_is_upgraded(
    actor: Actor, source: Path, pool: Path
) -> None:
    install(actor, source, pool / "prefix")
    shipped = source / "conf/main.yaml"
    shipped.write_text(shipped.read_text() + "# newer\n")
    install(actor, source, pool / "prefix")
    assert (pool / "prefix/etc/redpak/main.yaml").read_text().endswith("# newer\n")


def test_a_strangers_file_is_not_overwritten(actor: Actor, source: Path, pool: Path) -> None:
    command = pool / "bin/red-wrap"
    command.parent.mkdir()
    command.write_text("a stranger's\n")
    done = actor.run([source / "scripts/install", f"--prefix={pool}"])
    assert done.returncode == 1
    assert done.stderr == f"install: error: {command} exists and is not redpak's; remove it first\n"
    assert [path.name for path in pool.iterdir()] == ["bin"]


def test_wrong_places_are_one_clear_line(actor: Actor, source: Path, pool: Path) -> None:
    (pool / "file").write_text("x")
    damaged = pool / "p/lib/redpak/manifest.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    for directory in (damaged.parent, *damaged.parents[1:3], damaged):
        os.chown(directory, actor.uid, actor.gid)
    for script in ("install", "uninstall"):
        for prefix, message in (
            ("", "--prefix= names no directory"),
            (f"{pool}/p", f"{damaged} is damaged; remove it, and what was installed"),
        ):
            done = actor.run([source / f"scripts/{script}", f"--prefix={prefix}"], cwd=pool)
            assert (done.returncode, done.stderr) == (1, f"{script}: error: {message}\n")
    done = actor.run([source / "scripts/install", f"--prefix={pool}/file/x"])
    assert (done.returncode, done.stderr) == (
        1, f"install: error: {pool}/file/x: Not a directory\n")
    assert sorted(path.name for path in pool.iterdir()) == ["file", "p"]


def test_uninstall_refuses_a_list_that_names_files_elsewhere(
    actor: Actor, source: Path, pool: Path
) -> None:
    prefix = pool / "prefix"
    victim = pool / "victim"
    victim.write_text("precious\n")
    install(actor, source, prefix)
    manifest = prefix / "lib/redpak/manifest.json"
    listed = json.loads(manifest.read_text())
    for name in (str(victim), f"{prefix}/../victim"):
        manifest.write_text(json.dumps({**listed, "files": {name: ""}}))
        done = actor.run([source / "scripts/uninstall", f"--prefix={prefix}"])
        assert done.returncode == 1
        assert done.stderr.startswith(f"uninstall: error: {manifest} tells of another place")
    assert victim.exists()


def test_uninstall_says_where_nothing_is_installed(actor: Actor, source: Path, pool: Path) -> None:
    done = actor.run([source / "scripts/uninstall", f"--prefix={pool}"])
    assert done.returncode == 1
    assert done.stderr == (
        f"uninstall: error: {pool}/lib/redpak/manifest.json is missing: "
        "redpak is not installed here; say --prefix=DIR?\n"
    )


def test_an_ordinary_user_cannot_install_for_the_system(
    prefix: Path, source: Path, pool_root: Path
) -> None:
    user = find_actor("user").with_environ(PATH="/usr/bin:/bin")
    done = user.run([source / "scripts/install"])
    assert done.returncode == 1
    assert done.stderr == (
        "install: error: only root installs for the whole system; use --prefix=DIR or sudo\n"
    )


SYSTEM_SCRIPT = """
set -eu
mount --make-rprivate /
for top in usr etc var; do
    own=$WORK/$top
    mkdir -p "$own/upper" "$own/work"
    mount -t overlay -o "lowerdir=/$top,upperdir=$own/upper,workdir=$own/work" none "/$top" ||
        { echo "no overlayfs over /$top here"; exit 77; }
done
rm -rf /etc/redpak
if [ -e /usr/lib/redpak/manifest.json ]; then "$SOURCE/scripts/uninstall"; fi
find /usr /etc -xdev | sort > "$WORK/before"
"$SOURCE/scripts/install"
command -v red-dnf red-wrap red-conf
dnf --help | grep red-install
node=$WORK/node
dnf red-manager --redpath="$node" --create --alias=system --add-repo="$WORK/test.repo"
dnf red-install --redpath="$node" -y greeting
red-wrap --redpath="$node" -- greet
"$SOURCE/scripts/uninstall"
find /usr /etc -xdev | sort > "$WORK/after"
diff "$WORK/before" "$WORK/after"
echo same as before
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install for the system")
def test_system_installation_gives_plain_dnf_its_commands_and_is_fully_removed(
    source: Path, tmp_path: Path
) -> None:
    """In a mount namespace of its own, on overlays of /usr, /etc and /var: the host stays as is."""
    greet = RpmFile("#!/bin/sh\necho hello from the node\n", mode=0o755)
    build_rpm(tmp_path / "repo", "greeting", files={"/usr/bin/greet": greet})
    write_repo_file(tmp_path / "test.repo", "test", create_repository(tmp_path / "repo"))
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    # /tmp, since an upper layer in /var would overlap the lower one.
    done = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", SYSTEM_SCRIPT],
        env={**environ, "SOURCE": str(source), "WORK": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, describe(done)
    assert "red-install" in done.stdout
    assert "hello from the node\n" in done.stdout
    assert done.stdout.endswith("same as before\n")
