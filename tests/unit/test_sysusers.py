# SPDX-License-Identifier: Apache-2.0
"""The accounts that packages declare, in the lines of sysusers.d(5)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from redrpm import sysusers

PASSWD = "root:x:0:0:root:/root:/bin/sh\nold:x:999:999::/:/bin/false\n"
GROUP = "root:x:0:\nold:x:999:\nplugdev:x:46:old\n"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "passwd").write_text(PASSWD)
    (directory / "group").write_text(GROUP)
    (directory / "shadow").write_text("root:*:1::::::\n")
    (directory / "shadow").chmod(0o640)
    return directory


def run(etc: Path, monkeypatch: pytest.MonkeyPatch, lines: str, *options: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    return sysusers.main([*options, "--root", str(etc.parent), "-"])


def added(etc: Path, name: str, before: str) -> str:
    text = (etc / name).read_text()
    assert text.startswith(before)
    return text[len(before) :]


@pytest.mark.parametrize(
    ("lines", "passwd", "group"),
    [
        ('u app - "An app" /var/app', "app:x:998:998:An app:/var/app:/usr/sbin/nologin\n",
         "app:x:998:\n"),
        ("u! app 70 - - /bin/sh", "app:x:70:70::/:/bin/sh\n", "app:x:70:\n"),
        ("u app 0", "app:x:998:998::/:/usr/sbin/nologin\n", "app:x:998:\n"),
        ("u app 70:46", "app:x:70:46::/:/usr/sbin/nologin\n", ""),
        ("u app -:plugdev", "app:x:46:46::/:/usr/sbin/nologin\n", ""),
        ("u old 5\ng plugdev 7\n# a comment\n\nr - 500-900", "", ""),
        ("g app 70", "", "app:x:70:\n"),
        ("g app -", "", "app:x:998:\n"),
        ("m app crew\nu app 70", "app:x:70:70::/:/usr/sbin/nologin\n",
         "app:x:70:\ncrew:x:998:app\n"),
        ("m old crew\nm old crew", "", "crew:x:998:old\n"),
        ("u app /etc/group", None, None),
    ],
)  # fmt: skip
def test_a_line_makes_the_accounts_it_names(
    etc: Path, monkeypatch: pytest.MonkeyPatch, lines: str, passwd: str, group: str
) -> None:
    assert run(etc, monkeypatch, lines) == 0
    if passwd is None:  # the owner of a file is the tester, whoever that is
        assert "app:x:" in (etc / "passwd").read_text()
        return
    assert added(etc, "passwd", PASSWD) == passwd
    assert added(etc, "group", GROUP) == group


def test_shadows_are_kept_where_there_are_some(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(etc, monkeypatch, "u app -\nu! locked -") == 0
    assert added(etc, "shadow", "root:*:1::::::\n") == "app:!*:::::::\nlocked:!*::::::1:\n"
    assert (etc / "shadow").stat().st_mode & 0o7777 == 0o640
    assert sorted(path.name for path in etc.iterdir()) == ["group", "passwd", "shadow"]


def test_what_is_there_already_stays_untouched(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [(path.name, path.stat().st_mtime_ns) for path in sorted(etc.iterdir())]
    assert run(etc, monkeypatch, "u root 0\ng plugdev -\nu old 7") == 0
    assert [(path.name, path.stat().st_mtime_ns) for path in sorted(etc.iterdir())] == before


def test_members_of_a_group_are_cumulated(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(etc, monkeypatch, "m root plugdev") == 0
    assert "plugdev:x:46:old,root\n" in (etc / "group").read_text()


def test_the_administrators_file_of_the_same_name_wins(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (etc / "sysusers.d").mkdir()
    (etc / "sysusers.d/app.conf").write_text("u app 300\n")
    replaced = ("--replace", "/usr/lib/sysusers.d/app.conf")
    assert run(etc, monkeypatch, "u app 70\nu more 71", *replaced) == 0
    assert added(etc, "passwd", PASSWD) == "app:x:300:300::/:/usr/sbin/nologin\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u ../app -", "'../app' is not the name of an account"),
        ("u app:0 -", "'app:0' is not the name of an account"),
        ('u app - "a:0:0" /', "'a:0:0' cannot stand in passwd"),
        ("u app x", "'x' is not the number of an account"),
        ("u app 5:nobody-has-it", "group nobody-has-it does not exist"),
        ("x app", "no account is of the kind x"),
        ('u app - "', "No closing quotation"),
    ],
)
def test_a_bad_line_changes_nothing_and_is_named(
    etc: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    line: str, message: str,
) -> None:
    assert run(etc, monkeypatch, f"u fine -\n{line}") == 1
    assert message in capsys.readouterr().err
    assert (etc / "passwd").read_text() == PASSWD
    assert (etc / "group").read_text() == GROUP


def test_a_link_out_of_the_root_is_not_followed(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "passwd-of-the-host"
    (etc / "passwd").rename(outside)
    (etc / "passwd").symlink_to(outside)
    assert run(etc, monkeypatch, "u app -") == 1
    assert "Too many levels of symbolic links" in capsys.readouterr().err
    assert outside.read_text() == PASSWD
