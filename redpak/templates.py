# SPDX-License-Identifier: Apache-2.0
"""Templates: what a new node's configuration is written from."""

from __future__ import annotations

import os
from collections.abc import Mapping

from redpak.errors import ConfigError, RedpakError
from redpak.family import Main
from redpak.findings import Finding, Origin, Severity, did_you_mean
from redpak.load import FileKind, load_text
from redpak.node import Node
from redpak.schema import Headers, NodeConfig
from redpak.values import dataclass
from redpak.yamltext import quote
from redpak.yamltree import Mapping as TreeMapping
from redpak.yamltree import parse_tree, read_text


@dataclass(frozen=True)
class Template:
    """A template: its file, its text and what that says. Its headers hold at most `info`."""

    file: str
    text: str
    config: NodeConfig


def find_template(template: str, *, main: Main, environ: Mapping[str, str],
                  admin: bool = False) -> str:
    """The file of a template, by name (in $redpak_TMPL or beside main.yaml) or by path.

    The administrative flavour of NAME is NAME-admin. Raises RedpakError when there is none.
    """
    if "/" in template:
        if not os.path.exists(template):
            raise RedpakError(f"template {template} does not exist", hint="check the path")
        return os.path.abspath(template)
    directory = environ.get("redpak_TMPL") or main.templates_dir
    name = f"{template}-admin" if admin else template
    file = f"{directory}/{name}.yaml"
    if os.path.exists(file):
        return file
    raise RedpakError(f"unknown template {name}, not in {directory}",
                      hint=did_you_mean(name, list_templates(directory, admin=admin),
                                        noun="templates"))


def list_templates(directory: str, *, admin: bool) -> list[str]:
    """The names of the templates in a directory, of one flavour."""
    try:
        names = [name[:-5] for name in os.listdir(directory) if name.endswith(".yaml")]
    except OSError:
        return []
    return sorted(name for name in names if name.endswith("-admin") == admin)


def read_template(file: str) -> Template:
    """Read and check a template. Raises RedpakError and ConfigError."""
    data = read_text(file)
    return _make_template(file, data, load_text(data, file, kind=FileKind.TEMPLATE))


def template_of(node: Node) -> Template:
    """A node's configuration, to be written again under other headers."""
    return _make_template(node.config_file, read_text(node.config_file), node.config)


def _make_template(file: str, data: bytes, config: NodeConfig) -> Template:
    tree = parse_tree(data, file)
    fault = ""
    if isinstance(tree, TreeMapping):
        if tree.flow:
            fault = "a template must not be one {...}, headers are put in front of it"
        elif tree.column > 1:
            fault = "a template must not be indented, headers are put in front of it"
    if fault:
        assert tree is not None
        raise ConfigError([Finding(Severity.ERROR, fault,
                                   Origin(file, tree.line, tree.column, ""),
                                   hint="write its sections as lines that no space starts")])
    return Template(file, _without_headers(data.decode("utf-8-sig"), tree), config)


def _without_headers(text: str, tree: object) -> str:
    # YAML 1.1 has line breaks that str.split("\n") does not know (5.4); the others that
    # splitlines() knows are control characters, which the parser refuses.
    lines = text.splitlines(keepends=True)
    first = len(lines)
    if isinstance(tree, TreeMapping) and tree.items:
        starts = [name.line for name, _ in tree.items] + [len(lines) + 1]
        first = starts[0] - 1
        for (name, _), following in zip(tree.items, starts[1:]):
            if name.text.lower() == "headers":
                del lines[name.line - 1:following - 1]
                break
    # Of what is above the first section comments stay; directives and "---" can only be first.
    above = [line for line in lines[:first] if line.lstrip().startswith("#") or not line.strip()]
    return "".join([*above, *lines[first:]])


def write_headers(headers: Headers) -> str:
    """The headers section as YAML text."""
    return (f"headers:\n  alias: {quote(headers.alias)}\n  name: {quote(headers.name)}\n"
            f"  info: {quote(headers.info)}\n")
