# SPDX-License-Identifier: Apache-2.0
"""Options that red-manager keeps: written into files that people keep, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reddnf.repofiles import no_such_option, prepare_repository, save_options, set_enabled
from redpak.errors import RedpakError
from redpak.node import Node, read_node

REPO = """\
# mine
[one]
name=One
baseurl=file:///one
  file:///other
enabled = 1

[two]
baseurl=file:///two
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/yum.repos.d").mkdir(parents=True)
    (tmp_path / "etc/yum.repos.d/x.repo").write_text(REPO)
    (tmp_path / "etc/redpack.yaml").write_text("headers: {alias: n, name: n}\n")
    (tmp_path / ".rednode.yaml").write_text(
        f"state: Enable\nrealpath: {tmp_path}\ntimestamp: 1\n"
    )
    return read_node(str(tmp_path))


def repo_text(node: Node) -> str:
    return Path(node.repos_dir, "x.repo").read_text()


def test_an_option_is_changed_where_it_stands(node: Node) -> None:
    set_enabled(node, ["one"], enabled=False)
    assert repo_text(node) == REPO.replace("enabled = 1", "enabled=0")


def test_a_new_option_goes_behind_the_others_of_its_section(node: Node) -> None:
    save_options(node, {}, {"*": {"priority": "7"}}, lambda *_: None)
    text = repo_text(node)
    assert "enabled = 1\npriority=7\n" in text
    assert text.endswith("baseurl=file:///two\npriority=7\n")


def test_a_value_over_several_lines_is_replaced_as_a_whole(node: Node) -> None:
    save_options(node, {}, {"one": {"baseurl": "file:///new"}}, lambda *_: None)
    assert "name=One\nbaseurl=file:///new\nenabled = 1\n" in repo_text(node)


def test_options_of_dnf_itself_go_into_the_nodes_dnf_conf(node: Node) -> None:
    save_options(node, {"gpgcheck": "0"}, {}, lambda *_: None)
    save_options(node, {"gpgcheck": "1", "best": "1"}, {}, lambda *_: None)
    assert Path(node.path, "etc/dnf/dnf.conf").read_text() == "[main]\ngpgcheck=1\nbest=1\n"


def test_an_unknown_option_or_repository_changes_nothing(node: Node) -> None:
    def check(name: str, value: str, of_repository: bool) -> None:
        if value == "nope":
            raise no_such_option(name, of_repository)

    with pytest.raises(RedpakError, match="dnf has no option best"):
        save_options(node, {"best": "nope"}, {"one": {"priority": "1"}}, check)
    with pytest.raises(RedpakError, match="a repository has no option cost"):
        save_options(node, {"best": "1"}, {"one": {"cost": "nope"}}, check)
    with pytest.raises(RedpakError, match="no repository three in node n"):
        save_options(node, {"best": "1"}, {"three": {"priority": "1"}}, lambda *_: None)
    assert repo_text(node) == REPO
    assert not Path(node.path, "etc/dnf/dnf.conf").exists()


def test_a_directory_that_has_no_metadata_yet_is_known(tmp_path: Path) -> None:
    assert prepare_repository(str(tmp_path)).lacks_metadata
    (tmp_path / "repodata").mkdir()
    (tmp_path / "repodata/repomd.xml").touch()
    assert not prepare_repository(str(tmp_path)).lacks_metadata
    assert not prepare_repository("http://127.0.0.1:9/x").lacks_metadata


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x.repo", "x.repo: cannot read"),
        ("gopher://x/y.repo", "gopher://x/y.repo: cannot fetch: unknown kind"),
        ("gopher://x/y", "gopher://x/y: neither a URL"),
        ("http://x y/", "http://x y/: neither a URL"),
        ("rubbish", "rubbish: neither a URL"),
        ("", ": neither a URL"),
        ("/none", "/none: cannot be a repository: No such file or directory; name a directory"),
        ("./none", "./none: cannot be a repository: No such file"),
        ("file:///none", "file:///none: cannot be a repository: No such file"),
        ("file:///dev/null", "file:///dev/null: neither a directory nor a .repo file"),
        ("/dev/null", "/dev/null: neither a directory nor a .repo file"),
        ("file:///none%00", "file:///none%00: no path has a null byte"),
        ("file://none/none", "names another host; the URL of a directory is file:///"),
    ],
)
def test_what_is_no_repository_is_refused(source: str, message: str) -> None:
    with pytest.raises(RedpakError, match=re.escape(message)):
        prepare_repository(source)


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("http://127.0.0.1:9/down", "http://127.0.0.1:9/down"),
        ("{tmp}/r", "file://{tmp}/r"),
        ("file://{tmp}/r", "file://{tmp}/r"),
        ("file://localhost{tmp}/r", "file://localhost{tmp}/r"),
        ("file://{tmp}/a%20b", "file://{tmp}/a%20b"),
        ("{tmp}/a b", "file://{tmp}/a%20b"),
        ("./r", "file://{tmp}/r"),
        ("r", "file://{tmp}/r"),
        ("/none/$releasever/${basearch}", "file:///none/$releasever/${basearch}"),
        ("file:///none/$releasever", "file:///none/$releasever"),
    ],
)
def test_directories_and_urls_are_repositories(
    source: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("r", "a b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    content = prepare_repository(source.replace('{tmp}', str(tmp_path))).content.decode()
    assert f"\nbaseurl={url.replace('{tmp}', str(tmp_path))}\n" in content


@pytest.mark.parametrize(
    ("source", "name"), [("/", "repository"), ("http://main", "repository_main")]
)
def test_a_repository_always_has_an_id(source: str, name: str) -> None:
    repository = prepare_repository(source)
    assert repository.name == f"{name}.repo"
    assert repository.content.startswith(f"[{name}]\n".encode())
