# SPDX-License-Identifier: Apache-2.0
"""Every command line of README.md and docs/ is run; support/console.py has the rules."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor
from support.console import PageShell, Step, essence, missing_lines, read_steps, run_page

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted([CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md")])


@pytest.fixture(scope="session")
def repos(session_pool: Path, checkout: Path) -> Path:
    directory = session_pool / "repos"
    subprocess.run([str(checkout / "scripts/build-examples"), str(directory)], check=True)
    return directory


def steps_of(page: Path) -> list[Step]:
    return list(read_steps(page.read_text(encoding="utf-8")))


RUN_PAGES = [page for page in PAGES if any(not step.left_to for step in steps_of(page))]


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_do_what_the_page_shows(
    page: Path, actor: Actor, pool: Path, repos: Path
) -> None:
    shell = PageShell(actor, pool=pool, repos=repos, home=pool.parent / "home")
    try:
        faults = run_page(page.read_text(encoding="utf-8"), shell, is_root=actor.uid == 0)
    finally:
        shell.close()
    assert not faults, "\n\n".join(faults)


def test_what_is_left_to_another_test_is_in_it() -> None:
    left = [(page, step) for page in PAGES for step in steps_of(page) if step.left_to]
    wrong = []
    for page, step in left:
        file = CHECKOUT / step.left_to
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        # A test runs scripts by their names, wherever the page has them.
        words = [Path(word).name for word in step.command.split()
                 if not word.startswith(("-", "/", "$"))][:2]
        if not all(word in text for word in words):
            wrong.append(f"{page.name}:{step.line}: {step.left_to} has no {words}")
    assert not wrong, "\n".join(wrong)


def test_links_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert not broken, "\n".join(broken)


SAMPLE = """
<!-- console: setup export GREETING=hello -->

```console
$ echo $GREETING; echo "between"; echo world
hello
world
$ false
$ echo $?
1
$ cat <<EOF
two
lines
EOF
two
lines
$ echo one \\
    two
one two
$ ls /var/tmp/repos/platform.repo
/var/tmp/repos/platform.repo
# id -u
0
$ sleep 1 && echo ready &
ready
```
"""


def test_a_page_that_says_what_is_not_so_is_found(
    actor: Actor, pool: Path, repos: Path
) -> None:
    shell = PageShell(actor, pool=pool, repos=repos, home=pool.parent / "home")
    try:
        assert run_page(SAMPLE, shell, is_root=actor.uid == 0) == []
        wrong = SAMPLE.replace("\nworld\n", "\nworms\n").replace("$ echo $?\n1\n", "")
        faults = run_page(wrong, shell, is_root=False)
    finally:
        shell.close()
    assert [fault.splitlines()[0].split(": ")[1] for fault in faults] == [
        'echo $GREETING; echo "between"; echo world', "false"]


@pytest.mark.parametrize(("shown", "printed", "same"), [
    ("a  b", "a b", True),
    ("took 12 ms", "took 3.5 ms", True),
    ("agl-httpd 1.0.0", "agl-httpd 1.0.1", False),
    ("size 11 k", "size 12 k", True),
    ("a ... z", "a b c z", True),
    ("3 packages", "4 packages", False),
    ("http://127.0.0.1:44261/", "http://127.0.0.1:33333/", True),
])
def test_only_what_may_differ_may_differ(shown: str, printed: str, same: bool) -> None:
    assert (missing_lines([shown], printed) == []) is same, (essence(shown), essence(printed))


def test_commands_outside_console_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="line 2: commands stand in"):
        list(read_steps("\n```sh\n$ ls\n```\n"))
