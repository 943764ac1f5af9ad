# SPDX-License-Identifier: Apache-2.0
"""red-manager --freeze and --thaw, red-check --against."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from redcheck.manifest import read_manifest
from redpak.errors import RedpakError
from support.actors import Actor, describe
from support.nodes import TestNode, make_node
from support.rpms import RpmFile, build_rpm, create_repository
from support.signing import make_key

NO_TEXT = b"/etc/caf\xe9\n"  # a name of a file need not be UTF-8, nor fit one line


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "freeze-repository"
    build_rpm(directory, "base", files={"/usr/bin/base": RpmFile("base\n", 0o755),
                                        "/etc/base.conf": RpmFile("a=1\n", directive="%config")})
    build_rpm(directory, "app", version="1", requires=["library"], files={"/usr/share/app": "1\n"})
    build_rpm(directory, "app", version="2", requires=["library"], files={"/usr/share/app": "2\n"})
    build_rpm(directory, "library", files={"/usr/share/library": "data\n"})
    return create_repository(directory)


@pytest.fixture
def tree(actor: Actor, pool: Path, repository: Path) -> TestNode:
    """A parent with two children, one of them with an older package, own files and settings."""
    parent = make_node(actor, pool / "parent", "parent", repository)
    parent.install("base")
    child = make_node(actor, parent.path / "some/where/child", "child", repository)
    child.install("app-1-1")
    make_node(actor, parent.path / "empty", "empty", repository)
    for path, text in (("etc/base.conf", "a=2\n"), ("etc/dnf/vars/place", "here\n")):
        actor.check(["sh", "-c", f"printf '{text}' > {parent.path / path}"])
    actor.check(["ln", "-s", "base", str(parent.path / "usr/bin/alias")])
    actor.check(["touch", os.fsdecode(os.fsencode(parent.path) + NO_TEXT)])
    return parent


def manager(actor: Actor, path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return actor.run(["red-dnf", "red-manager", f"--redpath={path}", *words])


def freeze(actor: Actor, path: Path, file: Path) -> str:
    done = manager(actor, path, f"--freeze={file}")
    assert done.returncode == 0, describe(done)
    return file.read_text()


def against(actor: Actor, path: Path, file: Path, status: int) -> list[tuple[str, str]]:
    done = actor.run(["red-check", f"--redpath={path}", f"--against={file}", "--json"])
    assert done.returncode == status, describe(done)
    found = json.loads(done.stdout)["findings"]
    return [(each["alias"], each["message"]) for each in found if each["rule"] == "differs"]


def test_freeze_thaw_freeze_is_identical(tree: TestNode, pool: Path) -> None:
    actor = tree.actor
    first = freeze(actor, tree.path, pool / "first.json")
    assert freeze(actor, tree.path, pool / "again.json") == first
    copy = pool / "copy"
    done = manager(actor, copy, f"--thaw={pool}/first.json")
    assert done.returncode == 0, describe(done)
    assert freeze(actor, copy, pool / "second.json") == first
    assert (copy / "etc/base.conf").read_text() == "a=2\n"
    assert os.path.exists(os.fsencode(copy) + NO_TEXT)
    assert (copy / "usr/bin/alias").readlink() == Path("base")
    assert (copy / "some/where/child/usr/share/app").read_text() == "1\n"
    reasons = {row["name"]: row.get("reason") for node in json.loads(first)["nodes"]
               for row in node["packages"]}
    assert reasons == {"base": None, "app": None, "library": "dependency"}
    # The link of no package, frozen with the rest, is a finding still.
    assert against(actor, copy, pool / "first.json", 1) == []
    again = manager(actor, copy, f"--thaw={pool}/first.json")
    assert again.returncode == 0 and "Thawing" not in again.stderr, describe(again)


def test_against_tells_every_difference(tree: TestNode, pool: Path, repository: Path) -> None:
    actor, file = tree.actor, pool / "manifest.json"
    freeze(actor, tree.path, file)
    child = TestNode(actor, tree.path / "some/where/child")
    child.dnf("red-upgrade", "-y", "app")
    shutil.rmtree(tree.path / "empty")
    make_node(actor, tree.path / "new", "new", repository)
    (tree.path / "etc/dnf/vars/place").write_text("there\n")
    with (tree.path / "etc/redpack.yaml").open("a") as stream:
        stream.write("# changed\n")
    (tree.path / "usr/bin/alias").unlink()
    found = against(actor, tree.path, file, 1)
    assert sorted(found) == sorted([
        ("redmain", "the manifest's node empty (empty) is missing"),
        ("new", "the manifest has no such node"),
        ("parent", "/etc/dnf/vars/place is another file than the manifest's"),
        ("parent", "/etc/redpack.yaml is another file than the manifest's"),
        ("parent", "/usr/bin/alias is missing"),
        ("child", "app-1-1.noarch is not installed"),
        ("child", "app-2-1.noarch is not in the manifest"),
    ])


def test_a_package_rebuilt_under_its_name_is_noticed(tree: TestNode, pool: Path,
                                                     repository: Path, tmp_path: Path) -> None:
    """The digests decide, not the name: neither proof nor thaw accepts another build."""
    actor, file = tree.actor, pool / "manifest.json"
    freeze(actor, tree.path, file)
    other = pool / "other"
    shutil.copytree(repository, other)
    for index in (other / "repodata").iterdir():
        index.unlink()
    (other / "base-1.0-1.noarch.rpm").unlink()
    build_rpm(other, "base", files={"/usr/bin/base": RpmFile("evil\n", 0o755)})
    create_repository(other)
    file.write_text(file.read_text().replace(str(repository), str(other)))
    data = json.loads(file.read_text())
    for node in data["nodes"]:
        for entry in node["files"].values():
            if "text" in entry:
                entry["sha256"] = hashlib.sha256(entry["text"].encode()).hexdigest()
    file.write_text(json.dumps(data))
    done = manager(actor, pool / "copy", f"--thaw={file}")
    assert done.returncode == 1, describe(done)
    assert ("node parent (.) did not become what the manifest says: base-1.0-1.noarch is another"
            " build than the manifest's" in done.stderr), describe(done)
    assert not (pool / "copy").exists()


def test_keys_are_part_of_a_tree(actor: Actor, pool: Path, session_pool: Path,
                                 tmp_path_factory: pytest.TempPathFactory) -> None:
    key = make_key(tmp_path_factory.mktemp("k"), "freezer")
    directory = pool.parent / "signed"
    key.sign(build_rpm(directory, "signed", files={"/usr/share/signed": "x\n"}))
    create_repository(directory)
    public = directory / "key.asc"
    shutil.copyfile(key.public, public)
    node = make_node(actor, pool / "node", "node", directory)
    (repo,) = (path.stem for path in (node.path / "etc/yum.repos.d").glob("*.repo"))
    node.dnf("red-manager", "--save", f"--setopt={repo}.gpgcheck=1",
             f"--setopt={repo}.gpgkey=file://{public}", "--setopt=gpgcheck=1")
    node.install("signed")
    first = freeze(actor, node.path, pool / "first.json")
    assert len(json.loads(first)["nodes"][0]["keys"]) == 1
    done = manager(actor, pool / "copy", f"--thaw={pool}/first.json")
    assert done.returncode == 0, describe(done)
    assert freeze(actor, pool / "copy", pool / "second.json") == first


@pytest.mark.parametrize("text, message", [
    ("", "not a manifest"),
    ('{"version": 2}', "not a manifest: version 2 is not known"),
    ('{"version": 1, "nodes": [{"path": "../x"}]}', "'../x' is not the path of a node"),
    ('{"version": 1, "nodes": [{"path": "/x"}]}', "'/x' is not the path of a node"),
    ('{"version": 1, "nodes": [{"path": ".", "files": {"../e": {"link": "x"}}}]}',
     "'../e' is not the path of a node"),
])
def test_a_bad_manifest_is_refused(actor: Actor, pool: Path, text: str, message: str) -> None:
    file = pool / "bad.json"
    file.write_text(text)
    done = manager(actor, pool / "copy", f"--thaw={file}")
    assert done.returncode == 1 and message in done.stderr, describe(done)
    assert "Traceback" not in done.stderr and not (pool / "copy").exists()


def test_every_fault_of_a_manifest_is_told_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    entry = {"text": "x", "sha256": hashlib.sha256(b"x").hexdigest(), "mode": "0644"}
    package = {"name": "p", "nevra": "p-1-1.noarch", "digest": ""}
    node = {"path": ".", "alias": "a", "name": "n", "state": "Enable", "keys": [],
            "files": {"etc/x": entry}, "packages": [package]}
    for wrong, message in (
            ({"alias": 5}, "alias is 5, not text"), ({"state": "Odd"}, "'Odd' is not a valid"),
            ({"keys": ["?"]}, ""), ({"files": []}, ""), ({"packages": [{}]}, "'name' is missing"),
            ({"files": {"etc/x": {"link": 5}}}, "link is 5, not text"),
            ({"files": {"etc/x": {**entry, "mode": "x"}}}, ""),
            ({"files": {"etc/x": {**entry, "sha256": ""}}}, "does not have its digest"),
            ({"packages": [{**package, "nevra": "--root=/"}]}, "'--root=/' is not a package"),
            ({"path": "child", "name": None}, "name is None, not text")):
        file.write_text(json.dumps({"version": 1, "nodes": [node, {**node, **wrong}]}))
        with pytest.raises(RedpakError, match=f"{file}: not a manifest: ") as told:
            read_manifest(str(file))
        assert message in told.value.message
    for text in ("[" * 100_000, '{"version": 1, "nodes": [], "core": {"packages": 5}}'):
        file.write_text(text)
        with pytest.raises(RedpakError, match=f"{file}: not a manifest: "):
            read_manifest(str(file))
    file.write_text(json.dumps({"version": 1, "nodes": [node]}))
    assert json.loads(read_manifest(str(file)).text())["nodes"] == [node]


def test_an_unsound_tree_is_not_frozen(tree: TestNode, pool: Path) -> None:
    (tree.path / "usr/bin/base").unlink()
    done = manager(tree.actor, tree.path, f"--freeze={pool}/x.json")
    assert done.returncode == 1, describe(done)
    assert "the tree is not sound: /usr/bin/base is missing" in done.stderr
    assert not (pool / "x.json").exists()


def test_thaw_stays_out_of_what_is_there(tree: TestNode, pool: Path) -> None:
    actor, file = tree.actor, pool / "manifest.json"
    freeze(actor, tree.path, file)
    (pool / "copy").mkdir()
    (pool / "copy/mine").write_text("precious")
    done = manager(actor, pool / "copy", f"--thaw={file}")
    assert done.returncode == 1 and "is in the way" in done.stderr, describe(done)
    assert (pool / "copy/mine").read_text() == "precious"
