# SPDX-License-Identifier: Apache-2.0
"""Every command line of README.md and docs/ is run; support/console.py has the rules."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.actors import Actor
from support.console import PageShell, Step, essence, missing_lines, read_steps, run_page
from support.mentions import Mention, commands_run, read_mentions

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


# Command lines in the text that no block of a page runs, and the file that does: a test, or what
# scripts/test runs for CI.
RUN_BY = {
    "scripts/demo": "tests/integration/test_demo.py",
    "scripts/demo --root": "tests/integration/test_demo.py",
    "scripts/uninstall": "tests/integration/test_install_script.py",
    "scripts/build-packages OUTDIR": "tests/integration/test_redpak_spec.py",
    "scripts/build-deb OUTDIR": "scripts/try-packages",  # by test_redpak_spec.py
    'scripts/prove --need=packages "scripts/try-packages rpm"': "scripts/test",  # with --dnf5
    'scripts/prove --suite=forky --need=packages5 "scripts/try-packages rpm --dnf5"':
        "scripts/test",
    "scripts/prove": "scripts/test",
    "scripts/bench": "tests/integration/test_bench.py",
    "scripts/generate-docs": "tests/integration/test_generated_docs.py",
    "make -C redwrap/launcher": "tests/support/wrapping.py",
    "python3 tests/bench/bench_launch.py": "tests/integration/test_bench.py",
    "pip install cyclonedx-python-lib spdx-tools": "tox.ini",
    "dnf5 red-install --help": "tests/integration/test_dnf5.py",
    "red-mark user": "tests/integration/test_dnf5.py",
    "rpm --redpath=DIR": "tests/integration/test_node_packages.py",
    "rpm -D '_redpath DIR' ...": "tests/integration/test_node_packages.py",
}
NOT_RUN = {
    "scripts/test": "it is what runs this test",
    "scripts/test -e unit -- -k merge": "it is what runs this test",
    "scripts/test --dnf5": "CI runs it beside this test",
    "man red-wrap": "test_generated_docs.py formats the pages; man itself is not needed",
    "man redpak.yaml": "test_generated_docs.py formats the pages; man itself is not needed",
    "systemd-run --user --scope -p Delegate=yes": "wants systemd as the machine's first process",
}


def mentions() -> list[tuple[Path, Mention]]:
    return [(page, found) for page in PAGES for found in read_mentions(page.read_text("utf-8"))]


def test_every_command_line_in_the_text_is_run_somewhere() -> None:
    run = commands_run(page.read_text("utf-8") for page in PAGES)
    unknown = [
        f"{page.name}:{mention.line}: {mention.text}" for page, mention in mentions()
        if mention.text not in (*RUN_BY, *NOT_RUN, *INSTALLED)
        and not any(mention.is_within(command) for command in run)
    ]
    assert not unknown, "no block runs these, with these options:\n" + "\n".join(unknown)


def test_what_another_file_runs_is_in_it_and_in_a_page() -> None:
    there = {mention.text for _, mention in mentions()}
    stale = [text for text in (*RUN_BY, *NOT_RUN, *INSTALLED) if text not in there]
    assert not stale, "no page has these any more:\n" + "\n".join(stale)
    for text, name in RUN_BY.items():
        file = (CHECKOUT / name).read_text("utf-8")
        words = [Path(word).name for word in re.findall(r"[\w./-]+", re.sub(r"=\S+", "", text))
                 if word != word.upper() and word not in ("pip", "python3", "dnf5")]
        assert all(word in file for word in words), f"{name} has no {words}"


# What README tells people to install.
INSTALLED = (
    "apt install dnf python3-dnf python3-rpm python3-yaml rpm bubblewrap make gcc libc6-dev",
)


def test_the_packages_to_install_are_those_that_the_demo_asks_for() -> None:
    """In a fresh root scripts/demo runs with exactly these (scripts/prove)."""
    listed = subprocess.run([str(CHECKOUT / "scripts/need"), "--list", "demo"],
                            capture_output=True, text=True, check=True).stdout.split()
    if not Path("/etc/debian_version").exists():
        pytest.skip("these are Debian's names")
    # The rest is for building the examples and for the demo's own steps.
    rest = {"createrepo-c", "curl", "gzip", "passwd", "python3", "tar", "util-linux"}
    assert {*INSTALLED[0].split()[2:], *rest} == set(listed)


@pytest.mark.parametrize(("text", "found"), [
    ("`red-check --redpath=NODE`", ["red-check --redpath=NODE"]),
    ("say `dnf red-install\n-y x`; `red-check` proves", ["dnf red-install -y x"]),
    ("`scripts/demo` and `dnf check`, `rpm -V`", ["scripts/demo"]),
    ("```\n`red-check --all`\n```\nthen `red-wrap -- x`", ["red-wrap -- x"]),
])
def test_command_lines_in_the_text_are_found(text: str, found: list[str]) -> None:
    assert [mention.text for mention in read_mentions(text)] == found


@pytest.mark.parametrize(("text", "command", "same"), [
    ("red-check --redpath=DIR --tree", "red-check --tree --redpath=/var/tmp/x --junit", True),
    ("red-check --redpath=DIR --tree", "red-check --redpath=/var/tmp/x", False),
    ("dnf red-install", "red-dnf red-install -y x", True),
    ("red-rpm -U", "red-rpm -e x", False),
    ("red-manager --rollback", "red-dnf red-manager --redpath=/x --recover", False),
])
def test_a_command_line_is_known_by_its_words(text: str, command: str, same: bool) -> None:
    assert Mention(1, text).is_within(command) is same


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
