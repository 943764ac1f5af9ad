# SPDX-License-Identifier: Apache-2.0
"""The red- commands of dnf5: their alias file, and what is read of a command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

import pytest

from reddnf.launcher import DNF4, DNF5, arrange_arguments, choose_dnf
from reddnf5.arguments import NodeArguments
from reddnf5.commands import COMMANDS, NO_PLUGIN, alias_file
from redpak.errors import RedpakError

CHECKOUT = Path(__file__).resolve().parents[2]


def read(argv: list[str], **told: str) -> NodeArguments:
    def variable(name: str) -> Optional[str]:
        return told.get(name.replace("redpak_", "", 1))

    return NodeArguments.read(variable, ["dnf5", *argv])


def test_the_alias_file_is_that_of_the_table() -> None:
    shipped = (CHECKOUT / "dnf-plugins/dnf5/aliases.d/redpak.conf").read_text()
    assert shipped == alias_file(), "write it again: reddnf5.commands.alias_file()"


def test_no_alias_works_without_our_plugin() -> None:
    entries = re.split(r"\n(?=\[')", alias_file())
    acting = [entry for entry in entries if "type = 'group'" not in entry and "type =" in entry]
    assert len(acting) > 60
    for entry in acting:
        assert f'installroot\', value = "{NO_PLUGIN}"' in entry, entry
        assert re.search(r"'setvar', value = 'redpak_\w+=", entry), entry
    # ENOTDIR for everybody, root included.
    assert NO_PLUGIN.startswith("/dev/null/")


def test_names_are_unique() -> None:
    found = re.findall(r"^\['([^']+)'\]$", alias_file(), re.MULTILINE)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("argv", "name", "changes"),
    [
        (["red-install", "-y", "x"], "install", True),
        (["red-list", "--installed"], "list", False),
        (["red-group", "install", "kit"], "group", True),
        (["red-group", "list"], "group", False),
        (["red-group", "list", "install"], "group", False),
        (["-y", "red-history", "undo", "1"], "history", True),
        (["red-history", "list"], "history", False),
        (["rmc"], "makecache", False),
    ],
)
def test_who_changes_the_node(argv: list[str], name: str, changes: bool) -> None:
    assert read(argv, command=name).changes_node is changes


def test_options_come_from_variables_and_words_from_the_command_line() -> None:
    found = read(
        ["--redpath", "/n", "red-in", "--forcenode", "lib", "-y", "app"],
        command="install", redpath="/n", forcenode="1",
    )  # fmt: skip
    assert (found.redpath, found.forcenode, found.plan) == ("/n", True, False)
    assert found.words == ["lib", "app"]


def test_redpath_goes_with_a_red_command() -> None:
    with pytest.raises(RedpakError, match="go with the red- commands"):
        read(["install", "--redpath=/n", "x"], redpath="/n")


@pytest.mark.parametrize("option", ["--offline", "--transient", "--installroot=/x"])
def test_what_makes_no_sense_on_a_node_is_refused(option: str) -> None:
    with pytest.raises(RedpakError, match="not for nodes"):
        read(["red-install", option, "x"], command="install")


def test_the_variable_for_a_forgotten_command_is_in_the_table() -> None:
    assert {command.names[0] for command in COMMANDS} >= {"install", "remove", "search", "list"}


def test_the_launcher_chooses_the_dnf_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDPAK_DNF", raising=False)
    assert choose_dnf(["--dnf=5", "red-list"]) == (DNF5, ["red-list"])
    assert choose_dnf(["red-list", "--dnf=dnf4"]) == (DNF4, ["red-list"])
    monkeypatch.setenv("REDPAK_DNF", "dnf5")
    assert choose_dnf(["red-list"]) == (DNF5, ["red-list"])
    assert choose_dnf(["--dnf=4"]) == (DNF4, [])
    with pytest.raises(RedpakError, match="--dnf=6: no such dnf; write --dnf=4 or --dnf=5"):
        choose_dnf(["--dnf=6"])


def test_the_launcher_follows_what_the_system_calls_dnf(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REDPAK_DNF", raising=False)
    (tmp_path / "dnf5").write_text("")
    (tmp_path / "dnf5").chmod(0o755)
    (tmp_path / "dnf").symlink_to("dnf5")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_dnf([])[0] == DNF5


def test_options_that_dnf_would_misread_are_renamed() -> None:
    assert arrange_arguments(["red-manager", "--rp", "/n", "--enable", "x"]) == [
        "red-manager", "--repo-enable", "x", "--redpath=/n",
    ]  # fmt: skip
