# SPDX-License-Identifier: Apache-2.0
"""red-conf: look at nodes and their merged configuration, make nodes; without dnf."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from redpak import VERSION
from redpak.create import DEFAULT_TEMPLATE, create_node, update_node
from redpak.errors import ConfigError, RedpakError
from redpak.expand import Caller
from redpak.family import Main, find_ancestors, load_family, load_main, resolve_redpath
from redpak.findings import Finding, Severity
from redpak.merge import merge_family
from redpak.node import read_node
from redpak.plain import Data, config_data, effective_data, provenance_data
from redpak.streams import open_missing_streams
from redpak.terminal import look_of
from redpak.yamltext import to_yaml, without_notes

PROGRAM = "red-conf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run red-conf; the exit status is 1 for an error or a finding, 2 for wrong usage."""
    open_missing_streams()
    options = _parser().parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except RedpakError as error:
        for line in str(error).splitlines():
            print(f"{PROGRAM}: error: {line}", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _declare_create(commands: Any) -> None:
    create = _command(commands, "create", run_create, "make a directory a node")
    create.add_argument("--alias", help="the short name, unique in the family")
    create.add_argument("--template", metavar="NAME|FILE", help="what its configuration is "
                        f"written from (default: {DEFAULT_TEMPLATE})")
    create.add_argument("--template-admin", metavar="NAME|FILE",
                        help="what its administrative configuration is written from")
    create.add_argument("--name", help="the globally unique name (default: a new UUID)")
    create.add_argument("--info", help="what the node is, for people")
    create.add_argument("--update", action="store_true",
                        help="change a node that exists; its headers and state stay")
    create.add_argument("--force", action="store_true",
                        help="below ancestors that are not enabled or were moved, too")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Look at nodes and their merged configuration, make nodes.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}",
                        help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    _declare_create(commands)

    tree = _command(commands, "tree", run_tree, "show the nodes with their states")
    tree.add_argument("-v", "--verbose", action="store_true",
                      help="with the name, the place and the info of each node")
    tree.add_argument("--redroot", metavar="DIR", help="every node below this directory")

    _command(commands, "config", run_config, "show a node's own configuration")

    merged = _command(commands, "mergeconfig", run_mergeconfig,
                      "show the effective configuration, and where each value came from")
    merged.add_argument("--expand", action="store_true", help="with $NAME replaced")
    merged.add_argument("--provenance", action="store_true",
                        help="in --json and --yaml too: add a section `provenance`")
    merged.add_argument("--strict", action="store_true",
                        help="an attempt to loosen a constraint is an error")

    diff = _command(commands, "diff", run_diff, "show how two nodes' configurations differ")
    diff.add_argument("nodes", nargs=2, metavar="NODE", help="the directory of a node")
    diff.add_argument("--expand", action="store_true", help="with $NAME replaced")

    check = _command(commands, "validate", run_validate, "check configuration files and nodes")
    check.add_argument("paths", nargs="+", metavar="PATH",
                       help="a configuration file, or the directory of a node")
    check.add_argument("--strict", action="store_true", help="warnings count as errors")

    _command(commands, "schema", run_schema, "print the JSON Schema of configuration files")
    _add_complete(commands)
    return parser


def _add_complete(commands: Any) -> None:
    """For the shells' completion; without help it is not shown."""
    words = commands.add_parser("complete")
    words.set_defaults(run=run_complete)
    words.add_argument("kind")
    words.add_argument("--redpath", default="")
    words.add_argument("word", nargs="?", default="")


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    parser.add_argument("--redpath", "--rpath", "--rp", metavar="DIR",
                        help="the node (default: $REDPATH)")
    parser.add_argument("--rmain", metavar="FILE",
                        help="the core OS's configuration (default: $redpak_MAIN)")
    parser.add_argument("--admin", action="store_true",
                        help="with the administrative configuration")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what was asked for, "
                        "and errors: no warnings, no report of what was done")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--yaml", action="store_true", help="print YAML for programs")
    output.add_argument("--json", action="store_true", help="print JSON for programs")
    return parser


def _load_main(options: argparse.Namespace) -> Main:
    return load_main(options.rmain, os.environ, admin=options.admin)


def _print(options: argparse.Namespace, data: Any, text: str | None = None) -> None:
    """Print data as the options want it: JSON, YAML, or `text` for people."""
    if options.json:
        text = json.dumps(without_notes(data), indent=2, ensure_ascii=False)
        # A name of a file need not be text: Python's escape of a lone surrogate is JSON's too.
        print(text.encode(errors="backslashreplace").decode())
    elif options.yaml:
        sys.stdout.write(to_yaml(without_notes(data)))
    else:
        sys.stdout.write(to_yaml(data) if text is None else text)


def run_create(options: argparse.Namespace) -> int:
    """Make or update a node."""
    redpath = resolve_redpath(options.redpath, os.environ)
    main_config = _load_main(options)
    if options.update:
        node = update_node(redpath, main=main_config, template=options.template,
                           template_admin=options.template_admin, alias=options.alias,
                           name=options.name, info=options.info)
    elif not options.alias:
        raise RedpakError("a node needs an alias", hint="say --alias=NAME")
    else:
        node = create_node(redpath, alias=options.alias, main=main_config,
                           template=options.template or DEFAULT_TEMPLATE,
                           template_admin=options.template_admin, name=options.name,
                           info=options.info, force=options.force)
    done = "updated" if options.update else "created"
    _print(options, {"alias": node.alias, "name": node.name, "path": node.path},
           "" if options.quiet else f"{done} node {node.alias} at {node.path}\n")
    return 0


def run_tree(options: argparse.Namespace) -> int:
    """Show the tree below --redroot, else the whole tree that the node belongs to."""
    from redpak.show import draw_tree, read_tree
    root = options.redroot
    if root is None:
        redpath = os.path.realpath(resolve_redpath(options.redpath, os.environ))
        read_node(redpath)
        root = [redpath, *find_ancestors(redpath)][-1]
    entries = read_tree(root)
    _print(options, [entry.data() for entry in entries], draw_tree(
        entries, look_of(sys.stdout), verbose=options.verbose))
    return 0


def run_config(options: argparse.Namespace) -> int:
    """Show what a node's own file says."""
    node = read_node(os.path.realpath(resolve_redpath(options.redpath, os.environ)),
                     admin=options.admin)
    config = node.admin.config if options.admin and node.admin else node.config
    _print(options, config_data(config))
    return 0


def _effective(options: argparse.Namespace, redpath: str, *, strict: bool = False,
               provenance: bool = False) -> Data:
    family = load_family(redpath, main=_load_main(options), admin=options.admin, force=True)
    effective = merge_family(family, environ=os.environ, caller=Caller.current(), strict=strict)
    for warning in () if options.quiet else effective.warnings:
        print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)
    data = effective_data(family, effective, expanded=options.expand)
    return {**data, "provenance": provenance_data(effective)} if provenance else data


def run_mergeconfig(options: argparse.Namespace) -> int:
    """Show the effective configuration of a node's family."""
    redpath = resolve_redpath(options.redpath, os.environ)
    _print(options, _effective(options, redpath, strict=options.strict,
                               provenance=options.provenance))
    return 0


def run_diff(options: argparse.Namespace) -> int:
    """Show how the effective configurations of two nodes differ."""
    from redpak.show import differences, draw_differences
    first, second = (_effective(options, os.path.abspath(node)) for node in options.nodes)
    found = differences(first, second)
    _print(options, found, draw_differences(found, look_of(sys.stdout)))
    return 0


def run_validate(options: argparse.Namespace) -> int:
    """Check files and nodes; each finding is one line."""
    from redpak.show import draw_findings, finding_data, validate
    core: Main | None = None
    findings: list[Finding] = []
    if any(os.path.isdir(path) for path in options.paths):
        try:
            core = _load_main(options)
        except ConfigError as error:
            findings += error.findings
    for path in options.paths:
        findings += validate(path, main=core, environ=os.environ, caller=Caller.current())
    findings = list(dict.fromkeys(findings))
    _print(options, [finding_data(finding) for finding in findings],
           draw_findings(findings, look_of(sys.stdout)))
    return int(any(options.strict or finding.severity is Severity.ERROR for finding in findings))


def run_schema(options: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    from redpak.reference import json_schema, schema_text
    _print(options, json_schema(), schema_text())
    return 0


def run_complete(options: argparse.Namespace) -> int:
    """Print what a shell offers for a word, one a line."""
    from redpak.complete import complete
    try:
        found = complete(options.kind, options.word, redpath=options.redpath, environ=os.environ)
    except KeyError as error:
        raise RedpakError(f"cannot complete {error}") from error
    sys.stdout.writelines(f"{word}\n" for word in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
