# SPDX-License-Identifier: Apache-2.0
"""rpm's command line, as far as red-rpm must understand it: what is asked, of which words.

The warm path of red-rpm imports this module: it loads nothing (compare tests/bench/bench_rpm.py).
The tables are those of rpm's lib/poptALL.c, poptI.c, poptQV.c and rpmpopt; what is not in them is
a flag, and rpm itself says when it knows none of that name.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

QUERY, VERIFY, INSTALL, ERASE, KEYS, DATABASE, RESTORE, CHECKSIG, OTHER = (
    "query", "verify", "install", "erase", "keys", "database", "restore", "checksig", "other",
)
CHANGES = frozenset((INSTALL, ERASE, KEYS, DATABASE, RESTORE))

# Options of our own: name -> does it take a value?
_OWN = {
    "--redpath": True, "--rpath": True, "--rp": True, "--rmain": True, "--family": False,
    "--node-force": False, "--forcenode": False, "--plan": False, "--ota": True,
    "--ota-rollback": False, "--ota-state": False, "--ota-list": False,
}
_OWN_NAMES = {"--rpath": "--redpath", "--rp": "--redpath"}

_LONG_MODES = {
    "--query": QUERY, "--querytags": OTHER, "--verify": VERIFY, "--install": INSTALL,
    "--upgrade": INSTALL, "--update": INSTALL, "--freshen": INSTALL, "--reinstall": INSTALL,
    "--erase": ERASE, "--import": KEYS, "--delete": KEYS, "--initdb": DATABASE,
    "--rebuilddb": DATABASE, "--verifydb": QUERY, "--restore": RESTORE, "--setperms": RESTORE,
    "--setugids": RESTORE, "--setcaps": RESTORE, "--checksig": CHECKSIG, "--showrc": OTHER,
    "--eval": OTHER, "--version": OTHER, "--help": OTHER, "--usage": OTHER,
}
_SHORT_MODES = {
    "q": QUERY, "V": VERIFY, "U": INSTALL, "F": INSTALL, "e": ERASE, "K": CHECKSIG, "E": OTHER,
}
# Options that take the next word (or what follows `=`).
_VALUED = frozenset(
    "--define --undefine --eval --macros --load --rcfile --root --dbpath --target --pipe"
    " --queryformat --qf --excludepath --prefix --relocate --color --i18ndomains --httpport"
    " --httpproxy".split()
)
_SHORT_VALUED = "DEr"
# Options that say which packages are meant by the words, or that there is no need of words.
_SELECTIONS = frozenset(
    "--all --file --path --group --package --pkgid --hdrid --tid --querybynumber --triggeredby"
    " --whatconflicts --whatrequires --whatobsoletes --whatprovides --whatrecommends"
    " --whatsuggests --whatsupplements --whatenhances --nomanifest --recursive".split()
)
_SHORT_SELECTIONS = "afgp"
_PATHS = frozenset(("--file", "--path"))


class RpmArguments:
    """A command line of red-rpm, taken apart.

    own         our options: name -> value ("" for a flag)
    mode        one of the constants above
    options     rpm's options, each with its value, in order
    words       what is no option: packages, files, capabilities
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.own: dict[str, str] = {}
        self.options: list[tuple[str, ...]] = []
        self.words: list[str] = []
        self._names: set[str] = set()  # long options, and each letter of short ones
        self.fault = ""
        self._read(list(arguments))
        self.mode = self._find_mode()

    def has(self, *names: str) -> bool:
        """Whether one of the options (``--long`` or a letter) is there."""
        return any(name in self._names for name in names)

    @property
    def for_rpm(self) -> list[str]:
        """The words of the command line for rpm: all but our own."""
        return [word for option in self.options for word in option] + self.positional

    @property
    def positional(self) -> list[str]:
        """The words, so that none is taken for an option."""
        return ["--", *self.words] if any(w.startswith("-") for w in self.words) else self.words

    @property
    def names_packages_by_path(self) -> bool:
        """Whether the words are paths of installed files."""
        return bool(self._names & _PATHS) or ("f" in self._names and self.mode in (QUERY, VERIFY))

    @property
    def names_package_files(self) -> bool:
        """Whether the words are package files, and no rpmdb is asked."""
        return self.has("--package", "p")

    def selecting(self) -> list[str]:
        """The options that select packages, without those that say what to show of them."""
        return [word for option in self.options for word in _keep(option, selections=True)]

    def showing(self) -> list[str]:
        """The options that say what to show, without those that select packages."""
        return [word for option in self.options for word in _keep(option, selections=False)]

    def _find_mode(self) -> str:
        if self._names & {"--help", "--version", "--usage", "--showrc", "--querytags", "-?"}:
            return OTHER
        for name, mode in _LONG_MODES.items():
            if name in self._names and name not in ("--eval",):
                return mode
        for letter, mode in _SHORT_MODES.items():
            if letter in self._names:
                return mode
        # rpm -i installs, and with -q it shows information.
        return INSTALL if "i" in self._names else OTHER

    def _read(self, rest: list[str]) -> None:
        rest.reverse()
        while rest:
            word = rest.pop()
            if word == "--":
                self.words += reversed(rest)
                return
            if word.startswith("--"):
                self._read_long(word, rest)
            elif word.startswith("-") and len(word) > 1:
                self._read_short(word, rest)
            else:
                self.words.append(word)

    def _read_long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word.partition("=")
        if name in _OWN:
            if _OWN[name] and not equals:
                if not rest:
                    self.fault = f"{name} needs a value"
                    return
                value = rest.pop()
            elif equals and not _OWN[name]:
                self.fault = f"{name} takes no value"
            self.own[_OWN_NAMES.get(name, name)] = value
            return
        self._names.add(name)
        takes_next = name in _VALUED and not equals and rest
        self.options.append((word, rest.pop()) if takes_next else (word,))

    def _read_short(self, word: str, rest: list[str]) -> None:
        for at, letter in enumerate(word[1:], 1):
            self._names.add(letter if letter != "?" else "-?")
            if letter in _SHORT_VALUED:
                takes_next = at == len(word) - 1 and rest
                self.options.append((word, rest.pop()) if takes_next else (word,))
                return
        self.options.append((word,))


def _keep(option: tuple[str, ...], *, selections: bool) -> tuple[str, ...]:
    """What is left of an option when only selections, or none of them, are kept."""
    word = option[0]
    if word.startswith("--"):
        is_selection = word in _SELECTIONS
        is_common = word.partition("=")[0] in _COMMON
        return option if is_selection == selections or is_common else ()
    if word[1] in _SHORT_VALUED:
        return option
    letters = [
        letter for letter in word[1:]
        if letter == "q" or (letter in _SHORT_SELECTIONS) == selections
    ]
    return (f"-{''.join(letters)}",) if letters else ()


# Of concern to both steps.
_COMMON = frozenset(
    "--query --define --undefine --macros --load --rcfile --nodigest --nosignature --noplugins"
    " --target".split()
)
