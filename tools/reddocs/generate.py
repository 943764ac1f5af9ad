# SPDX-License-Identifier: Apache-2.0
"""generate-docs [--check]: write manual pages, option tables and shell completion from the help
texts and docs/; --check writes nothing and names what is not current."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from reddocs.commands import CHECKOUT, options_of, pages, read_help, setup_cfg
from reddocs.markdown import replace_options
from reddocs.roff import manual_page
from reddocs.shells import completion_files


def generated_files() -> dict[str, str]:
    """Every generated file of the checkout: path -> content."""
    files: dict[str, str] = {}
    for path in sorted((CHECKOUT / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        files[f"docs/{path.name}"] = replace_options(text, options_of)
    everything = pages()
    names = [f"{page.name}.{page.section}" for page in everything] + ["dnf.8", "rpm.8", "bwrap.1"]
    version = setup_cfg()["metadata"]["version"]
    for page in everything:
        name = f"{page.name}.{page.section}"
        files[f"share/man/man{page.section}/{name}"] = manual_page(
            page, files[page.source], options_of=options_of, help_of=read_help, version=version,
            date=release_date(), see_also=[other for other in names if other != name])
    return {**files, **completion_files()}


def release_date() -> str:
    """The date of the latest entry of redpak.spec's changelog, as YYYY-MM-DD."""
    months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
    spec = (CHECKOUT / "redpak.spec").read_text(encoding="utf-8")
    found = re.search(r"%changelog\n\* \w{3} (\w{3}) (\d{2}) (\d{4})", spec)
    if not found:
        raise ValueError("redpak.spec: no date in %changelog")
    return f"{found[3]}-{months.index(found[1]) + 1:02}-{found[2]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or with --check compare."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return _generate(check=bool(words))
    except (RuntimeError, ValueError) as error:  # a command that cannot run, a page that is none
        print(f"generate-docs: error: {error}", file=sys.stderr)
        return 1


def _generate(*, check: bool) -> int:
    missing = sorted({page.source for page in pages() if not (CHECKOUT / page.source).exists()})
    if missing:
        raise ValueError(
            f"{missing[0]} is missing: every command needs a page, see docs/red-conf.md")
    stale = []
    for name, content in generated_files().items():
        path = CHECKOUT / name
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    for name in stale:
        print(f"{name}: not current, run scripts/generate-docs" if check else f"wrote {name}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
