# SPDX-License-Identifier: Apache-2.0
"""red-dnf: dnf with the red- commands, wherever they are installed.

Takes --redpath (and --rpath, --rp) before or after the command, in either form, and the options
that dnf's own parser would take for something else. --dnf=4 or --dnf=5 chooses the dnf.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from redpak.errors import RedpakError
from redpak.osrelease import read_os_release
from redpak.streams import open_missing_streams

DNF4 = "dnf4"
DNF5 = "dnf5"
_DNFS = {"4": DNF4, "dnf4": DNF4, "dnf": DNF4, "5": DNF5, "dnf5": DNF5}

_NODE_OPTIONS = {
    "--redpath": "--redpath",
    "--rpath": "--redpath",
    "--rp": "--redpath",
    "--rmain": "--rmain",
}
# dnf reads --force as --forcearch, and refuses --enable for all but its own config-manager.
_RENAMED = {"--force": "--node-force", "--enable": "--repo-enable", "--disable": "--repo-disable"}
# What people write without the red- that makes it a node's; dnf would not know --redpath then.
_OF_SYSTEM = frozenset(
    "autoremove check check-update clean distro-sync downgrade group history info install list"
    " makecache manager mark module provides reinstall remove repolist repoquery search swap"
    " upgrade".split()
)


def arrange_arguments(arguments: Sequence[str]) -> list[str]:
    """``arguments`` as plain dnf understands them: node options behind all others, renamed."""
    words: list[str] = []
    node_words: list[str] = []
    waiting = ""
    for position, word in enumerate(arguments):
        if waiting:
            node_words.append(f"{waiting}={word}")
            waiting = ""
            continue
        if word == "--":
            return [*words, *node_words, *arguments[position:]]
        name, equals, value = word.partition("=")
        if name in _NODE_OPTIONS and equals:
            node_words.append(f"{_NODE_OPTIONS[name]}={value}")
        elif name in _NODE_OPTIONS:
            waiting = _NODE_OPTIONS[name]
        else:
            words.append(_RENAMED.get(word, word))
    if waiting:
        node_words.append(waiting)
    return words + node_words


def check_command(arguments: Sequence[str]) -> None:
    """Raise RedpakError for a command of dnf's own that shall work on a node."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in _OF_SYSTEM and any(word.startswith("--redpath") for word in arguments):
        raise RedpakError(
            f"{command}: commands for a node begin with red-", hint=f"write red-{command}"
        )


def choose_dnf(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Which dnf runs a command line, and the line without --dnf. Raises RedpakError.

    Without --dnf or REDPAK_DNF it is what this system calls dnf, or else what there is.
    """
    rest = [word for word in arguments if not word.startswith("--dnf=")]
    told = [word for word in arguments if word.startswith("--dnf=")]
    chosen = told[-1].partition("=")[2] if told else os.environ.get("REDPAK_DNF", "")
    if chosen:
        if chosen not in _DNFS:
            raise RedpakError(f"--dnf={chosen}: no such dnf", hint="write --dnf=4 or --dnf=5")
        return _DNFS[chosen], rest
    called_dnf = os.path.realpath(shutil.which("dnf") or "")
    if os.path.basename(called_dnf) == "dnf5" or not importlib.util.find_spec("dnf"):
        return DNF5, rest
    return DNF4, rest


def find_plugin_dir() -> str:
    """The directory of the dnf4 plugin file beside this package; "" when there is none."""
    directory = os.path.join(_packages(), "dnf4")
    return directory if os.path.exists(os.path.join(directory, "redpak.py")) else ""


def _packages() -> str:
    """The directory that this package lies in."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main() -> None:
    """The command red-dnf."""
    open_missing_streams()
    try:
        dnf, words = choose_dnf(sys.argv[1:])
        arguments = arrange_arguments(words)
        check_command(arguments)
        if dnf == DNF5:
            _run_dnf5(arguments)
        _run_dnf4(arguments)
    except RedpakError as err:
        sys.stderr.write(f"red-dnf: error: {err}\n")
        sys.exit(1)


def _run_dnf5(arguments: list[str]) -> NoReturn:
    """Become dnf5, with our plugin wherever it is; what needs no dnf5 is done here."""
    program = shutil.which("dnf5") or shutil.which("dnf5", path=os.defpath)
    if not program or not importlib.util.find_spec("libdnf5"):
        raise RedpakError("dnf5 is not installed", hint="install dnf5 and python3-libdnf5")
    from reddnf.standalone import RUNNERS

    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]  # the plugin is Python inside dnf5: nobody else's modules
    own = os.path.join(_packages(), "dnf5")
    if os.path.isdir(own):  # below a prefix
        os.environ["LIBDNF_PYTHON_PLUGIN_DIR"] = own
        os.environ["LIBDNF_PLUGINS_CONFIG_DIR"] = f"{own}/plugins"
        os.environ["XDG_CONFIG_HOME"] = f"{own}/config"
    else:
        os.environ["LIBDNF_PYTHON_PLUGIN_DIR"] = os.path.join(_packages(), "libdnf_plugins")
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in RUNNERS:
        arguments.remove(command)
        sys.exit(RUNNERS[command](arguments))
    try:
        os.execv(program, ["dnf5", *arguments])
    except OSError as err:
        raise RedpakError(f"{program}: {err.strerror}") from err


def _run_dnf4(arguments: list[str]) -> NoReturn:
    # What is loaded stays, and looking for garbage in it takes time. The plugin turns the collector
    # on again.
    gc.disable()
    try:
        import dnf.cli.main
        import dnf.conf
        import dnf.const
    except ImportError as err:
        raise RedpakError("dnf is not installed", hint="install dnf (python3-dnf)") from err

    class LauncherConf(dnf.conf.Conf):
        """dnf's configuration, with our plugin in it wherever it is."""

        def __init__(self) -> None:
            super().__init__()
            directory = find_plugin_dir()
            if directory and not os.path.exists(f"{dnf.const.PLUGINPATH}/redpak.py"):
                self.pluginpath = [dnf.const.PLUGINPATH, directory]
            # dnf would look for it in the host's rpmdb, which Debian has in the home directory.
            self.releasever = read_os_release().get("VERSION_ID", "")

    started_as = os.getpid()
    status = dnf.cli.main.main(arguments, conf_class=LauncherConf)
    if os.getpid() != started_as:
        # The contained child has closed all it had open, and its parent cleans up: taking the
        # interpreter apart, after a fork, would only copy memory (a tenth of a small install).
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
