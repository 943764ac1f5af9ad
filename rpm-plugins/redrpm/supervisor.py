# SPDX-License-Identifier: Apache-2.0
"""The parent of a contained child: keeps the locks, waits, cleans up.

The process that forked the child becomes this program (execve), and so gives back all the memory
that dnf had taken before: two Python processes live side by side through every transaction. For the
same reason nothing but what the interpreter has loaded anyway is imported here.
"""

from __future__ import annotations

import os
import sys

from redsys.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from typing import NoReturn
else:
    # The C part of it: signal.py loads enum and collections, a quarter of this process's memory.
    import _signal as signal

# What the child says, one byte each: scriptlets may run from now on; no more of them, what runs in
# the view is ours; it begins to change the node, it has, it could not.
WATCH, REST, BEGIN, DONE, FAILED = b"w", b"r", b"b", b"d", b"f"

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SUSPENSIONS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_PATIENCE = 0.5  # seconds between two looks at what scriptlets left running


class Supervisor:
    """Waits for the child ``pid``; ``receive`` and ``send`` are the ends of two pipes to it.

    ``state_dir`` is the node's ``.redpak``; ``alias`` is for messages.
    """

    def __init__(self, pid: int, receive: int, send: int, state_dir: str, alias: str) -> None:
        self._pid = pid
        self._receive = receive
        self._send = send
        self._node = os.path.dirname(state_dir)
        self._state_dir = state_dir
        self._stage = f"{state_dir}/stage"
        self._alias = alias
        self._stopped_by = 0
        self._interrupted = False
        self._watching = False
        self._leftovers: set[int] = set()

    def serve(self) -> int:
        """Until the child has ended and the stage is gone; the exit status of the command.

        The STOPS are blocked when this is called.
        """
        for number in STOPS:
            signal.signal(number, self._stop)
        for number in _SUSPENSIONS:
            signal.signal(number, self._suspend)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        said = self._listen()
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        for number in (*STOPS, *_SUSPENSIONS):
            # Once it is waited for, the number of the child may be another's.
            signal.signal(number, signal.SIG_IGN)
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        try:
            self._clean_up(said)
        except OSError as err:
            self._tell(f"cannot clean up: {err}; the next command will")
        if self._stopped_by and said == DONE:
            self._tell("stopped, the transaction was already committed.")
        elif (self._stopped_by or (self._interrupted and code)) and said in (
                b"", WATCH, REST):
            # dnf5 ends at the first Ctrl-C, without a word.
            self._tell("stopped, nothing was changed.")
        if self._stopped_by:
            return 128 + self._stopped_by
        return code if code >= 0 else 128 - code

    def _listen(self) -> bytes:
        """Hear the child until its end; its last word."""
        said = b""
        while True:
            word = self._hear()
            if not word:
                return said
            said = word
            self._watching = word == WATCH
            if word == BEGIN:
                # A request to end waits for the end of the commit; the journal is for kill -9.
                signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
                os.write(self._send, BEGIN)
            else:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            if word == DONE:
                self._remove_early()

    def _hear(self) -> bytes:
        """The next word of the child; b"" at its end."""
        if self._watching:
            import select  # a part of the interpreter

            while not select.select([self._receive], [], [], _PATIENCE)[0]:
                self._end_leftovers()
        return os.read(self._receive, 1)

    def _end_leftovers(self) -> None:
        """End daemons of scriptlets: dnf5 waits until nobody holds their output any more.

        They have the view for their root, which rpm leaves when it is done with a package: who is
        found there without the child for a while is nobody that rpm waits for.
        """
        home = _root_of(self._pid)
        left = {pid for pid in _same_namespace(self._pid) if _root_of(pid) not in (home, None)}
        for pid in left & self._leftovers:
            try:
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                    name = stream.read().strip()
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue  # it has ended by itself
            self._tell(f"ended {name}, which a scriptlet had left running.")
        self._leftovers = left

    def _remove_early(self) -> None:
        """Remove what a child that has committed needs no more, while it says what it did."""
        for name in ("delta", "rpmdb", "dnf"):
            try:
                remove_tree(f"{self._stage}/{name}")
            except OSError:
                # A scriptlet's daemon is at work there, until the child ends.
                continue

    def _stop(self, number: int, _frame: object) -> None:
        """End the child when we are told to end, or at the second Ctrl-C.

        The first Ctrl-C is the child's to handle; but dnf4's rpm hears none while a scriptlet
        hangs.
        """
        if number == signal.SIGINT and not self._interrupted:
            self._interrupted = True
            return
        self._stopped_by = number
        os.kill(self._pid, signal.SIGKILL)

    def _suspend(self, _number: int, _frame: object) -> None:
        """Ctrl-Z: the kernel lets pid 1 of a namespace be suspended from outside only."""
        os.kill(self._pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(self._pid, signal.SIGCONT)

    def _clean_up(self, said: bytes) -> None:
        """Throw the stage away. That of a commit which failed half-way stays: the next command
        needs it to finish."""
        journal = f"{self._state_dir}/journal"
        if os.path.exists(journal) and said == BEGIN:
            self._finish()
        if not os.path.exists(journal):
            remove_tree(f"{self._stage}.discarded")
            os.rename(self._stage, f"{self._stage}.discarded")
            remove_tree(f"{self._stage}.discarded")

    def _finish(self) -> None:
        """The child was killed in the middle of a commit: take the rest of its steps."""
        import site

        site.main()  # this program is started without the distribution's modules
        from redpak.errors import RedpakError
        from redrpm.journal import finish
        from redrpm.stage import Stage

        try:
            finish(self._node, self._state_dir, Stage(self._stage))
            self._tell("finished the transaction that its killed process had committed.")
        except RedpakError as err:
            self._tell(f"{err}")

    def _tell(self, text: str) -> None:
        sys.stderr.write(f"Node {self._alias}: {text}\n")
        sys.stderr.flush()


def _same_namespace(child: int) -> Iterator[int]:
    """The processes in the pid namespace whose first one is ``child``, which is left out."""
    try:
        namespace = os.stat(f"/proc/{child}/ns/pid").st_ino
    except OSError:
        return
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == child:
            continue
        try:
            if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:
                yield int(name)
        except OSError:
            continue  # it has ended, or is none of ours


def _root_of(pid: int) -> tuple[int, int] | None:
    """What identifies the root directory of a process; None when it has ended."""
    try:
        info = os.stat(f"/proc/{pid}/root")
    except OSError:
        return None
    return info.st_dev, info.st_ino


def main(arguments: list[str]) -> NoReturn:
    """The program that the parent becomes: ``arguments`` are those of Supervisor, and for people
    the command line of what it was."""
    pid, receive, send, state_dir, alias = arguments[:5]
    os._exit(Supervisor(int(pid), int(receive), int(send), state_dir, alias).serve())
