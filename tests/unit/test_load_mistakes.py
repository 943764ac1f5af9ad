# SPDX-License-Identifier: Apache-2.0
"""Mistakes that people make in a configuration, and what they are told: line and message."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from redpak.load import check_text

HEADERS = "headers: {alias: demo}\n"


class Mistake(NamedTuple):
    """A faulty file, and the one finding it must give."""

    name: str
    text: str
    line: int
    message: str


MISTAKES = (
    Mistake("unknown section",
            HEADERS + "export:\n  - {mode: Public, mount: /a}\n",
            2, 'unknown section "export"; did you mean "exports"?'),
    Mistake("section twice",
            HEADERS + "config:\n  umask: 022\nconfig:\n  umask: 027\n",
            4, 'the key "config" is here twice, first in line 2; keep one of them'),
    Mistake("no headers",
            "config:\n  umask: 022\n",
            1, "headers: the section is missing; start the file with headers: {alias: NAME}"),
    Mistake("no alias",
            "headers:\n  name: x\n",
            2, 'headers: the key "alias" is missing; add alias: with an alias'),
    Mistake("alias with a slash",
            "headers:\n  alias: a/b\n",
            2, 'headers.alias: "a/b" is not an alias; use letters, digits and + _ @ . - only '
            "(at most 64, not . or ..)"),
    Mistake("alias with a colon",
            "headers:\n  alias: 'a:b'\n",
            2, 'headers.alias: "a:b" is not an alias; use letters, digits and + _ @ . - only '
            "(at most 64, not . or ..)"),
    Mistake("alias dotdot",
            "headers:\n  alias: ..\n",
            2, 'headers.alias: ".." is not an alias; use letters, digits and + _ @ . - only '
            "(at most 64, not . or ..)"),
    Mistake("alias of the core OS",
            "headers:\n  alias: redmain\n",
            2, 'headers.alias: "redmain" is reserved; choose another alias'),
    Mistake("unknown header",
            "headers:\n  alias: demo\n  nmae: x\n",
            3, 'headers: unknown key "nmae"; did you mean "name"?'),
    Mistake("unknown tag",
            HEADERS + "config:\n  umaks: 022\n",
            3, 'config: unknown key "umaks"; did you mean "umask"?'),
    Mistake("underscore for dash",
            HEADERS + "config:\n  die_with_parent: true\n",
            3, 'config: unknown key "die_with_parent"; did you mean "die-with-parent"?'),
    Mistake("dash for underscore",
            HEADERS + "config:\n  share-net: enabled\n",
            3, 'config: unknown key "share-net"; did you mean "share_net"?'),
    Mistake("key twice in other case",
            HEADERS + "config:\n  umask: 022\n  Umask: 027\n",
            4, 'config: the key "Umask" is here twice, first in line 3; keep one of them'),
    Mistake("bad boolean",
            HEADERS + "config:\n  gpgcheck: ture\n",
            3, 'config.gpgcheck: "ture" is not true or false; write true or false'),
    Mistake("bad umask",
            HEADERS + "config:\n  umask: 089\n",
            3, 'config.umask: "089" is not an octal mask such as 027; write octal digits such '
            "as 027, no more than 0777"),
    Mistake("bad share",
            HEADERS + "config:\n  share_net: disable\n",
            3, 'config.share_net: "disable" is not enabled, disabled, unset or the path of a '
            'namespace to join; did you mean "disabled"?'),
    Mistake("share wrong",
            HEADERS + "config:\n  share_net: private\n",
            3, 'config.share_net: "private" is not enabled, disabled, unset or the path of a '
            "namespace to join"),
    Mistake("negative maxage",
            HEADERS + "config:\n  maxage: -3\n",
            3, 'config.maxage: "-3" is not a number of days; write a number from 0 to 36500'),
    Mistake("maxage text",
            HEADERS + "config:\n  maxage: 3 days\n",
            3, 'config.maxage: "3 days" is not a number of days; write a number from 0 to '
            "36500"),
    Mistake("no value",
            HEADERS + "config:\n  hostname:\n",
            3, "config.hostname: has no value, expected one line of text; write a value or "
            "remove the key"),
    Mistake("list for scalar",
            HEADERS + "config:\n  hostname: [a, b]\n",
            3, "config.hostname: expected one line of text, not a list; write KEY: VALUE"),
    Mistake("mapping for scalar",
            HEADERS + "config:\n  chdir: {dir: /}\n",
            3, "config.chdir: expected a path, not a mapping; write KEY: VALUE"),
    Mistake("config a list",
            HEADERS + "config:\n  - umask: 022\n",
            3, "config: expected keys with their values; write KEY: VALUE lines"),
    Mistake("path element mapping",
            HEADERS + "config:\n  path:\n    - /usr/bin\n    - {dir: /x}\n",
            5, "config.path: expected a path, not a mapping; write KEY: VALUE"),
    Mistake("unknown group key",
            HEADERS + "config:\n  cgroups:\n    mem:\n      maximum: 1G\n",
            5, 'config.cgroups.mem: unknown key "maximum"; did you mean "max"?'),
    Mistake("bad size",
            HEADERS + "config:\n  cgroups:\n    mem: {max: 1 GB}\n",
            4, 'config.cgroups.mem.max: "1 GB" is not a size in bytes (K, M, G, T) or max; '
            "write bytes such as 536870912, 512M or max"),
    Mistake("bad cpus",
            HEADERS + "config:\n  cgroups:\n    cpuset:\n      cpus: 3-1\n",
            5, 'config.cgroups.cpuset.cpus: "3-1" has the bad range 3-1, expected a list of '
            "numbers such as 0-2,5; write numbers and ranges such as 0-2,5"),
    Mistake("cpus without a comma",
            HEADERS + "config:\n  cgroups:\n    cpuset:\n      cpus: 1 2\n",
            5, 'config.cgroups.cpuset.cpus: "1 2" is not a list of numbers such as 0-2,5; '
            "write numbers and ranges such as 0-2,5"),
    Mistake("seccomp relative",
            HEADERS + "config:\n  seccomp: filter.bpf\n",
            3, 'config.seccomp: "filter.bpf" is not default, none or the absolute path of a '
            "compiled filter; write default, none, or a path such as /etc/filter"),
    Mistake("bad cpu max",
            HEADERS + "config:\n  cgroups:\n    cpu: {max: 50%}\n",
            4, 'config.cgroups.cpu.max: "50%" is not microseconds and a period such as 50000 '
            "100000; write microseconds and a period such as 50000 100000, or max"),
    Mistake("weight range",
            HEADERS + "config:\n  cgroups:\n    cpu: {weight: 20000}\n",
            4, 'config.cgroups.cpu.weight: "20000" is not a whole number from 1 to 10000; '
            "write a number from 1 to 10000"),
    Mistake("cap name",
            HEADERS + "config:\n  capabilities:\n    - {cap: CAP_NETADMIN, add: true}\n",
            4, 'config.capabilities.cap: "CAP_NETADMIN" is not a capability such as '
            'CAP_NET_ADMIN, or all; did you mean "CAP_NET_ADMIN"?'),
    Mistake("cap no add",
            HEADERS + "config:\n  capabilities:\n    - cap: CAP_NET_ADMIN\n",
            4, 'config.capabilities: the key "add" is missing; add add: with true or false'),
    Mistake("cap twice",
            HEADERS + "config:\n"
            "  capabilities:\n    - {cap: CAP_KILL, add: true}\n"
            "    - {cap: cap_kill, add: false}\n",
            5, "config.capabilities: CAP_KILL is here twice, first in line 4; keep one of "
            "them"),
    Mistake("mode misspelt",
            HEADERS + "exports:\n  - {mode: Restrictd, mount: /a}\n",
            3, 'exports.mode: "Restrictd" is not an export mode; did you mean "Restricted"?'),
    Mistake("mode missing",
            HEADERS + "exports:\n  - mount: /a\n    path: /b\n",
            3, 'exports: the key "mode" is missing; add mode: with an export mode'),
    Mistake("mount missing",
            HEADERS + "exports:\n  - mode: Public\n    path: /b\n",
            3, 'exports: the key "mount" is missing; add mount: with a path'),
    Mistake("mount relative",
            HEADERS + "exports:\n  - mode: Public\n    mount: nodes/a\n",
            4, 'exports.mount: "nodes/a" is not absolute; start it with / or $'),
    Mistake("mount dotdot",
            HEADERS + "exports:\n  - mode: Public\n    mount: /nodes/../etc\n",
            4, 'exports.mount: "/nodes/../etc" has a ".." part, expected a path; write the '
            "path without .."),
    Mistake("mount root",
            HEADERS + "exports:\n  - mode: Public\n    mount: /\n",
            4, "exports.mount: nothing can be mounted over the root itself; export the "
            "directories below it"),
    Mistake("path relative",
            HEADERS + "exports:\n  - mode: Public\n    mount: /a\n    path: usr/share\n",
            5, 'exports.path: "usr/share" is not absolute; start it with / or $, such as '
            "$NODE_PATH/..."),
    Mistake("path of tmpfs",
            HEADERS + "exports:\n  - mode: Tmpfs\n    mount: /tmp\n    path: /tmp\n",
            5, "exports.path: mode Tmpfs takes no path; remove the path"),
    Mistake("symlink without target",
            HEADERS + "exports:\n  - mode: Symlink\n    mount: /bin\n",
            3, "exports.path: mode Symlink needs a path; write what the link points to"),
    Mistake("mounted twice",
            HEADERS + "exports:\n"
            "  - {mode: Public, mount: /a}\n  - {mode: Restricted, mount: /a}\n",
            4, "exports.mount: /a is mounted twice, first in line 3; keep one of them"),
    Mistake("exports a mapping",
            HEADERS + "exports:\n  mode: Public\n  mount: /a\n",
            3, 'exports: expected a list; start each entry with "- "'),
    Mistake("environ key",
            HEADERS + "environ:\n  - {key: 2ND, value: x}\n",
            3, 'environ.key: "2ND" is not the name of a variable; use letters, digits and _, '
            "no digit first"),
    Mistake("environ no value",
            HEADERS + "environ:\n  - key: HOME\n",
            3, 'environ: HOME: the key "value" is missing; add value:, or use mode Remove or '
            "Inherit"),
    Mistake("environ remove value",
            HEADERS + "environ:\n  - {key: HOME, mode: Remove, value: x}\n",
            3, "environ.value: HOME: mode Remove takes no value; remove the value"),
    Mistake("environ twice",
            HEADERS + "environ:\n  - {key: HOME, value: /a}\n  - {key: HOME, value: /b}\n",
            4, "environ.key: HOME is here twice, first in line 3; keep one of them"),
    Mistake("environ inherits linker",
            HEADERS + "environ:\n  - {key: LD_PRELOAD, mode: Inherit}\n",
            3, "environ.key: LD_PRELOAD steers the dynamic linker and is never inherited; set "
            "its value"),
    Mistake("enforce in a node",
            HEADERS + "enforce:\n  gpgcheck: true\n",
            2, "enforce: only main.yaml can have this section; write these keys under config"),
    Mistake("tab",
            HEADERS + "config:\n\tumask: 022\n",
            3, "is no valid YAML: found character that cannot start any token; indent with "
            "spaces, YAML knows no tabs"),
    Mistake("unclosed quote",
            HEADERS + 'config:\n  hostname: "demo\n',
            3, "is no valid YAML: the quote that opens here is not closed; close it, and "
            "quote text that has quotes, brackets or braces"),
    Mistake("missing space",
            HEADERS + "config:\n  umask:022\n",
            3, "config: expected keys with their values; put a space after the colon"),
    Mistake("unclosed bracket",
            HEADERS + "config:\n  path: [/a, /b\nexports: []\n",
            3, "is no valid YAML: the [ that opens here is not closed; close it, and quote "
            "text that has quotes, brackets or braces"),
    Mistake("dollar text unquoted star",
            HEADERS + "config:\n  hostname: *name\n",
            3, "uses the YAML anchor or alias 'name'; write the value itself; quote text that "
            "starts with & or *"),
    Mistake("anchor",
            HEADERS + "config:\n  hostname: &name demo\n",
            3, "uses the YAML anchor or alias 'name'; write the value itself; quote text that "
            "starts with & or *"),
    Mistake("tag",
            HEADERS + "config:\n  umask: !!int 22\n",
            3, "uses the YAML tag 'tag:yaml.org,2002:int'; write plain values; quote text "
            "that starts with !"),
    Mistake("two documents",
            HEADERS + "---\nconfig: {}\n",
            2, "starts a second YAML document; write one document per file"),
    Mistake("merge key",
            HEADERS + "config:\n  <<: {umask: 022}\n",
            3, 'config: unknown key "<<"; known keys: cachedir, capabilities, cgrouproot, '
            "cgroups, chdir, derived-files, die-with-parent, gpgcheck, hostname, inherit, "
            "inherit-env, ldpath, map-root-user, maxage, new-session, path, persistdir, "
            "rpmdir, seccomp, set-group, set-user, share_all, share_cgroup, share_ipc, "
            "share_net, share_pid, share_time, share_user, smack, umask, unsafe, verbose"),
    Mistake("bad indent",
            HEADERS + "config:\n  umask: 022\n   chdir: /\n",
            4, "is no valid YAML: mapping values are not allowed in this context; check the "
            "indentation, quotes and colons here and in the line before"),
    Mistake("nul",
            HEADERS + "config:\n  hostname: a\0b\n",
            3, "has the control character U+0000; remove it"),
    Mistake("escaped newline hostname",
            HEADERS + 'config:\n  hostname: "a\\nb"\n',
            3, 'config.hostname: "a\\x0ab" has a control character or a line break, expected '
            "one line of text"),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name.replace(" ", "-"))
def test_a_mistake_is_reported_at_its_line_with_what_to_do(mistake: Mistake) -> None:
    config, findings = check_text(mistake.text.encode(), "redpack.yaml")
    assert config is None
    assert [(finding.origin.line if finding.origin else 0, str(finding).split(": ", 1)[1])
            for finding in findings] == [(mistake.line, mistake.message)]


def test_there_are_at_least_forty_mistakes() -> None:
    assert len(MISTAKES) >= 40


def test_all_mistakes_of_a_file_are_reported_at_once() -> None:
    text = (HEADERS + "config:\n  umaks: 022\n  gpgcheck: perhaps\n  umask: 9\n"
            "exports:\n  - {mode: Publik, mount: /a}\n  - {mode: Public, mount: a}\n"
            "environ:\n  - {key: A B, value: x}\n")
    _, findings = check_text(text.encode(), "redpack.yaml")
    assert [finding.origin.line for finding in findings if finding.origin] == [3, 4, 5, 7, 8, 10]


def test_text_that_is_not_utf8_is_named_with_its_place() -> None:
    _, findings = check_text(b"headers: {alias: a}\nconfig:\n  hostname: caf\xe9\n", "r.yaml")
    assert [str(finding) for finding in findings] == [
        "r.yaml:3:16: is not UTF-8 text (byte 0xe9); save the file as UTF-8"]
