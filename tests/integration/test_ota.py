# SPDX-License-Identifier: Apache-2.0
"""Over-the-air updates on a family of three nodes; tests/campaign/ota.py interrupts them longer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from support.actors import Actor, describe
from support.interruption import Tools
from support.ota import OtaBench, OtaFamily, OtaPackages, build_packages
from support.trees import snapshot_tree

KILLS = 4


@pytest.fixture(scope="module")
def packages(session_pool: Path) -> OtaPackages:
    return build_packages(session_pool / "ota")


@pytest.fixture
def family(actor: Actor, pool: Path, packages: OtaPackages) -> OtaFamily:
    return OtaFamily.make(actor, pool, packages)


@pytest.fixture
def bundle(family: OtaFamily, pool: Path) -> Path:
    return family.update(pool / "bundle.tar")


def refuses(family: OtaFamily, bundle: Path, message: str) -> None:
    """Insist that a bundle is refused in one line and that nothing at all has changed."""
    def look() -> object:
        return snapshot_tree(family.nodes[0].path, without=("middle/.redpak",))
    before = look()
    done = family.run(family.middle, f"--ota={bundle}")
    assert done.returncode == 1 and message in done.stderr, describe(done)
    assert done.stderr.startswith("red-rpm: error: ") and done.stderr.count("\n") == 1
    assert look() == before, describe(done)


def test_a_round_trip(family: OtaFamily, bundle: Path, packages: OtaPackages) -> None:
    middle = family.middle
    before = middle.state()
    out = family.check(middle, f"--ota={bundle}")
    assert "applied, 2 packages installed, 1 erased." in out
    assert middle.packages() == ["app", "lib"]
    assert (middle.path / "usr/share/app/post").read_text() == "2\n"
    assert not (middle.path / "usr/share/tool/file").exists()
    assert family.check(family.nodes[2], "-Va", "--family") == ""
    applied = middle.state()
    assert "is already applied." in family.check(middle, f"--ota={bundle}")
    assert middle.state() == applied
    assert "was taken back." in family.check(middle, "--ota-rollback")
    assert {path: row for path, row in middle.state().items() if path.startswith("usr/")} == {
        path: row for path, row in before.items() if path.startswith("usr/")}
    assert middle.packages() == ["app", "tool"]
    done = family.run(middle, "--ota-rollback")
    assert done.returncode == 1 and "no bundle was applied" in done.stderr, describe(done)
    family.check(middle, f"--ota={bundle}")
    assert middle.packages() == ["app", "lib"]


def test_a_bundle_may_be_a_directory_and_made_of_packages(
    family: OtaFamily, pool: Path, packages: OtaPackages
) -> None:
    bundle = family.bundle(pool / "bundle", packages["more-1"], "--info=one more")
    family.check(family.middle, f"--ota={bundle}")
    assert family.middle.packages() == ["app", "more", "tool"]
    assert family.check(family.middle, "--ota-list").endswith(" one more\n")
    previous = family.bundle(pool / "again.tar", "--since=previous", packages.directory)
    assert "is already applied" in family.check(family.middle, f"--ota={previous}")


def test_what_was_applied_is_listed_for_people_and_programs(
    family: OtaFamily, bundle: Path, pool: Path, packages: OtaPackages
) -> None:
    middle = family.middle
    assert family.check(middle, "--ota-list") == ""
    assert json.loads(family.check(middle, "--ota-list", "--json")) == []
    start = json.loads(family.check(middle, "--ota-state"))["state"]
    family.check(middle, f"--ota={bundle}")
    second = family.bundle(pool / "second.tar", packages["more-1"], "--info=zwei \u2713")
    family.check(middle, f"--ota={second}")
    listed = json.loads(family.check(middle, "--json", "--ota-list"))
    assert [sorted(entry) for entry in listed] == [["applied", "from", "id", "info", "to"]] * 2
    assert [entry["from"] for entry in listed] == [start, listed[0]["to"]]
    assert listed[1]["to"] == json.loads(family.check(middle, "--ota-state"))["state"]
    assert [entry["info"] for entry in listed] == ["", "zwei \u2713"]
    assert family.check(middle, "--ota-list") == "".join(
        f"{entry['applied']} {entry['id'][:12]} {entry['info']}\n" for entry in listed)
    for words in (["--ota-rollback", "--json"], ["--ota-list", "--json", "x"],
                  ["--ota-list", "--json=x"]):
        done = family.run(middle, *words)
        assert done.returncode == 1 and "goes with nothing else" in done.stderr, describe(done)


def test_a_replayed_bundle_changes_nothing(
    family: OtaFamily, bundle: Path, pool: Path, packages: OtaPackages
) -> None:
    family.check(family.middle, f"--ota={bundle}")
    second = family.bundle(pool / "second.tar", packages["more-1"])
    family.check(family.middle, f"--ota={second}")
    state = family.middle.state()
    out = family.check(family.middle, f"--ota={bundle}")
    assert "is already applied, and the node was changed since." in out
    assert family.middle.state() == state
    family.check(family.middle, "--ota-rollback")
    assert family.middle.packages() == ["app", "lib"]


def test_a_bundle_fits_one_state_of_one_node(
    family: OtaFamily, bundle: Path, packages: OtaPackages
) -> None:
    done = family.run(family.nodes[2], f"--ota={bundle}")
    assert "for the node with alias middle, and this is leaf" in done.stderr, describe(done)
    family.check(family.middle, "-i", "--nosignature", packages["more-1"])
    refuses(family, bundle, "made for another state of node middle")


def test_only_after_a_bundle_can_it_be_taken_back(
    family: OtaFamily, bundle: Path, packages: OtaPackages
) -> None:
    family.check(family.middle, f"--ota={bundle}")
    family.check(family.middle, "-i", "--nosignature", packages["more-1"])
    done = family.run(family.middle, "--ota-rollback")
    assert done.returncode == 1 and "was changed since its last bundle" in done.stderr


def test_a_tampered_bundle_is_refused(
    family: OtaFamily, bundle: Path, pool: Path, packages: OtaPackages
) -> None:
    directory = pool / "open"
    with tarfile.open(bundle) as archive:
        archive.extractall(directory)
    directory.chmod(0o755)
    manifest = directory / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"erase": [', '"erase": ["app-1-1.noarch",', 1))
    refuses(family, directory, "BAD" if shutil.which("gpgv") else "")
    manifest.write_text(text)

    victim = directory / "packages/lib-1-1.noarch.rpm"
    content = victim.read_bytes()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refuses(family, directory, "lib-1-1.noarch.rpm is not what the manifest says")
    victim.write_bytes(content + b"\0")
    refuses(family, directory, "lib-1-1.noarch.rpm is not what the manifest says")
    victim.unlink()
    victim.symlink_to("/etc/hostname")
    refuses(family, directory, "Too many levels of symbolic links")
    victim.unlink()
    refuses(family, directory, "packages/lib-1-1.noarch.rpm is missing")
    victim.write_bytes(content)
    (directory / "packages/other.rpm").write_bytes(content)
    refuses(family, directory, "'packages/other.rpm' is not in its manifest")
    (directory / "packages/other.rpm").unlink()
    (directory / "manifest.json.sig").unlink()
    refuses(family, directory, "manifest.json.sig: No such file or directory")

    sign(packages.stranger.home, "stranger", manifest)
    refuses(family, directory, "")
    (directory / "manifest.json.sig").unlink()
    sign(packages.key.home, "maker", manifest)
    family.check(family.middle, f"--ota={directory}")


def test_a_bundle_that_cannot_be_made_is_one_clear_line(family: OtaFamily, pool: Path) -> None:
    package, empty = family.packages["more-1"], pool / "empty"
    empty.mkdir()
    for target, words, message in (
        ("b.tgz", [package], "b.tgz: bundles are not compressed, packages are; name a directory"),
        ("b.tar.zst", [package], "b.tar.zst: bundles are not compressed"),
        ("b.tar", [empty], f"{empty}: a directory without packages"),
        ("none/b.tar", [package], "b.tar: cannot make the bundle: No such file or directory"),
    ):
        family.middle.fails("red-manager", f"--bundle={pool}/{target}", "--sign-key=maker", *words,
                            message=message)
        assert not (pool / target).exists()


def sign(home: Path, name: str, manifest: Path) -> None:
    command = ["gpg", "--batch", "--homedir", str(home), "--local-user", name, "--detach-sign",
               "--output", f"{manifest}.sig", str(manifest)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    os.chmod(f"{manifest}.sig", 0o644)


def test_a_hostile_archive_is_refused(family: OtaFamily, bundle: Path, pool: Path) -> None:
    hostile = pool / "hostile.tar"
    for evil, message in (
        ("../evil", "is not in its manifest"),
        ("/var/tmp/evil", "is not in its manifest"),
        ("link", "neither a file nor a directory"),
        ("device", "neither a file nor a directory"),
        ("pax", "neither a file nor a directory"),
        ("gzip", "not an uncompressed tar archive"),
    ):
        write_hostile(bundle, hostile, evil)
        refuses(family, hostile, message)
        assert not Path("/var/tmp/evil").exists() and not (pool / "evil").exists()
    hostile.write_bytes(with_size(bundle.read_bytes(), b"-0000000001\0"))  # "read to the end"
    refuses(family, hostile, "not an uncompressed tar archive, or damaged")
    hostile.write_bytes(bundle.read_bytes()[:-9000])
    refuses(family, hostile, "cut short" if len(bundle.read_bytes()) % 512 else "")


def with_size(archive: bytes, size: bytes) -> bytes:
    """The archive with another size of its first member, in a header whose checksum is right."""
    header = archive[:124] + size + archive[136:512]
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:] + archive[512:]


def write_hostile(bundle: Path, target: Path, evil: str) -> None:
    """A bundle with one member more, after the signature."""
    form = tarfile.PAX_FORMAT if evil == "pax" else tarfile.USTAR_FORMAT
    extra = tarfile.TarInfo(evil)
    if evil == "link":
        extra.type, extra.linkname = tarfile.SYMTYPE, "/etc"
    elif evil == "device":
        extra.type = tarfile.BLKTYPE
    elif evil == "pax":
        extra.pax_headers = {"comment": "x" * 5000}
    mode = "w:gz" if evil == "gzip" else "w"
    with tarfile.open(bundle) as good, tarfile.open(target, mode, format=form) as archive:
        for number, info in enumerate(good.getmembers()):
            if number == 2:
                archive.addfile(extra)
            archive.addfile(info, good.extractfile(info))


def test_an_update_that_breaks_a_child_is_refused(
    family: OtaFamily, pool: Path, packages: OtaPackages
) -> None:
    before = family.middle.path.parent / "saved"
    state = pool / "state.json"
    state.write_text(family.check(family.middle, "--ota-state"))
    subprocess.run(["cp", "-a", family.middle.path, before], check=True)
    family.check(family.middle, "-e", "--node-force", "app")
    bundle = family.bundle(pool / "bundle.tar", f"--since={state}")
    family.restore(before)
    subprocess.run(["rm", "-rf", before], check=True)
    refuses(family, bundle, "it would break node leaf")


def test_a_bundle_needs_a_key_of_the_family(actor: Actor, pool: Path, family: OtaFamily,
                                            bundle: Path) -> None:
    labels = family.check(family.nodes[0], "-q", "gpg-pubkey").split()
    family.check(family.nodes[0], "-e", *labels)
    refuses(family, bundle, "trusts no key; import the maker's key with red-rpm --import")


def test_wrong_use_is_one_clear_line(family: OtaFamily, pool: Path, packages: OtaPackages) -> None:
    for words, message in (
        ([f"--bundle={pool}/x.tar"], "--bundle needs --sign-key"),
        ([f"--bundle={pool}/x.tar", "--sign-key=maker"], "needs packages or --since"),
        ([f"--bundle={pool}/x", "--sign-key=maker", "--since=previous"], "name its file"),
        ([f"--bundle={pool}/x", "--sign-key=maker", "--since=/nonexistent"], "--ota-state"),
        ([f"--bundle={pool}/x", "--sign-key=nobody", packages["more-1"]], "could not sign"),
        ([f"--bundle={pool}/x", "--sign-key=maker", packages["app-2"]], "lib is needed by app"),
        ([f"--bundle={pool}", "--sign-key=maker", packages["more-1"]], "exists"),
        (["--since=previous"], "--since goes with --bundle"),
    ):
        family.middle.fails("red-manager", *words, message=message)
    for bundle, message in ((pool / "nonexistent", "No such file"),
                            (family.nodes[0].path, "manifest.json"),
                            (packages["more-1"], "not an uncompressed tar archive")):
        refuses(family, bundle, message)


@pytest.mark.parametrize("tar", [True, False], ids=["tar", "directory"])
def test_an_interrupted_update_is_completed_by_the_next_attempt(
    family: OtaFamily, pool: Path, session_pool: Path, prefix: Path, tar: bool
) -> None:
    tools = Tools.copy(session_pool / "tools", prefix)
    bench = OtaBench(family, pool, tools, tar=tar)
    generator = random.Random(f"{family.middle.actor.kind} {tar}")
    for _ in range(KILLS):
        bench.interrupt(generator)


def test_what_was_unpacked_before_is_not_unpacked_again(family: OtaFamily, bundle: Path) -> None:
    """A download directory that is half there is resumed, and what is wrong in it is replaced."""
    with tarfile.open(bundle) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        text = manifest.read()
        name = json.loads(text)["install"][0]["file"]
    state = family.middle.path / ".redpak" / f"bundle.{hashlib.sha256(text).hexdigest()[:16]}"
    state.mkdir()
    (state / name).write_text("wrong\n")
    (state / "lib-1-1.noarch.rpm.part").write_text("half\n")
    os.chown(state, family.middle.actor.uid, family.middle.actor.gid)
    for path in state.iterdir():
        os.chown(path, family.middle.actor.uid, family.middle.actor.gid)
    family.check(family.middle, f"--ota={bundle}")
    assert family.middle.packages() == ["app", "lib"] and not state.exists()
