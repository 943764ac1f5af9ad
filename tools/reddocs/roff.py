# SPDX-License-Identifier: Apache-2.0
"""A page of docs/ as a manual page in man(7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from reddocs.commands import Page
from reddocs.helptext import Help, Option
from reddocs.markdown import Block, parse_page

OptionsOf = Callable[[Sequence[str]], Sequence[Option]]
HelpOf = Callable[..., Help]


def manual_page(page: Page, text: str, *, options_of: OptionsOf, help_of: HelpOf,
                version: str, date: str, see_also: Sequence[str]) -> str:
    """The manual page of `page`, whose Markdown is `text`. Raises ValueError for a page without
    a title and a first paragraph."""
    blocks = list(parse_page(text))
    if len(blocks) < 2 or blocks[0].kind != "heading" or blocks[1].kind != "text":
        raise ValueError(f"{page.source}: a title and a paragraph must come first")
    summary = _summary(blocks[1].text)
    lines = ['.\\" Made by scripts/generate-docs.',
             f'.TH {page.name.upper()} {page.section} "{date}" "redpak {version}" "redpak"',
             ".SH NAME", f"{inline(page.name)} \\- {inline(summary)}"]
    if page.commands:
        lines += [".SH SYNOPSIS", *_synopsis(page, help_of)]
    lines += [".SH DESCRIPTION", *_blocks(blocks[1:], options_of, Synopsis(page, help_of))]
    shown = {block.text for block in blocks if block.kind == "options"}
    lines += _missing_options(page, shown, options_of)
    others = ", ".join(f"\\fB{inline(name)}\\fR({section})" for name, section in
                       (one.rsplit(".", 1) for one in see_also))
    lines += [".SH SEE ALSO", others]
    return "\n".join(lines) + "\n"


class Synopsis:
    """Which code block of a page is the synopsis that the manual page has anyway."""

    def __init__(self, page: Page, help_of: HelpOf) -> None:
        self.usages = {help_of(*words).usage for words in page.commands}

    def is_synopsis(self, block: Block) -> bool:
        return block.kind == "code" and " ".join(row[0].strip() for row in block.rows) in (
            self.usages)


def _summary(text: str) -> str:
    sentence = re.split(r"[.:;](?: |$)", text)[0]
    plain = re.sub(r"[`*]|\[|\]\([^)]*\)", "", sentence)
    return plain[0].lower() + plain[1:]


def _synopsis(page: Page, help_of: HelpOf) -> Iterator[str]:
    for number, words in enumerate(page.commands):
        if number:
            yield ".br"
        if words[0] == "red-dnf":
            # dnf's own usage names all of its options.
            command = words[1] if words[1] == "red-manager" else "red-COMMAND"
            usage = f"dnf {command} --redpath=DIR [OPTION...] [ARGUMENT...]"
        else:
            usage = help_of(*words).usage
        name, _, rest = usage.partition(" ")
        yield f"\\fB{inline(name)}\\fR {_escape(rest, code=True)}"


def _missing_options(page: Page, shown: set[str], options_of: OptionsOf) -> Iterator[str]:
    missing = [words for words in page.commands if " ".join(words) not in shown]
    if not any(options_of(words) for words in missing):
        return
    yield ".SH OPTIONS"
    for words in missing:
        options = options_of(words)
        if options and len(missing) > 1:
            yield f".SS {inline(' '.join(words))}"
        yield from _options(options)


def _options(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        value = "|".join(option.choices) or option.value
        names = ", ".join(f"\\fB{_escape(name, code=True)}\\fR" for name in option.names)
        sign = "=" if value and option.names[0].startswith("--") else " " if value else ""
        shown = f"{sign}\\fI{_escape(value, code=True)}\\fR" if value else ""
        yield ".TP"
        yield names + shown
        yield inline(option.help) or "\\&"


def _blocks(blocks: Sequence[Block], options_of: OptionsOf, synopsis: Synopsis) -> Iterator[str]:
    paragraph = False  # .PP right after a heading is an error to mandoc
    described = True
    for block in blocks:
        if synopsis.is_synopsis(block):
            continue
        if block.kind == "heading":
            macro = ".SH" if block.level <= 2 else ".SS"
            title = block.text.upper() if block.level <= 2 else block.text
            yield f"{macro} {inline(title)}"
            paragraph = described = False
            continue
        if block.kind == "text":
            if paragraph:
                yield ".PP"
            yield inline(block.text)
        elif block.kind == "code":
            if paragraph:
                yield ".PP"
            yield from (".RS 4", ".EX", *(_escape(row[0], code=True) or "\\&"
                                          for row in block.rows), ".EE", ".RE")
        elif block.kind == "list":
            for mark, text in block.rows:
                yield ".IP \\(bu 2" if mark == "-" else f".IP {mark} 4"
                yield inline(text)
        elif block.kind == "table":
            yield from _table(block.rows)
        elif block.kind == "options":
            if described:
                yield ".SH OPTIONS"
            yield from _options(options_of(block.text.split()))
        paragraph = True


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Each row as a tagged paragraph: its first cell, the last, and what stands between."""
    header = rows[0]
    for row in rows[1:]:
        between = "; ".join(f"{title}: {cell}" if title != "value" else cell
                            for title, cell in list(zip(header, row))[1:-1] if cell)
        yield ".TP"
        yield inline(row[0])
        text = f"{row[-1]} ({between})" if between and row[-1] else row[-1] or between
        yield inline(text) or "\\&"


_INLINE = re.compile(r"``(?P<code2>.+?)``|`(?P<code>[^`]+)`|\*\*(?P<bold>.+?)\*\*"
                     r"|\*(?P<em>[^*\s][^*]*)\*|!?\[(?P<link>[^\]]*)\]\([^)]*\)")


def inline(text: str) -> str:
    """A line of Markdown as roff."""
    parts: list[str] = []
    at = 0
    for match in _INLINE.finditer(text):
        parts.append(_escape(text[at:match.start()], start=not parts))
        at = match.end()
        if match["code"] or match["code2"]:
            parts.append(f"\\fB{_escape(match['code'] or match['code2'], code=True)}\\fR")
        elif match["bold"]:
            parts.append(f"\\fB{_escape(match['bold'].replace('`', ''))}\\fR")
        elif match["em"]:
            parts.append(f"\\fI{_escape(match['em'])}\\fR")
        else:
            parts.append(_escape(match["link"].replace("`", "")))
    parts.append(_escape(text[at:], start=not parts))
    return "".join(parts)


def _escape(text: str, *, code: bool = False, start: bool = True) -> str:
    text = text.replace("&lt;", "<").replace("\\", "\\e")
    text = text.replace("'", "\\(aq").replace("`", "\\(ga").replace("~", "\\(ti")
    text = text.replace("^", "\\(ha").replace("—", "\\(em").replace("…", "...")
    if code:
        text = text.replace("-", "\\-")
    return f"\\&{text}" if start and text.startswith((".", "'")) else text
