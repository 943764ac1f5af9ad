# SPDX-License-Identifier: Apache-2.0
"""Manual pages and option tables are those of the commands as they are now, and well formed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from reddocs.commands import CHECKOUT, command_names, options_of, pages
from reddocs.helptext import parse_help
from support.actors import describe

MANUAL_PAGES = sorted(CHECKOUT.glob("share/man/man*/*"))


def test_everything_generated_is_current(checkout: Path) -> None:
    done = subprocess.run(
        [str(checkout / "scripts/generate-docs"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, describe(done)


def test_every_command_has_a_manual_page() -> None:
    names = {path.name for path in MANUAL_PAGES}
    assert {f"{name}.1" for name in command_names()} | {"redpak.yaml.5"} <= names
    assert names == {f"{page.name}.{page.section}" for page in pages()}


@pytest.mark.parametrize("path", MANUAL_PAGES, ids=lambda path: path.name)
def test_manual_pages_are_well_formed(path: Path) -> None:
    lint = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", str(path)], capture_output=True, text=True
    )
    assert (lint.stdout, lint.returncode) == ("", 0), describe(lint)
    shown = subprocess.run(["mandoc", "-Tutf8", str(path)], capture_output=True, text=True)
    text = re.sub(r".\x08", "", shown.stdout)
    assert re.search(r"^NAME\n +\S+ .{1,3}\S+", text, re.MULTILINE), text[:500]
    assert "`" not in text and "**" not in text and "](" not in text


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_manual_pages_show_every_option(page: object) -> None:
    path = CHECKOUT / f"share/man/man{page.section}/{page.name}.{page.section}"  # type: ignore[attr-defined]
    text = path.read_text(encoding="utf-8").replace("\\-", "-")
    for words in page.commands:  # type: ignore[attr-defined]
        for option in options_of(words):
            for name in option.names:
                assert f"\\fB{name}\\fR" in text, f"{page}: {name}"
                assert option.help


def test_help_that_is_no_help_is_noticed() -> None:
    with pytest.raises(ValueError, match="no usage"):
        parse_help("Traceback (most recent call last):\n")


def test_help_is_read_whatever_its_layout() -> None:
    found = parse_help(
        "usage: x [OPTION...]\n       FILE\n\nDo it.\n\noptions:\n"
        "  -h, --help            show this\n"
        "  --state {On,Off}, --st {On,Off}\n                        how it\n"
        "                        stands\n"
        "  --path=DIR\n        where\n  --like a,b  how\n\nExit status: 0.\n"
    )
    assert (found.usage, found.about, found.after) == (
        "x [OPTION...] FILE", "Do it.", "Exit status: 0.")
    assert [(one.names, one.value, one.help, one.choices) for one in found.options] == [
        (("-h", "--help"), "", "show this", ()),
        (("--state", "--st"), "{On,Off}", "how it stands", ("On", "Off")),
        (("--path",), "DIR", "where", ()),
        (("--like",), "a,b", "how", ()),
    ]
