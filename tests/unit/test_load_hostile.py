# SPDX-License-Identifier: Apache-2.0
"""Input that wants to hurt the loader is refused with one message, before it costs anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redpak.errors import ConfigError, RedpakError
from redpak.load import check_text, load_config
from redpak.node import read_status
from redpak.yamltree import MAX_BYTES

BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{last}, *{last}, *{last}]\n" for last, name in zip("abcdefgh", "bcdefghi"))

HOSTILE = {
    "alias bomb": (BOMB, "uses the YAML anchor or alias 'a'"),
    "recursive anchor": ("headers: &a {alias: *a}\n", "uses the YAML anchor or alias 'a'"),
    "undefined alias": ("headers: *nobody\n", "uses the YAML anchor or alias 'nobody'"),
    "python tag": ("headers: !!python/object/apply:os.system [id]\n", "uses the YAML tag"),
    "own tag": ("!redpak {headers: {alias: a}}\n", "uses the YAML tag '!redpak'"),
    "deep flow lists": ("headers: " + "[" * 100_000, "nests deeper than 16 levels"),
    "deep flow mappings": ("{a: " * 50_000, "nests deeper than 16 levels"),
    "deep block lists": ("- " * 100_000 + "x\n", "nests deeper than 16 levels"),
    "many values": ("config: [" + "a," * 100_000 + "]\n", "has more than 20000 values"),
    "many keys": ("".join(f"k{n}: v\n" for n in range(15_000)), "has more than 20000 values"),
    "NUL": ("headers: {alias: a\0b}\n", "has the control character U+0000"),
    "escape": ("headers: {alias: \x1b[31m}\n", "has the control character U+001B"),
    "complex key": ("? [a, b]\n: c\n", "has a list or a mapping as a key"),
    "a scalar only": ("just text\n", "expected the sections headers, config, exports"),
    "a list only": ("- a\n- b\n", "expected the sections headers, config, exports"),
    "directive": ("%YAML 9.9\n---\nheaders: {alias: a}\n", "is no valid YAML: found incompatible"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused(name: str) -> None:
    text, message = HOSTILE[name]
    config, findings = check_text(text.encode(), "bad.yaml")
    assert config is None
    assert message in str(findings[0])
    assert all(len(str(finding)) < 1000 for finding in findings)


def test_faults_without_end_are_cut_off() -> None:
    text = "headers: {alias: a}\n" + "".join(f"confg{n}: x\n" for n in range(9_000))
    _, findings = check_text(text.encode(), "bad.yaml")
    assert len(findings) == 101
    assert str(findings[-1]).endswith("has more than 100 faults; correct these first")


def test_a_huge_or_broken_word_does_not_fill_the_screen() -> None:
    _, findings = check_text(b'headers: {alias: a}\n"' + b"x\\n" * 1000 + b'": 1\n', "bad.yaml")
    assert len(str(findings[0])) < 600
    assert "\n" not in str(findings[0])


@pytest.mark.parametrize("cpus", ["0-8191," * 30_000 + "0", "0-99999", "0-8191,0-8191," * 100])
def test_a_list_of_processors_cannot_grow_without_end(cpus: str) -> None:
    text = f'headers: {{alias: a}}\nconfig: {{cgroups: {{cpuset: {{cpus: "{cpus}"}}}}}}\n'
    _, findings = check_text(text.encode(), "bad.yaml")
    assert "expected a list of numbers" in str(findings) or "is not a list of" in str(findings)


def test_text_in_utf16_is_refused() -> None:
    _, findings = check_text("headers: {alias: a}\n".encode("utf-16"), "bad.yaml")
    assert "is not UTF-8 text (byte 0xff)" in str(findings[0])


def test_a_surrogate_in_utf8_is_refused() -> None:
    _, findings = check_text(b"headers: {alias: \xed\xa0\x80}\n", "bad.yaml")
    assert "is not UTF-8 text" in str(findings[0])


def test_a_nul_written_as_an_escape_is_refused() -> None:
    _, findings = check_text(b'headers: {alias: a, info: "x\\0y"}\n', "bad.yaml")
    assert "headers.info: \"x\\x00y\" has a NUL character" in str(findings[0])


def test_a_terminal_escape_never_reaches_the_message() -> None:
    _, findings = check_text(b'headers: {alias: "\\e[31mred"}\n', "bad.yaml")
    assert "\x1b" not in str(findings[0])


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(RedpakError, match="is too big for a configuration; the limit is 256 KiB"):
        load_config(str(file))


def test_text_over_the_limit_is_refused() -> None:
    _, findings = check_text(b"#" * (MAX_BYTES + 1), "big.yaml")
    assert "is too big for a configuration" in str(findings[0])


@pytest.mark.parametrize("make", [
    lambda path: os.mkfifo(path), lambda path: os.mkdir(path),
    lambda path: os.symlink("/dev/zero", path)], ids=["fifo", "directory", "device"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, make: object) -> None:
    path = str(tmp_path / "redpack.yaml")
    make(path)  # type: ignore[operator]
    with pytest.raises(RedpakError, match=r"cannot read .*redpack\.yaml: not a regular file"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RedpakError, match=r"cannot read .*none\.yaml: No such file"):
        load_config(str(tmp_path / "none.yaml"))


def test_a_hostile_status_is_refused_like_a_configuration(tmp_path: Path) -> None:
    (tmp_path / ".rednode.yaml").write_text("state: &a Enable\n")
    with pytest.raises(ConfigError, match="uses the YAML anchor or alias 'a'"):
        read_status(str(tmp_path))


def test_a_status_names_every_fault(tmp_path: Path) -> None:
    (tmp_path / ".rednode.yaml").write_text("state: Enabled\ntimestamp: soon\n")
    with pytest.raises(ConfigError) as caught:
        read_status(str(tmp_path))
    texts = [finding.message for finding in caught.value.findings]
    assert texts == ['state: "Enabled" is not a node state',
                     'timestamp: "soon" is not milliseconds since 1970',
                     'the key "realpath" is missing']
    assert caught.value.findings[0].hint == 'did you mean "Enable"?'
