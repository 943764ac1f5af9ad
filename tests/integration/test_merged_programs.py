# SPDX-License-Identifier: Apache-2.0
"""Programs of Debian, repackaged as they are, do their work in a merged child whose parent has half
of what they need."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.actors import actor_kinds
from support.debian import download_packages, repackage
from support.installing import Installation
from support.merged import Wrapped, free_port, make_merged
from support.rpms import create_repository, write_repo_file

PLATFORM = ("libnettle8", "libpcre2-8-0", "libxxhash0", "libcrypt1", "libjemalloc2", "liblzf1",
            "libatomic1", "libonig5", "libjq1", "libreadline8", "readline-common", "libmagic1",
            "libmagic-mgc", "libtcl8.6", "lua5.4", "media-types", "redis-tools")
APPLICATION = {"lighttpd": ["media-types"], "redis-server": ["redis-tools"], "jq": [],
               "lua-cjson": ["lua5.4"], "tcl8.6": [], "units": [], "file": ["libmagic-mgc"]}


@pytest.fixture(scope="session")
def repositories(session_pool: Path) -> Path:
    directory = session_pool / "debian"
    download_packages([*PLATFORM, *APPLICATION], directory / "debs")
    for name in PLATFORM:
        repackage(name, directory / "debs", directory / "platform")
    for name, requires in APPLICATION.items():
        repackage(name, directory / "debs", directory / "application", requires=requires)
    for name in ("platform", "application"):
        create_repository(directory / name)
        write_repo_file(directory / f"{name}.repo", name, directory / name)
    return directory


@pytest.fixture(scope="module", params=actor_kinds())
def child(request: pytest.FixtureRequest, session_pool: Path, installation: Installation,
          repositories: Path) -> Wrapped:
    """A child with the programs; its parent has their libraries, data and interpreters."""
    place = session_pool / f"programs-{request.param}"
    actor = installation.actor(request.param, place)
    parent = make_merged(actor, place / "core", "core", repositories / "platform.repo")
    parent.install(*PLATFORM)
    node = make_merged(actor, place / "core/app", "app", repositories / "application.repo")
    node.install(*APPLICATION)
    assert node.packages() == sorted(APPLICATION)
    return Wrapped(node)


def wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on port {port}")


def test_a_web_server_serves_with_its_own_configuration(child: Wrapped) -> None:
    """lighttpd: Perl scripts that its configuration runs, modules, mime types of the parent, a log
    below /var. Changes of its configuration stay in the node's private /etc."""
    port = free_port()
    config = "/etc/lighttpd/lighttpd.conf"
    shipped = (child.node.path / config[1:]).read_text()
    child.shell(f"sed -i -e 's/^server.port .*/server.port = {port}/' -e '/^server.username/d' "
                f"-e '/^server.groupname/d' -e '/use-ipv6/d' {config}; "
                "mkdir -p /var/www/html; echo '<p>page</p>' >/var/www/html/index.html; "
                "ln -sf ../conf-available/10-dir-listing.conf /etc/lighttpd/conf-enabled")
    with child.started("lighttpd", "-D", "-f", config):
        wait_for(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            assert answer.read() == b"<p>page</p>\n"
            assert answer.headers["Content-Type"] == "text/html"
            assert answer.headers["Server"].startswith("lighttpd/")
    assert "server started" in (child.node.path / "var/log/lighttpd/error.log").read_text()
    assert (child.node.path / config[1:]).read_text() == shipped
    assert str(port) in child.output("cat", config)


@contextmanager
def redis(child: Wrapped) -> Iterator[int]:
    port = free_port()
    child.shell("mkdir -p /var/lib/redis /var/log/redis")
    with child.started("redis-server", "/etc/redis/redis.conf", "--port", port,
                       "--daemonize", "no", "--supervised", "no", "--pidfile", "/run/redis.pid"):
        wait_for(port)
        yield port


def test_a_database_keeps_its_values(child: Wrapped) -> None:
    """redis: the server's configuration in the child, the program and its client in the parent."""
    with redis(child) as port:
        client = ["redis-cli", "-p", port]
        assert child.output(*client, "set", "key", "value") == "OK\n"
        assert child.output(*client, "config", "get", "dir").split() == ["dir", "/var/lib/redis"]
        assert child.output(*client, "lpush", "list", "1", "2") == "2\n"
        child.run(*client, "shutdown", "save")
    assert (child.node.path / "var/lib/redis/dump.rdb").exists()
    with redis(child) as port:
        assert child.output("redis-cli", "-p", port, "get", "key") == "value\n"


def test_a_json_tool_answers(child: Wrapped) -> None:
    assert child.shell("echo '{\"a\": [1, 2, {\"b\": \"x\"}]}' | jq -c '.a[2].b, (.a[0:2] | add), "
                       "(\"ab\" | test(\"^a.$\"))'") == '"x"\n3\ntrue\n'


def test_interpreters_find_their_modules_and_data(child: Wrapped) -> None:
    """Lua is the parent's, its module the child's; Tcl's library and encodings are the parent's."""
    lua = 'local c = require "cjson"; print(c.encode({1, 2}), c.decode("[7.5]")[1])'
    assert child.output("lua5.4", "-e", lua) == "[1,2]\t7.5\n"
    tcl = ("puts [clock format 0 -gmt 1 -format %Y]; "
           "puts [encoding convertfrom cp437 \\x81]; puts $tcl_library")
    assert child.shell(f"echo '{tcl}' | LC_ALL=C.UTF-8 tclsh8.6").split() == [
        "1970", "ü", "/usr/share/tcltk/tcl8.6"]


def test_tools_find_their_data(child: Wrapped) -> None:
    """units has definitions, among them a link into /var; file's magic is the parent's."""
    assert child.output("units", "-t", "2 miles", "km").strip() == "3.218688"
    assert float(child.output("units", "-t", "1 euro", "dollar")) > 0
    assert child.output("file", "-b", "/usr/bin/jq").startswith("ELF ")
    assert child.shell("file -b --mime-type /etc/lighttpd/lighttpd.conf").strip() == "text/plain"


def test_the_programs_are_the_nodes_and_not_the_core_oss(child: Wrapped) -> None:
    words = child.shell("for i in lighttpd redis-server jq lua5.4 units file; do "
                        "rpm -qf --qf '%{name} ' $(command -v $i) || :; done")
    assert words.split()[:2] == ["lighttpd", "redis-server"]
    assert "/usr/lib/x86_64-linux-gnu/libjq.so.1" in child.output("ldd", "/usr/bin/jq") or (
        "/lib/x86_64-linux-gnu/libjq.so.1" in child.output("ldd", "/usr/bin/jq"))
