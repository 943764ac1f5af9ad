# SPDX-License-Identifier: Apache-2.0
"""Runs the command lines of a page of docs/, and compares what they print.

Every fenced block ```console of README.md and docs/*.md is run, block after block of a page in one
bash, in an empty home directory, as an ordinary user and as root. The rules for whoever writes one:

- `$ COMMAND` is run by everybody, `# COMMAND` by root alone. A command goes on over lines that end
  in a backslash, and over a here-document. A command that ends in `&` starts a background job; the
  next one waits until the lines shown for it are there.
- `/var/tmp/pool` is where nodes are: an empty directory of the test's own. `/var/tmp/repos` has the
  repositories of examples/: platform.repo (agl-httpd, libaglhttp) and application.repo
  (helloworld).
- A command must end with status 0, or else `$ echo $?` must be the next one.
- The lines below a command must be among its output (stdout and stderr), in this order; more may
  stand between and around them. `...` stands for anything, in a line too. Widths of columns, times,
  dates, sizes, speeds, process numbers, ports, UUIDs and addresses need not be the same.
- `<!-- console: setup COMMAND -->` anywhere on the page is run there, unseen, and must succeed.
- `<!-- console: setup family -->` makes the nodes of the Quick Start: /var/tmp/pool/core, with the
  alias agl-core and agl-httpd in it, and /var/tmp/pool/core/demo, with agl-demo and helloworld.
- `<!-- console: run by tests/integration/FILE.py -->` before a block leaves it to that test, which
  must have the first words of its commands.
- In ```yaml blocks the entries `- red-...` and `- run: red-...`, of a job for CI, are run too.

Other blocks show no commands: a line `$ ...` in them is a mistake. A command line in the text
itself must be run somewhere: support/mentions.py.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.actors import Actor

POOL, REPOS = "/var/tmp/pool", "/var/tmp/repos"
_FAMILY = " && ".join(
    f"red-dnf red-manager --redpath={path} --create --alias={alias} --add-repo={REPOS}/{repo}.repo"
    f" && red-dnf red-install --redpath={path} -y {package}"
    for path, alias, repo, package in (
        (f"{POOL}/core", "agl-core", "platform", "agl-httpd"),
        (f"{POOL}/core/demo", "agl-demo", "application", "helloworld"),
    )
)


@dataclass
class Step:
    """One command of a page and the output that the page shows for it."""

    line: int
    command: str
    prompt: str = "$"
    shown: list[str] = field(default_factory=list)
    left_to: str = ""


def read_steps(page: str) -> Iterator[Step]:
    """The steps of a page. Raises ValueError for a block that breaks the rules."""
    lines = page.splitlines()
    left_to, at = "", 0
    while at < len(lines):
        line = lines[at]
        at += 1
        directive = re.fullmatch(r"<!-- console: (setup|run by) (.*) -->", line)
        if directive and directive[1] == "setup":
            command = _FAMILY if directive[2] == "family" else directive[2]
            yield Step(at, command, prompt="")
        elif directive:
            left_to = directive[2]
        elif line.startswith("```"):
            end = lines.index("```", at)
            if line == "```console":
                yield from _read_block(lines[at:end], at, left_to)
            elif line == "```yaml":
                yield from _read_job(lines[at:end], at)
            elif any(text.startswith("$ ") for text in lines[at:end]):
                raise ValueError(f"line {at}: commands stand in ```console blocks")
            left_to, at = "", end + 1


def _read_block(lines: Sequence[str], first: int, left_to: str) -> Iterator[Step]:
    step: Step | None = None
    until = ""  # the end of a here-document; "\\" while a line goes on
    for number, line in enumerate(lines, first + 1):
        if until and step:
            step.command += f"\n{line}"
            if (until == "\\" and not line.endswith("\\")) or line == until:
                until = ""
            continue
        if re.match(r"[$#] ", line):
            if step:
                yield step
            step = Step(number, line[2:], line[0], left_to=left_to)
            here = re.search(r"<<-? *['\"]?(\w+)", line)
            until = here[1] if here else "\\" if line.endswith("\\") else ""
        elif step is None:
            raise ValueError(f"line {number}: a block starts with a command")
        else:
            step.shown.append(line)
    if step:
        yield step


def _read_job(lines: Sequence[str], first: int) -> Iterator[Step]:
    for number, line in enumerate(lines, first + 1):
        entry = re.match(r"\s*- (?:run: )?(red-.*)", line)
        if entry:
            yield Step(number, entry[1])


# What need not be the same from one run to the next.
_VOLATILE = tuple((re.compile(pattern), text) for pattern, text in (
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} +\d+ [\d:]{8}( \w+)? \d{4}( \w+)?", "DATE"),
    (r"\b\d{4}-\d\d-\d\d\b", "DATE"),
    (r"\b\d{1,2}:\d\d(:\d\d)?\b", "TIME"),
    (r"\b[\d.]+ [kMG]?B/s", "SPEED"),
    (r"\b[\d.]+ ([kMG]i?B?|bytes)\b", "SIZE"),
    (r"\b0x[0-9a-f]+\b", "ADDRESS"),
    (r"\b[\d.]+ (µs|ms|s)\b", "DURATION"),
    (r"\b[3-6]\d{4}\b", "PORT"),
    (r"\b\d+ (library versions|programs)", r"NUMBER \1"),
    (r"\b\d{4,}\b", "NUMBER"),
    (r"[-+]\d+ bytes", "BYTES"),
    (r"={3,}|-{3,}", "RULE"),
    (r"\s+", " "),
))


def essence(line: str) -> str:
    """A line without what may differ."""
    for pattern, text in _VOLATILE:
        line = pattern.sub(text, line)
    return line.strip()


def missing_lines(shown: Sequence[str], printed: str) -> list[str]:
    """The shown lines that are not among the printed ones, in their order."""
    rest = [essence(line) for line in printed.splitlines()]
    missing = []
    for line in shown:
        # dnf says when it fetched metadata, or fetches them.
        if line.strip() in ("...", "") or line.startswith("Last metadata expiration check"):
            continue
        parts = [re.escape(part) for part in essence(line).split("...")]
        pattern = re.compile(r".*".join(parts))
        for at, candidate in enumerate(rest):
            if pattern.fullmatch(candidate):
                del rest[: at + 1]
                break
        else:
            missing.append(line)
    return missing


class PageShell:
    """One bash for all of a page."""

    def __init__(self, actor: Actor, *, pool: Path, repos: Path, home: Path) -> None:
        self._places = ((POOL, str(pool)), (REPOS, str(repos)))
        self._home = home
        self._count = 0
        told, tell = os.pipe()
        self._told = told
        self._bash = actor.popen(
            ["bash", "--norc", "--noprofile"], stdin=-1, cwd=str(home), pass_fds=(tell,),
            env={"HOME": str(home), "REDPAK_TELL": str(tell)},
        )
        os.close(tell)

    def run(self, step: Step, *, timeout: float = 150) -> tuple[int, str]:
        """Status and output of a step; of a background job what it printed until the lines shown
        were there."""
        self._count += 1
        output = self._home / f".output-{self._count}"
        command = self._here(step.command)
        assert self._bash.stdin
        # In the shell itself, so that cd and variables last; $? is the last command's.
        self._bash.stdin.write(
            f"(exit ${{redpak_status:-0}})\neval {_quote(command)} > {output} 2>&1 < /dev/null\n"
            f"redpak_status=$?\necho $redpak_status >&$REDPAK_TELL\n"
        )
        self._bash.stdin.flush()
        assert select.select([self._told], [], [], timeout)[0], f"no end of: {command}"
        status = int(os.read(self._told, 16) or b"255")
        end = time.monotonic() + 60
        while step.command.endswith("&") and time.monotonic() < end:
            if not missing_lines(step.shown, self._there(output.read_text())):
                break
            time.sleep(0.1)
        return status, self._there(output.read_text(errors="replace"))

    def close(self) -> None:
        """End the shell and its background jobs."""
        assert self._bash.stdin
        self._bash.stdin.write("kill $(jobs -p) 2> /dev/null; exit\n")
        self._bash.stdin.close()
        self._bash.wait(timeout=60)
        os.close(self._told)

    def _here(self, text: str) -> str:
        for general, own in self._places:
            text = re.sub(rf"{general}(?![\w.-])", own, text)
        return text

    def _there(self, text: str) -> str:
        for general, own in self._places:
            text = text.replace(own, general)
        return text.replace(str(self._home), "/home/user")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def run_page(page: str, shell: PageShell, *, is_root: bool) -> list[str]:
    """Run a page; what was wrong, one entry a command."""
    steps = [step for step in read_steps(page) if not step.left_to]
    steps = [step for step in steps if step.prompt != "#" or is_root]
    faults = []
    for step, after in zip(steps, [*steps[1:], None]):
        status, printed = shell.run(step)
        explained = after is not None and after.command == "echo $?"
        missing = missing_lines(step.shown, printed)
        if (status != 0 and not explained) or missing:
            faults.append(f"line {step.line}: {step.command}\nstatus {status}, missing: {missing}\n"
                          f"{printed}")
            if not step.prompt:
                break  # without its setup nothing else would work
    return faults
