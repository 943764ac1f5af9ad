# SPDX-License-Identifier: Apache-2.0
"""An interactive bash or zsh on a terminal, to press the tabulator key in."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from typing import Mapping

from support.actors import Actor

# Ctrl-G prints what is on the line now; the mark is typed in two halves, so that only the output
# has it whole.
_BASH = r"""
PS1='READY> '; bind 'set show-all-if-ambiguous on' 'set completion-query-items 0' 2> /dev/null
bind 'set completion-query-items 0'; bind 'set page-completions off'; bind 'set bell-style none'
bind 'set enable-bracketed-paste off'; bind 'set completion-display-width 0'
dump() { echo "LI""NE<$READLINE_LINE>"; }; bind -x '"\C-g": dump'
. /usr/share/bash-completion/bash_completion
"""
_ZSH = r"""
PS1='READY> '; unsetopt promptcr promptsp zle_bracketed_paste beep list_beep; LISTMAX=1000
fpath=($COMPLETIONS/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -d $HOME/.zcd
unset zle_bracketed_paste; setopt list_packed no_list_beep
dump() { zle -I; print -r -- "LI""NE<$BUFFER>" }; zle -N dump; bindkey '^G' dump
"""


class InteractiveShell:
    """Type a line and a tabulator; see what the shell made of it."""

    def __init__(self, kind: str, actor: Actor, environ: Mapping[str, str], home: Path) -> None:
        argv = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[kind]
        self._terminal, end = pty.openpty()
        subprocess.run(["stty", "cols", "200", "rows", "60"], stdin=end, check=True)
        self._process = actor.popen(
            argv, stdin=end, stdout=end, stderr=end, cwd=str(home), start_new_session=True,
            env={**environ, "TERM": "dumb", "HISTFILE": "", "HOME": str(home)},
        )
        os.close(end)
        rc = home / f"rc.{kind}"
        rc.write_text({"bash": _BASH, "zsh": _ZSH}[kind])
        self._write(f". {rc}; echo STAR''TED\n")
        self._read_until(r"STARTED\r?\n")

    def run(self, command: str) -> None:
        """Run a command line."""
        self._write(f"{command}; echo DO''NE\n")
        self._read_until(r"DONE\r?\n")

    def press_tab(self, line: str) -> tuple[str, str]:
        """The line after the tabulator key, and what was shown beside it."""
        self._write(f"{line}\t")
        self._wait_until_idle()  # keys that come together are taken for one
        self._write("\x07")
        shown = self._read_until(r"LINE<([^>]*)>")
        found = re.search(r"LINE<([^>]*)>", shown)
        assert found
        self._wait_until_idle()  # while zsh prints, the terminal itself would take the next key
        self._write("\x15")  # an empty line again
        return found[1], shown[:found.start()]

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _write(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _wait_until_idle(self) -> None:
        """Until the shell sleeps for its next key: whoever has keys to read, or waits for a command
        of a completion, does not."""
        process = Path(f"/proc/{self._process.pid}")
        children = process / f"task/{self._process.pid}/children"
        quiet = 0
        while quiet < 3:
            time.sleep(0.1)
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            quiet = quiet + 1 if state == "S" and not children.read_text() else 0

    def _read_until(self, pattern: str, timeout: float = 60) -> str:
        seen = ""
        end = time.monotonic() + timeout
        while not re.search(pattern, seen):
            ready, _, _ = select.select([self._terminal], [], [], end - time.monotonic())
            assert ready, f"no {pattern} in {seen!r}"
            seen += os.read(self._terminal, 65536).decode(errors="replace")
        return seen
