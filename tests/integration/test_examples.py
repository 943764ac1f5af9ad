# SPDX-License-Identifier: Apache-2.0
"""The example packages: what rpmbuild finds out about them, and what the daemon serves."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from support.actors import Actor, actor_kinds, find_actor


@pytest.fixture(scope="session")
def examples(session_pool: Path, checkout: Path) -> Path:
    """Both example repositories."""
    directory = session_pool / "examples"
    subprocess.run([str(checkout / "scripts/build-examples"), str(directory)], check=True)
    return directory


@pytest.fixture
def platform_root(examples: Path, tmp_path: Path) -> Path:
    """The platform's files, unpacked."""
    for rpm in examples.glob("platform/*.rpm"):
        unpack(rpm, tmp_path)
    return tmp_path


def unpack(rpm: Path, directory: Path) -> None:
    with rpm.open("rb") as stream:
        archive = subprocess.run(
            ["rpm2archive", "-"], stdin=stream, capture_output=True, check=True
        )
    subprocess.run(["tar", "-xz", "-C", str(directory)], input=archive.stdout, check=True)


@pytest.fixture
def daemon(platform_root: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running agl-httpd and its port; its root holds a page, beside it lies a secret."""
    root = platform_root / "www"
    (root / "sub").mkdir(parents=True)
    (root / "index.html").write_text("welcome\n")
    (root / "sub/index.html").write_text("below\n")
    (root / ".hidden").write_text("secret\n")
    (platform_root / "secret").write_text("secret\n")
    (root / "link").symlink_to("../secret")
    (root / "out").symlink_to(platform_root)
    process = start(platform_root, "--port=0", f"--roothttp={root}")
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"agl-httpd: serving \S+ on http://127\.0\.0\.1:(\d+)/\n", line)
    assert found, line
    yield process, int(found[1])
    process.kill()
    process.wait()


def start(platform_root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(platform_root / "usr/bin/agl-httpd"), *arguments],
        env={"LD_LIBRARY_PATH": str(platform_root / "usr/lib64")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def query(rpm: Path, what: str) -> set[str]:
    done = subprocess.run(
        ["rpm", "-qp", what, str(rpm)], capture_output=True, text=True, check=True
    )
    return {line.split(" = ")[0] for line in done.stdout.splitlines()}


def test_rpmbuild_finds_the_real_dependencies_of_the_examples(examples: Path) -> None:
    (library,) = examples.glob("platform/libaglhttp-1*.rpm")
    (application,) = examples.glob("application/helloworld-1*.rpm")
    assert "libaglhttp.so.1(AGLHTTP_1.0)(64bit)" in query(library, "--provides")
    needs = query(application, "--requires")
    assert {"libaglhttp.so.1(AGLHTTP_1.0)(64bit)", "/bin/sh", "agl-httpd >= 1.0"} <= needs
    assert any(need.startswith("libc.so.6(GLIBC_") for need in needs)


@pytest.mark.parametrize("kind", actor_kinds())
def test_the_examples_build_as_any_user(kind: str, pool_root: Path, checkout: Path) -> None:
    actor: Actor = find_actor(kind).with_environ(PATH="/usr/bin:/bin", HOME="/nonexistent")
    copy = pool_root / "source"
    subprocess.run(["mkdir", str(copy)], check=True)
    subprocess.run(["cp", "-r", str(checkout / "examples"), str(checkout / "scripts"), str(copy)])
    subprocess.run(["chown", "-R", f"{actor.uid}:{actor.gid}", str(pool_root)], check=True)
    actor.check([copy / "scripts/build-examples", pool_root / "out"])
    assert len(list(pool_root.glob("out/*/*.rpm"))) == 4


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", (200, "welcome\n")),
        ("/index.html?x=1#y", (200, "welcome\n")),
        ("//%69ndex.html", (200, "welcome\n")),
        ("/sub", (200, "below\n")),
        ("/missing", (404, "404 Not Found\n")),
        ("/../secret", (404, "404 Not Found\n")),
        ("/sub/../../secret", (404, "404 Not Found\n")),
        ("/%2e%2e/secret", (404, "404 Not Found\n")),
        ("/..%2fsecret", (404, "404 Not Found\n")),
        ("/link", (404, "404 Not Found\n")),
        ("/out/secret", (404, "404 Not Found\n")),
        ("/.hidden", (404, "404 Not Found\n")),
        ("/%00", (400, "400 Bad Request\n")),
        ("/%4", (400, "400 Bad Request\n")),
        ("secret", (400, "400 Bad Request\n")),
    ],
)
def test_the_daemon_serves_what_is_below_its_root_and_nothing_else(
    daemon: tuple[subprocess.Popen[str], int], path: str, expected: tuple[int, str]
) -> None:
    assert ask(daemon[1], path) == expected


def test_the_daemon_answers_get_and_head_only(daemon: tuple[subprocess.Popen[str], int]) -> None:
    assert ask(daemon[1], "/", "HEAD") == (200, "")
    for method in ("POST", "PUT", "DELETE", "TRACE"):
        assert ask(daemon[1], "/", method) == (405, "405 Method Not Allowed\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_stops_cleanly_on_a_signal(
    daemon: tuple[subprocess.Popen[str], int], number: signal.Signals
) -> None:
    process, _port = daemon
    process.send_signal(number)
    output, _errors = process.communicate(timeout=10)
    assert (process.returncode, output) == (0, "agl-httpd: stopped\n")


def test_the_daemon_says_what_is_wrong_with_its_arguments(platform_root: Path) -> None:
    _output, errors = start(platform_root, "--port=70000", "--roothttp=/").communicate()
    assert errors == "agl-httpd: error: --port=70000 is no port; say a number from 0 to 65535\n"
    _output, errors = start(platform_root, "--roothttp=/missing").communicate()
    assert errors == (
        "agl-httpd: error: cannot open directory /missing: No such file or directory\n"
    )


def test_the_client_prints_a_page(
    daemon: tuple[subprocess.Popen[str], int], examples: Path, platform_root: Path
) -> None:
    (rpm,) = examples.glob("application/helloworld-1*.rpm")
    unpack(rpm, platform_root)
    done = subprocess.run(
        [str(platform_root / "usr/bin/helloworld"), str(daemon[1]), "/sub"],
        env={"LD_LIBRARY_PATH": str(platform_root / "usr/lib64")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "below\n"), done.stderr
