# SPDX-License-Identifier: Apache-2.0
"""red-dnf: dnf with the red- commands, wherever they are installed.

Takes --redpath (and --rpath, --rp) before or after the command, in either form, and the options
that dnf's own parser would take for something else.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

_NODE_OPTIONS = {
    "--redpath": "--redpath",
    "--rpath": "--redpath",
    "--rp": "--redpath",
    "--rmain": "--rmain",
}
# dnf reads --force as --forcearch, and refuses --enable for all but its own config-manager.
_RENAMED = {"--force": "--node-force", "--enable": "--repo-enable", "--disable": "--repo-disable"}


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


def find_plugin_dir() -> str:
    """The directory of the dnf4 plugin file beside this package; "" when there is none."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    directory = os.path.join(here, "dnf4")
    return directory if os.path.exists(os.path.join(directory, "redpak.py")) else ""


def _open_standard_streams() -> None:
    """Give dnf streams that the caller closed; what is opened next must not get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def main() -> None:
    """The command red-dnf."""
    _open_standard_streams()
    try:
        import dnf.cli.main
        import dnf.conf
        import dnf.const
    except ImportError:
        sys.stderr.write("red-dnf: error: dnf is not installed; install dnf (python3-dnf)\n")
        sys.exit(1)
    from redpak.osrelease import read_os_release

    class LauncherConf(dnf.conf.Conf):
        """dnf's configuration, with our plugin in it wherever it is."""

        def __init__(self) -> None:
            super().__init__()
            directory = find_plugin_dir()
            if directory and not os.path.exists(f"{dnf.const.PLUGINPATH}/redpak.py"):
                self.pluginpath = [dnf.const.PLUGINPATH, directory]
            # dnf would look for it in the host's rpmdb, which Debian has in the home directory.
            self.releasever = read_os_release().get("VERSION_ID") or None

    arguments = arrange_arguments(sys.argv[1:])
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
