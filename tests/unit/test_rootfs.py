# SPDX-License-Identifier: Apache-2.0
"""Where paths of packages lie in the view of a family, by red-check."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redcheck.rootfs import FamilyPaths


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "leaf", tmp_path / "parent"]
    for layer in found:
        layer.mkdir()
    return found


def place(layers: list[Path], path: str) -> str:
    return FamilyPaths([str(layer) for layer in layers]).directory(path)


def test_a_link_of_the_topmost_layer_leads(layers: list[Path]) -> None:
    leaf, parent = layers
    (leaf / "usr").mkdir()
    (parent / "usr/lib").mkdir(parents=True)
    (parent / "usr/lib64").symlink_to("lib")
    (parent / "lib").symlink_to("usr/lib")
    (parent / "abs").symlink_to("/usr/../usr/./lib64/x")
    assert place(layers, "/usr/lib64/a/b/") == "/usr/lib/a/b"
    assert place(layers, "/lib/a") == "/usr/lib/a"
    assert place(layers, "/abs/y") == "/usr/lib/x/y"
    assert place(layers, "/abs/../y") == "/usr/lib/y"
    assert place(layers, "/none/a") == "/none/a"
    assert place(layers, "/") == place(layers, "") == ""
    (leaf / "lib").mkdir()
    assert place(layers, "/lib/a") == "/lib/a"
    paths = FamilyPaths([str(layer) for layer in layers])
    assert [paths.directory(each) for each in ("/abs", "/abs/y", "/usr/lib64")] == [
        "/usr/lib/x", "/usr/lib/x/y", "/usr/lib"]
    assert paths.links == {"/abs": "/usr/lib/x", "/abs/y": "/usr/lib/x/y",
                           "/usr/lib64": "/usr/lib"}
    assert paths.agree({"/abs": "/usr/lib/x", "/usr": "/usr"})
    assert not paths.agree({"/usr": "/usr", "/abs": "/abs"})


def test_links_in_a_circle_end_somewhere(layers: list[Path]) -> None:
    leaf, _ = layers
    for name, target in (("self", "self"), ("below", "/below/x"), ("up", "../up/."), ("a", "b"),
                         ("b", "a/a")):
        (leaf / name).symlink_to(target)
        assert place(layers, f"/{name}/file").endswith("/file")


def test_links_that_multiply_cost_no_time(layers: list[Path]) -> None:
    leaf, _ = layers
    (leaf / "l0").mkdir()
    for number in range(1, 41):
        below = f"l{number - 1}"
        os.symlink("/../".join([below] * 5), leaf / f"l{number}")
    assert place(layers, "/l40/file").endswith("/file")
