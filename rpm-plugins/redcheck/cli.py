# SPDX-License-Identifier: Apache-2.0
"""The command line of red-check, which its front ends share.

`main()` is all of it for systems without dnf; dnf's plugin declares the same options on its own
parser and calls `run()`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial

from redcheck.engine import Options, Report, accept, check, locked_scope, stamp
from redcheck.findings import Finding
from redcheck.reports import as_text
from redcheck.scope import Request, Scope, find_top
from redpak.errors import TYPE_CHECKING, RedpakError
from redpak.files import write_output
from redpak.streams import open_missing_streams, print_all
from redpak.terminal import Look, Progress, look_of, printable
from redsys.owner import become_owner

if TYPE_CHECKING:
    from typing import Any

CANNOT_CHECK = 2  # exit status
_SELECTIONS = {
    "dependencies": "look for unmet dependencies and conflicts",
    "duplicates": "look for packages installed twice, and for shadowed ones",
    "obsoleted": "look for obsoleted packages",
    "provides": "look for packages that the rpmdb does not find by what they provide",
    "files": "look for missing, changed and unowned files, and for file conflicts",
    "signatures": "look for packages without a trusted signature",
    "configuration": "look for faults of configurations, exports and mounts",
}


_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--redroot", {"metavar": "DIR", "help": "check an image: DIR is its root directory, and"
                   " --redpath a path in it (default: all its nodes); nothing in it is changed"}),
    ("--core", {"action": "store_true",
                "help": "check the packages and files of the core OS too"}),
    ("--output", {"metavar": "FILE", "help": "write the report, or the bill, to FILE"}),
    ("--baseline", {"metavar": "FILE",
                    "help": "accept the findings of an earlier report (--json)"}),
    ("--against", {"metavar": "FILE", "help": "prove that the tree is exactly what a manifest of"
                   " red-manager --freeze says (implies --tree)"}),
    ("--sbom", {"choices": ("cyclonedx", "spdx"), "help": "check nothing, and write the software"
                " bill of materials instead"}),
    ("--no-cache", {"action": "store_true",
                    "help": "look at everything again, whatever earlier checks proved"}),
    ("--no-stamp", {"action": "store_true",
                    "help": "do not note in the nodes that they are proven (maxage)"}),
    ("--jobs", {"type": int, "default": 0, "metavar": "N",
                "help": "processes at work (default: one for each processor)"}),
    ("--all", {"action": "store_true", "help": "look for everything (the default)"}),
)
_REPORTS = {"json": "JSON (conf/red-check.schema.json)", "sarif": "SARIF 2.1.0",
            "junit": "JUnit XML"}


def add_options(parser: Any) -> None:
    """Declare the options that all front ends have, beside --redpath and --rmain."""
    width = parser.add_mutually_exclusive_group()
    width.add_argument("--family", action="store_true",
                       help="check the node's ancestors too (default: the node on its ancestors)")
    width.add_argument("--tree", action="store_true",
                       help="check every node at and below DIR, which need not be a node")
    for name, settings in _OPTIONS:
        parser.add_argument(name, **settings)
    for name, text in _SELECTIONS.items():
        parser.add_argument(f"--{name}", dest="selections", action="append_const", const=name,
                            help=f"only {text}")
    output = parser.add_mutually_exclusive_group()
    for name, text in _REPORTS.items():
        output.add_argument(f"--{name}", dest="report_format", action="store_const", const=name,
                            help=f"report as {text}")


def enter(options: Any) -> None:
    """Root who checks a user's nodes becomes that user first. Raises RedpakError."""
    top = find_top(_request(options), os.environ)
    become_owner(top, os.stat(top).st_uid)


def _request(options: Any) -> Request:
    wide = "tree" if options.tree or options.against else "family" if options.family else ""
    return Request(options.redpath, options.rmain, options.redroot, wide, core=options.core)


def run(options: Any) -> int:
    """Check what the parsed ``options`` ask for and print the report; the exit status.

    Raises RedpakError when nothing could be checked, BrokenPipeError.
    """
    try:
        return _run(options)
    except BrokenPipeError:
        raise
    except OSError as err:
        raise RedpakError(f"{err.filename}: {err.strerror}" if err.filename else str(err)) from err


def _run(options: Any) -> int:
    if options.jobs < 0:
        raise RedpakError(f"--jobs={options.jobs} is no number of processes",
                          hint="write 1 or more")
    known = _read_baseline(options.baseline) if options.baseline else frozenset()
    wanted = _read_manifest(options.against) if options.against else None
    groups = None if options.all else options.selections
    settings = Options(frozenset(groups) if groups else None, use_cache=not options.no_cache,
                       jobs=options.jobs)
    tell = _say_nothing if options.quiet else _tell
    with Progress(sys.stderr, quiet=options.quiet) as progress, locked_scope(
            _request(options), os.environ, tell) as scope:
        if options.sbom:
            _write(_bill(scope, options.sbom), options.output)
            return 0
        report = check(scope, settings, os.environ, progress.show)
        if wanted is not None:
            report.findings += wanted(report)
        accept(report, known)
        if not options.no_stamp:
            stamp(report, settings)
    if options.report_format:
        text = _format(report, options.report_format)
    else:
        text = as_text(report, Look() if options.output else look_of(sys.stdout),
                       quiet=options.quiet, verbose=options.verbose)
    _write(text, options.output)
    return report.status


# What a plain check does not need is loaded when it is asked for.


def _read_manifest(path: str) -> Callable[[Report], list[Finding]]:
    """What tells how a report's tree differs from the manifest ``path``. Raises RedpakError."""
    from redcheck.manifest import compare, read_manifest

    return partial(compare, wanted=read_manifest(path))


def _bill(scope: Scope, name: str) -> str:
    from redcheck.sbom import read_bill, write_bill

    return write_bill(read_bill(scope), name)


def _format(report: Report, name: str) -> str:
    from redcheck.formats import FORMATS

    return FORMATS[name](report)


def _write(text: str, path: str | None) -> None:
    """To the file ``path``, else to stdout. Raises RedpakError."""
    if not path:
        print_all(text)
    else:
        write_output(path, text.encode())


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr)


def _say_nothing(text: str) -> None:
    pass


def _read_baseline(path: str) -> frozenset[str]:
    """The fingerprints of a report's findings, those that it accepted itself included."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        found = [*document["findings"], *document.get("accepted", ())]
        return frozenset(str(finding["fingerprint"]) for finding in found)
    except OSError as err:
        raise RedpakError(f"{path}: cannot read the baseline: {err.strerror}") from err
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise RedpakError(f"{path}: not a report of red-check",
                          hint=f"make one with red-check --json --output={path}") from err


def main(arguments: Sequence[str] | None = None, *, program: str = "red-check") -> int:
    """Run red-check as a command of its own; ``program`` is its name in messages.

    Returns the exit status: 0 proven, 1 findings, 2 could not check.
    """
    parser = argparse.ArgumentParser(
        prog=program, description="Prove that a node, its family or a tree of nodes is coherent.",
        epilog="Exit status: 0 proven, 1 findings, 2 something could not be checked.")
    parser.add_argument("--redpath", "--rpath", "--rp", metavar="DIR",
                        help="the node (default: $REDPATH)")
    parser.add_argument("--rmain", metavar="FILE",
                        help="the core OS's configuration (default: $redpak_MAIN)")
    add_options(parser)
    # dnf has these two of its own.
    parser.add_argument("-q", "--quiet", action="store_true",
                        help="print findings and errors only: no progress, no summary")
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="print a line for each node, whatever was found")
    open_missing_streams()
    options = parser.parse_args(arguments)
    try:
        enter(options)
        return run(options)
    except RedpakError as error:
        for line in str(error).splitlines():
            print(f"{program}: error: {line}", file=sys.stderr)
    except BrokenPipeError:
        pass  # the reader of our output has seen enough
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return CANNOT_CHECK


if __name__ == "__main__":
    sys.exit(main())
