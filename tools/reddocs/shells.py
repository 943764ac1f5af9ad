# SPDX-License-Identifier: Apache-2.0
"""Completion for bash and zsh: the scripts beside this module, with the options in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from reddocs.commands import command_names, options_of, pages, read_help, twin_commands
from reddocs.helptext import Option

# What the value of an option is; an option that is not here takes a file.
_KINDS = {
    "--redpath": "nodes", "--rpath": "nodes", "--rp": "nodes", "--alias": "aliases",
    "--template": "templates", "--template-admin": "templates",
    "--repo": "repos", "--repoid": "repos", "--enablerepo": "repos", "--disablerepo": "repos",
    "--user": "user", "--group": "group", "--bwrap": "command", "--redroot": "directory",
    "--name": "text", "--info": "text", "--setopt": "text", "--releasever": "text",
    "--match": "text", "--sign-key": "text", "--jobs": "text",
}
# What the commands of dnf take: kinds of red-conf complete.
_PACKAGES = {
    "installed": "autoremove remove reinstall downgrade upgrade upgrade-minimal mark distro-sync "
                 "check-update",
    "available": "install download swap deplist",
    "installed available": "info list repoquery provides",
    "repos": "repolist manager",
}
# Those of them that take files of packages, too.
_FILES = "install reinstall upgrade downgrade manager"
# dnf's own options with a value that may be the next word, in any of its versions.
_DNF_VALUED = (
    "-c --config -d --debuglevel -e --errorlevel -x --exclude --excludepkgs -R --randomwait"
    " --setopt --repo --repoid --enablerepo --disablerepo --repofrompath --releasever"
    " --installroot --color --forcearch --comment --enableplugin --disableplugin"
    " --disableexcludes --destdir --downloaddir --advisory --advisories --bugzilla --bugzillas"
    " --cve --cves --sec-severity --secseverity"
)
_ROOT = Path(__file__).parent
COMPLETIONS = "share/bash-completion/completions"


def completion_files() -> dict[str, str]:
    """Every file of the completion: path in the checkout -> content."""
    names = command_names()
    bash = _fill("redpak.bash", " ".join(names))
    files = {f"{COMPLETIONS}/red-dnf": bash,
             "share/zsh/site-functions/_redpak": _fill("redpak.zsh", " ".join(names)),
             "share/bash_completion.d/redpak": _fill("redpak-dnf.bash", "")}
    for name in names:
        if name != "red-dnf":
            files[f"{COMPLETIONS}/{name}"] = (
                "# SPDX-License-Identifier: Apache-2.0\n"
                "# All of redpak's commands are completed by one file.\n"
                '. "${BASH_SOURCE[0]%/*}/red-dnf"\n')
    return files


def _fill(template: str, commands: str) -> str:
    text = (_ROOT / template).read_text("utf-8")
    for mark, lines in (("STATIC", _static()), ("KINDS", _kinds()), ("PACKAGES", _packages())):
        text = text.replace(f"@{mark}@", "\n".join(lines))
    text = text.replace("@FILES@", " | ".join(f"red-{name}" for name in _FILES.split()))
    return text.replace("@DNF_VALUED@", " ".join(_dnf_valued())).replace("@COMMANDS@", commands)


def _static() -> Iterator[str]:
    """Cases of _redpak_static: options as one types them, `=` behind those with a value."""
    for name in command_names():
        found = read_help(name)
        subcommands = [sub for sub, _ in found.commands]
        if name == "red-dnf":
            subcommands = twin_commands()
            options = options_of((name, "red-install"))
        else:
            options = found.options
        for sub in () if name == "red-dnf" else subcommands:
            yield f'    "{name} {sub}") echo "{_spell(read_help(name, sub).options)}" ;;'
        yield f'    "{name} "*) echo "{" ".join([*subcommands, _spell(options)])}" ;;'


def _spell(options: list[Option]) -> str:
    return " ".join(f"{name}=" if option.value and name.startswith("--") else name
                    for option in options for name in option.names)


def _dnf_valued() -> Iterator[str]:
    own = (option for command in ("red-install", "red-manager")
           for option in options_of(("red-dnf", command)) if option.value)
    yield from dict.fromkeys(name for option in own for name in option.names)
    yield from _DNF_VALUED.split()


def _kinds() -> Iterator[str]:
    kinds = dict(_KINDS)
    for words in (words for page in pages() for words in page.commands):
        for option in options_of(words):
            if option.choices:
                kinds.update(dict.fromkeys(option.names, f"'={' '.join(option.choices)}'"))
    for kind in dict.fromkeys(kinds.values()):
        names = " | ".join(name for name, its in kinds.items() if its == kind)
        yield f"    {names}) echo {kind} ;;"


def _packages() -> Iterator[str]:
    for kinds, commands in _PACKAGES.items():
        names = " | ".join(f"red-{name}" for name in commands.split())
        asks = "; ".join(f"_redpak_ask {kind}" for kind in kinds.split())
        yield f"    {names}) {asks} ;;"
