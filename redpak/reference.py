# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema and the reference page of the configuration, made from the schema's tables.

Both are kept in the source tree; a test holds them to what `python3 -m redpak.reference` writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redpak.schema import (
    CAPABILITY_KEYS,
    EXPORT_KEYS,
    HEADER_KEYS,
    SECTIONS,
    TAGS,
    VARIABLE_KEYS,
    EnvironMode,
    ExportMode,
    Key,
    Rule,
    Tag,
)

SCHEMA_FILE = "conf/redpak.schema.json"
PAGE_FILE = "docs/configuration.md"
BEGIN = "<!-- generated from redpak/schema.py: do not edit below -->"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a node's, a main, an admin or a template file."""
    config = _config_schema()
    properties = {
        "headers": _entry_schema(HEADER_KEYS, SECTIONS["headers"], mandatory=()),
        "config": {"$ref": "#/$defs/config", "description": SECTIONS["config"]},
        "enforce": {"$ref": "#/$defs/config", "description": SECTIONS["enforce"]},
        "exports": _list_schema(EXPORT_KEYS, SECTIONS["exports"]),
        "environ": _list_schema(VARIABLE_KEYS, SECTIONS["environ"]),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "redpak configuration",
        "description": "Keys and enumerated values may be written in any case; the canonical one "
                       "is given here.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": {"config": config},
    }


def _config_schema() -> dict[str, Any]:
    root: dict[str, Any] = {"type": ["object", "null"], "additionalProperties": False,
                            "properties": {}}
    for tag in TAGS:
        place = root
        for group in tag.group:
            place = place["properties"].setdefault(group, {
                "type": "object", "additionalProperties": False, "properties": {}})
        place["properties"][tag.key.rpartition(".")[2]] = _tag_schema(tag)
    root["properties"]["capabilities"] = _list_schema(
        CAPABILITY_KEYS, "Capabilities kept or dropped; cap: all counts first.")
    return root


def _tag_schema(tag: Tag) -> dict[str, Any]:
    schema = dict(tag.kind.schema)
    if tag.is_list:
        schema = {"anyOf": [schema, {"type": "array", "items": schema}]}
    schema["description"] = f"{tag.help} Merge: {tag.rule.value}."
    if tag.default is not None:
        schema["default"] = tag.default
    return schema


def _entry_schema(keys: Sequence[Key], description: str,
                  mandatory: Sequence[str] | None = None) -> dict[str, Any]:
    required = [key.name for key in keys if key.mandatory] if mandatory is None else mandatory
    schema: dict[str, Any] = {
        "type": "object", "additionalProperties": False, "description": description,
        "properties": {key.name: {**key.kind.schema, "description": key.help} for key in keys}}
    if required:
        schema["required"] = list(required)
    return schema


def _list_schema(keys: Sequence[Key], description: str) -> dict[str, Any]:
    return {"type": ["array", "null"], "items": _entry_schema(keys, description),
            "description": description}


def schema_text() -> str:
    """The JSON Schema as it is published."""
    return json.dumps(json_schema(), indent=2) + "\n"


def reference_text() -> str:
    """The generated part of the reference page."""
    parts = [BEGIN, "## headers\n", _key_table(HEADER_KEYS), "## config\n",
             "Keys of `config`, and of `enforce` in main.yaml. A dot is a level of indentation: "
             "`cgroups.mem.max` is `cgroups: {mem: {max: ...}}`.\n", _tag_table(),
             "### Merge rules\n",
             "\n".join(f"- **{rule.name.lower()}**: {rule.value}" for rule in Rule) + "\n",
             "### capabilities\n",
             "A list. `cap: all` counts first, then the single ones; what an ancestor drops stays "
             "dropped.\n", _key_table(CAPABILITY_KEYS), "## exports\n", _key_table(EXPORT_KEYS),
             "### Export modes\n", _mode_table(), "## environ\n", _key_table(VARIABLE_KEYS),
             "### Environ modes\n",
             "\n".join(f"- `{mode.value}`: {_ENVIRON_MEANINGS[mode]}" for mode in EnvironMode)
             + "\n"]
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                     for line in lines) + "\n"


def _key_table(keys: Sequence[Key]) -> str:
    return _table(("key", "value", "meaning"), [
        (f"`{key.name}`" + (" (mandatory)" if key.mandatory else ""), key.kind.expects, key.help)
        for key in keys])


def _tag_table() -> str:
    return _table(("key", "value", "default", "merge", "meaning"), [
        (f"`{tag.key}`", f"list: {tag.kind.expects}" if tag.is_list else tag.kind.expects,
         "" if tag.default is None else f"`{tag.kind.write(tag.default)}`",
         tag.rule.name.lower(), tag.help) for tag in TAGS])


_EXPORT_MEANINGS = {
    ExportMode.PUBLIC: "The source, writable.",
    ExportMode.PUBLIC_FILE: "The same, of a file.",
    ExportMode.RESTRICTED: "The source, read-only.",
    ExportMode.RESTRICTED_FILE: "The same, of a file.",
    ExportMode.PRIVATE: "The source, writable, when its node is the leaf.",
    ExportMode.PRIVATE_FILE: "The same, of a file.",
    ExportMode.PRIVATE_RESTRICTED: "The source, read-only, when its node is the leaf.",
    ExportMode.ANONYMOUS: "An empty directory of this launch alone, writable.",
    ExportMode.SYMLINK: "A symbolic link that leads to `path`.",
    ExportMode.EXECFD: "A read-only file: what the shell command `path` prints at each launch.",
    ExportMode.INTERNAL: "A file: what can be read from the file descriptor whose number is "
                         "`path`.",
    ExportMode.OVERLAY: "The directories of all nodes that export this mount, merged: the leaf's "
                        "on top, the core OS's beneath; read-only.",
    ExportMode.OVERLAY_PRIVATE: "The same, writable: changes go to `private/overlay` of the leaf.",
    ExportMode.TMPFS: "An empty file system in memory.",
    ExportMode.PROCFS: "The processes of the namespace (proc).",
    ExportMode.DEVFS: "The devices that every application needs: null, zero, random, tty, pts.",
    ExportMode.MQUEUE: "The message queues of the namespace.",
    ExportMode.LOCK: "Nothing: a lock on the file `mount`, held while the application runs.",
}
_ENVIRON_MEANINGS = {
    EnvironMode.DEFAULT: "`value`, with its names replaced; `Expanded` is another name for it",
    EnvironMode.STATIC: "`value` as it is written",
    EnvironMode.EXECFD: "what the shell command `value` prints at each launch, without its last "
                        "newline",
    EnvironMode.REMOVE: "the variable is unset",
    EnvironMode.INHERIT: "the caller's value, with `inherit-env: false` too",
}


def _mode_table() -> str:
    def path_of(mode: ExportMode) -> str:
        if mode.needs_path:
            return "mandatory"
        return "the mount's, when missing" if mode.has_path else "none"
    return _table(("mode", "path", "source", "seen by children", "meaning"), [
        (f"`{mode.value}`", path_of(mode),
         "a file" if mode.is_file else "a directory or file" if mode.is_bind else "",
         "no" if mode.is_private else "yes", _EXPORT_MEANINGS[mode])
        for mode in ExportMode])


def replace_generated(page: str) -> str:
    """The page with its generated part made anew; what stands above is written by hand."""
    return page.partition(BEGIN)[0] + reference_text()


def main() -> int:
    """Write both files, in the source tree that the working directory is the root of."""
    Path(SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    page = Path(PAGE_FILE)
    page.write_text(replace_generated(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
