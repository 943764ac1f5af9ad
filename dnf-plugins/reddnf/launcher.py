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

_NODE_OPTIONS = {"--redpath": "--redpath", "--rpath": "--redpath", "--rp": "--redpath",
                 "--rmain": "--rmain"}
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
    """The directory of the dnf4 plugin file beside this package; "" when dnf has its own copy."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    directory = os.path.join(here, "dnf4")
    return directory if os.path.exists(os.path.join(directory, "redpak.py")) else ""


def _is_about_nodes(record: logging.LogRecord) -> bool:
    """dnf looks for a release version on the host first; a node has its own (reddnf.session)."""
    return not str(record.msg).startswith("Unable to detect release version")


def main() -> None:
    """The command red-dnf."""
    try:
        from dnf.cli.main import user_main
    except ImportError:
        sys.stderr.write("red-dnf: error: dnf is not installed; install dnf (python3-dnf)\n")
        sys.exit(1)
    logging.getLogger("dnf").addFilter(_is_about_nodes)
    arguments = arrange_arguments(sys.argv[1:])
    directory = find_plugin_dir()
    if directory:
        arguments.insert(0, f"--setopt=pluginpath={directory}")
    user_main(arguments, exit_code=True)


if __name__ == "__main__":
    main()
