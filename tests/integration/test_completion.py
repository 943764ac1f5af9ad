# SPDX-License-Identifier: Apache-2.0
"""The tabulator key in bash and zsh, pressed on real terminals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

from support.actors import Actor
from support.nodes import TestNode, make_node
from support.rpms import RpmFile, build_rpm, create_repository
from support.shells import InteractiveShell


@pytest.fixture(scope="module")
def repository(session_pool: Path) -> Path:
    directory = session_pool / "completion-repo"
    tool = {"/usr/bin/grab-it": RpmFile("#!/bin/sh\n", mode=0o755)}
    build_rpm(directory, "grabber", files=tool)
    build_rpm(directory, "greeting", files={"/usr/share/greeting": RpmFile("hi\n")})
    create_repository(directory)
    return directory


@pytest.fixture
def core(actor: Actor, pool: Path, repository: Path) -> TestNode:
    """A node with one package installed and another available, a child, and what is no node."""
    node = make_node(actor, pool / "deep/core", "the-core", repository)
    node.install("grabber")
    make_node(actor, pool / "deep/core/child", "the-child", repository)
    for name in ("plain", "deep/copper"):
        (pool / name).mkdir()
    return node


@pytest.fixture(params=["bash", "zsh"])
def shell(
    request: pytest.FixtureRequest, actor: Actor, prefix: Path, pool: Path
) -> Iterator[InteractiveShell]:
    share = prefix / "share"
    home = pool.parent / "home"
    environ = {"XDG_DATA_DIRS": str(share), "COMPLETIONS": str(share)}
    opened = InteractiveShell(request.param, actor, environ, home)
    yield opened
    opened.close()


def test_only_nodes_are_offered_for_redpath(
    shell: InteractiveShell, core: TestNode, pool: Path
) -> None:
    line, _ = shell.press_tab(f"red-wrap --redpath={pool}/")
    assert line == f"red-wrap --redpath={pool}/deep/"
    line, _ = shell.press_tab(f"red-wrap --redpath={pool}/deep/co")
    assert line == f"red-wrap --redpath={core.path} "
    line, _ = shell.press_tab(f"red-dnf red-install --redpath {core.path}/")
    assert line == f"red-dnf red-install --redpath {core.path}/child "
    line, _ = shell.press_tab(f"red-conf config --redpath={pool}/pl")
    assert line == f"red-conf config --redpath={pool}/pl"


def test_an_alias_stands_for_the_path_of_its_node(shell: InteractiveShell, core: TestNode) -> None:
    shell.run(f"export REDPATH={core.path}")
    line, _ = shell.press_tab("red-wrap --redpath=the-ch")
    assert line == f"red-wrap --redpath={core.path}/child "
    line, _ = shell.press_tab("red-dnf red-manager --update --alias=the-co")
    assert line == "red-dnf red-manager --update --alias=the-core "


def test_commands_and_options_are_completed(shell: InteractiveShell, core: TestNode) -> None:
    assert shell.press_tab("red-dnf red-mana")[0] == "red-dnf red-manager "
    assert shell.press_tab("red-conf mergeconfig --prov")[0] == "red-conf mergeconfig --provenance "
    assert shell.press_tab("red-wrap --dump-o")[0] == "red-wrap --dump-only "
    assert shell.press_tab("red-wrap --us")[0] == "red-wrap --user="
    line, shown = shell.press_tab("red-conf ")
    assert line == "red-conf " and "mergeconfig" in shown and "validate" in shown
    assert shell.press_tab("red-dnf red-install --allower")[0] == (
        "red-dnf red-install --allowerasing ")
    assert shell.press_tab("red-dnf red-manager --state=Dis")[0] == (
        "red-dnf red-manager --state=Disable ")


def test_packages_are_completed_as_the_command_takes_them(
    shell: InteractiveShell, core: TestNode
) -> None:
    node = f"--redpath={core.path}"
    assert shell.press_tab(f"red-dnf {node} red-install gree")[0].endswith(" greeting ")
    assert shell.press_tab(f"red-dnf red-remove {node} gr")[0].endswith(" grabber ")
    line, shown = shell.press_tab(f"red-dnf red-info {node} gr")
    assert line.endswith(" gr") and "grabber" in shown and "greeting" in shown


def test_package_files_are_completed_and_the_way_to_them(
    shell: InteractiveShell, core: TestNode, pool: Path
) -> None:
    (pool / "files").mkdir()
    for name in ("some.rpm", "some.txt"):
        (pool / "files" / name).write_text("")
    node = f"--redpath={core.path}"
    for command in (f"red-rpm {node} -U", f"red-dnf {node} red-install",
                    f"red-dnf red-manager {node}"):
        assert shell.press_tab(f"{command} {pool}/fil")[0] == f"{command} {pool}/files/"
        assert shell.press_tab(f"{command} {pool}/files/s")[0] == (
            f"{command} {pool}/files/some.rpm ")


def test_programs_of_the_node_are_completed_for_red_wrap(
    shell: InteractiveShell, core: TestNode
) -> None:
    assert shell.press_tab(f"red-wrap --redpath={core.path} -- grab")[0].endswith(" grab-it ")
    assert shell.press_tab(f"red-wrap --redpath={core.path}/child grab")[0].endswith(" grab-it ")


@pytest.fixture(params=["bash", "zsh"])
def plain_shell(
    request: pytest.FixtureRequest, actor: Actor, prefix: Path, pool: Path
) -> Iterator[InteractiveShell]:
    """A shell in which plain dnf and dnf5 are completed, by us and by the distribution."""
    share = prefix / "share"
    environ = {"XDG_DATA_DIRS": f"{share}:/usr/share", "COMPLETIONS": str(share)}
    opened = InteractiveShell(request.param, actor, environ, pool.parent / "home")
    if request.param == "bash":
        opened.run(f". {prefix}/etc/bash_completion.d/redpak")
    yield opened
    opened.close()


def test_plain_dnf_completes_our_commands(plain_shell: InteractiveShell, core: TestNode) -> None:
    shell = plain_shell
    node = f"--redpath={core.path}"
    for dnf in ("dnf", "dnf5"):
        assert shell.press_tab(f"{dnf} red-mana")[0] == f"{dnf} red-manager "
    assert shell.press_tab(f"dnf red-remove {node} gr")[0].endswith(" grabber ")
    assert shell.press_tab(f"dnf5 -q {node} red-install -y gree")[0].endswith(" greeting ")
    assert shell.press_tab(f"dnf --redpath={core.path}/ch")[0].endswith("/core/child ")
    line, shown = shell.press_tab("dnf5 -c /etc/dnf/dnf.conf red-re")
    assert line.endswith(" red-re") and "red-repolist" in shown and "red-remove" in shown
    assert shell.press_tab("dnf red-manager --state=Dis")[0].endswith("--state=Disable ")


def test_plain_dnf_completes_what_is_not_ours_as_it_did(
    plain_shell: InteractiveShell, core: TestNode, actor: Actor, pool: Path
) -> None:
    """A command that only looks like ours (the package red-something) is dnf's business too."""
    shell = plain_shell
    shell.run("cd $HOME")
    (pool.parent / "home/red-file.rpm").write_text("")
    assert shell.press_tab("dnf autorem")[0].rstrip() == "dnf autoremove"
    assert "grabber" not in shell.press_tab(f"dnf remove --redpath={core.path} gr")[1]
    assert shell.press_tab("dnf install ./red-fi")[0].rstrip() == "dnf install ./red-file.rpm"
    assert "red-manager" not in shell.press_tab("dnf -y install red")[1]
    assert shell.press_tab("dnf red-mana")[0] == "dnf red-manager "


def test_what_cannot_be_read_offers_nothing(actor: Actor, core: TestNode, pool: Path) -> None:
    for kind in ("nodes", "aliases", "installed", "available", "repos"):
        done = actor.run(["red-conf", "complete", f"--redpath={pool}/none", kind, "/none/x"])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = actor.run(["red-conf", "complete", "colours"])
    assert (done.returncode, done.stderr) == (1, "red-conf: error: cannot complete 'colours'\n")


def test_completion_makes_nothing_in_a_node(actor: Actor, core: TestNode) -> None:
    database = core.path / "var/lib/rpm"
    before = sorted(os.listdir(database))
    actor.check(["red-conf", "complete", f"--redpath={core.path}", "installed"])
    assert sorted(os.listdir(database)) == before
