# SPDX-License-Identifier: Apache-2.0
"""The family view: a root directory in which the whole family is merged (design section 3.3)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence

from redpak.errors import RedpakError
from redpak.linker import STANDARD_DIRECTORIES
from redrpm.contents import VOLATILE_TOPS, TransactionContents
from redrpm.skeleton import Skeleton
from redrpm.stage import Stage
from redsys import libc
from redsys.run import run

# What a package of the core OS, installed by the host's own package manager, lies below.
_CORE_TOPS = ("usr", "etc", "opt", "srv")
# Parts of a node that are not its packages' files.
_NOT_LAYERS = VOLATILE_TOPS | {"private"}
# In every view these belong to the node alone, and are not written through the overlay.
_NODE_STATE = ("lib/rpm", "lib/dnf", "cache", "log", "tmp")
# Scriptlets write in directories that no header names; deeper than this they are not expected to.
_SCRIPTLET_DEPTH = 4
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


class FamilyView:
    """The view for one transaction, mounted over ``stage.root`` of a contained process.

    ``nodes`` are the directories of the family's nodes, leaf first; ``descendants`` every node
    below the oldest of them: a directory that leads to one is no layer. Without privilege
    everything written belongs to the caller.
    """

    def __init__(
        self,
        stage: Stage,
        nodes: Sequence[str],
        *,
        privileged: bool,
        descendants: Sequence[str],
    ) -> None:
        self.stage = stage
        self.nodes = nodes
        self.privileged = privileged
        self._descendants = descendants

    def assemble(self, contents: TransactionContents, *, scriptlets: bool) -> None:
        """Mount the view for a transaction that writes ``contents``.

        Raises RedpakError when a package cannot go into this node, or the kernel refuses.
        """
        blocked = sorted(contents.tops & self._paths_to_nodes(self.nodes[0]))
        if blocked:
            raise RedpakError(
                f"{self.nodes[0]}/{blocked[0]}: holds child nodes, a package cannot write there"
            )
        try:
            self._assemble(contents, scriptlets)
        except OSError as err:
            # dnf's state below must be in sight again: dnf removes its lock file there.
            with contextlib.suppress(OSError):
                libc.umount(self.stage.root, detach=True)
            refused = err.errno in (errno.EINVAL, errno.EPERM, errno.ENODEV, errno.ELOOP)
            raise RedpakError(
                f"{self.nodes[0]}: cannot mount the family view: {err.strerror or err}",
                hint="overlayfs is needed (without root: kernel 5.11 or later, and no mount below"
                " the core OS's /usr)" if refused else "",
            ) from err

    def dismantle(self) -> None:
        """Detach every mount, so that the stage can be committed. Raises OSError."""
        libc.umount(self.stage.root, detach=True)
        libc.umount(self.stage.mounts, detach=True)

    def _assemble(self, contents: TransactionContents, scriptlets: bool) -> None:
        mounts = self.stage.mounts
        libc.mount("tmpfs", mounts, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=0755")
        with _working_directory(mounts):
            # Everything is named from here: a layer's own path may hold a colon or be too long.
            for name in ("stage", "skeleton", "layers", "names"):
                os.mkdir(name)
            libc.mount(self.stage.path, "stage", "", libc.MS_BIND)
            layers = self._bind_layers()
            self._build_skeleton(layers, contents, scriptlets)
            libc.mount("stage/delta", self.stage.root, "", libc.MS_BIND)
            self._make_root()
            for top, directories in layers.items():
                self._prepare_upper(top, directories[0])
            self._copy_up_replaced(layers, contents.symlinks)
            for top, directories in layers.items():
                self._mount_overlay(top, directories)
            self._bind_state()

    def _bind_layers(self) -> dict[str, list[str]]:
        """Short names for each layer of each top-level directory, topmost first."""
        layers: dict[str, list[str]] = {"var": []}
        for node in self.nodes:
            for top in sorted(self._node_tops(node)):
                self._add_layer(layers, top, f"{node}/{top}")
        for top in _CORE_TOPS:
            if os.path.isdir(f"/{top}") and not os.path.islink(f"/{top}"):
                self._add_layer(layers, top, f"/{top}")
        return layers

    def _add_layer(self, layers: dict[str, list[str]], top: str, path: str) -> None:
        target = f"layers/{sum(map(len, layers.values()))}"
        layers.setdefault(top, []).append(target)
        if top == "etc" and not self.privileged and os.stat(path).st_uid != os.geteuid():
            # Scriptlets append to files that root owns (passwd): they get a copy.
            _copy_tree(path, target)
            return
        os.mkdir(target)
        libc.mount(path, target, "", libc.MS_BIND)

    def _paths_to_nodes(self, node: str) -> set[str]:
        """The top-level directories of ``node`` that are, or lead to, other nodes."""
        start = len(node) + 1
        return {
            path[start:].split("/", 1)[0]
            for path in self._descendants
            if path.startswith(f"{node}/")
        }

    def _node_tops(self, node: str) -> list[str]:
        skipped = _NOT_LAYERS | self._paths_to_nodes(node)
        with os.scandir(node) as entries:
            return [
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(".")
                and entry.name not in skipped
                and os.access(entry.path, os.R_OK | os.X_OK)
            ]

    def _build_skeleton(
        self, layers: dict[str, list[str]], contents: TransactionContents, scriptlets: bool
    ) -> None:
        skeleton = Skeleton("skeleton", layers, take_ownership=not self.privileged)
        for path in sorted(contents.configs):
            if self._only_core_has(path):
                skeleton.add_whiteout(path)
        if not self.privileged:
            skeleton.add_directories(contents.directories)
            if scriptlets:
                for top in layers:
                    skeleton.add_tree(top, _SCRIPTLET_DEPTH)
        if os.path.isdir("/etc/ld.so.conf.d"):
            # A scriptlet's ldconfig is to find what the family's programs find when they run.
            skeleton.add_directories(["/etc/ld.so.conf.d"])
            with open("skeleton/etc/ld.so.conf.d/redpak.conf", "w", encoding="ascii") as stream:
                stream.writelines(f"{directory}\n" for directory in STANDARD_DIRECTORIES)
        skeleton.add_directories(f"/var/{name}" for name in _NODE_STATE)
        for name in _NODE_STATE:
            os.makedirs(f"skeleton/var/{name}", exist_ok=True)
        for top in layers:
            if os.path.isdir(f"skeleton/{top}"):
                layers[top].insert(0, f"skeleton/{top}")

    def _only_core_has(self, path: str) -> bool:
        """Whether ``path`` is a file of the core OS that no node has.

        rpm would take it for the administrator's and write the package's own beside it.
        """
        return os.path.lexists(path) and not any(
            os.path.lexists(node + path) for node in self.nodes
        )

    def _make_root(self) -> None:
        """The entries of the root directory that are no layers."""
        root = self.stage.root
        for name in os.listdir("/"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        for name in VOLATILE_TOPS:
            os.mkdir(f"{root}/{name}", 0o755)
        quiet = libc.MS_NOSUID | libc.MS_NODEV
        libc.mount("tmpfs", f"{root}/tmp", "tmpfs", quiet, "mode=1777")
        libc.mount("tmpfs", f"{root}/run", "tmpfs", quiet, "mode=0755")
        _mount_proc(f"{root}/proc")
        _make_devices(f"{root}/dev")

    def _prepare_upper(self, top: str, model: str) -> None:
        """Make the upper and work directory of ``top``, which starts as ``model`` is now."""
        os.mkdir(f"stage/work/{top}")
        os.mkdir(f"stage/delta/{top}")
        info = os.stat(model)
        if self.privileged:
            os.chown(f"stage/delta/{top}", info.st_uid, info.st_gid)
        os.chmod(f"stage/delta/{top}", stat.S_IMODE(info.st_mode))

    def _copy_up_replaced(
        self, layers: Mapping[str, Sequence[str]], symlinks: Collection[str]
    ) -> None:
        """Copy directories of the node that a package replaces by a symlink into the stage.

        Its scriptlet has to rename such a directory first, and overlayfs can only rename one that
        has nothing in lower layers (EXDEV otherwise, with redirects off).
        """
        node_path = self.nodes[0]
        for path in sorted(symlinks):
            source = node_path + path
            if os.path.isdir(source) and not os.path.islink(source):
                target = f"stage/delta{path}"
                self._copy_up_parents(path)
                run(["cp", "-a", "--", source, target], package="coreutils")
                prefix = "trusted" if self.privileged else "user"
                os.setxattr(target, f"{prefix}.overlay.opaque", b"y")

    def _copy_up_parents(self, path: str) -> None:
        """Make the directories above ``path`` in the stage as they are in the node."""
        parts = path.strip("/").split("/")[:-1]
        for end in range(2, len(parts) + 1):
            parent = "/".join(parts[:end])
            source, target = f"{self.nodes[0]}/{parent}", f"stage/delta/{parent}"
            if not os.path.isdir(target):
                os.mkdir(target)
                if self.privileged:
                    info = os.stat(source)
                    os.chown(target, info.st_uid, info.st_gid)
                shutil.copystat(source, target)

    def _mount_overlay(self, top: str, directories: Sequence[str]) -> None:
        lower = ":".join(_short_name(directory) for directory in directories)
        upper = _short_name(f"stage/delta/{top}")
        work = _short_name(f"stage/work/{top}")
        options = (
            f"lowerdir={lower},upperdir={upper},workdir={work}"
            ",redirect_dir=nofollow,metacopy=off,index=off"
        )
        if not self.privileged:
            options += ",userxattr"
        libc.mount("overlay", f"{self.stage.root}/{top}", "overlay", 0, options)

    def _bind_state(self) -> None:
        """The node's rpmdb, dnf state, cache and logs: plain directories, no layers below."""
        var = f"{self.stage.root}/var"
        libc.mount("stage/root/var/lib/rpm", f"{var}/lib/rpm", "", libc.MS_BIND)
        libc.mount("stage/root/var/lib/dnf", f"{var}/lib/dnf", "", libc.MS_BIND)
        for name in ("cache", "log"):
            place = f"{self.nodes[0]}/var/{name}"
            os.makedirs(place, exist_ok=True)  # whoever needs room removes these first
            libc.mount(place, f"{var}/{name}", "", libc.MS_BIND)
        libc.mount("tmpfs", f"{var}/tmp", "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "mode=1777")


def _short_name(path: str) -> str:
    """Another name for a path: commas and colons mean something in the options of overlayfs."""
    name = f"names/{len(os.listdir('names'))}"
    os.symlink(f"../{path}", name)
    return name


def _mount_proc(target: str) -> None:
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    for place in ("/proc", target):
        try:
            libc.mount("proc", place, "proc", flags)
        except PermissionError:
            # Parts of the outer /proc are masked, as in containers: show that one.
            if place == target:
                libc.mount("/proc", target, "", libc.MS_BIND | libc.MS_REC)
    for name in ("sys", "sysrq-trigger", "irq", "bus"):
        # A scriptlet prepares a node, it does not set up the machine it is prepared on.
        part = f"{target}/{name}"
        if os.path.exists(part):
            libc.mount(part, part, "", libc.MS_BIND)
            libc.mount(part, part, "", libc.MS_BIND | libc.MS_REMOUNT | libc.MS_RDONLY | flags)


def _make_devices(target: str) -> None:
    libc.mount("tmpfs", target, "tmpfs", libc.MS_NOSUID, "mode=0755")
    for name in _DEVICES:
        if os.path.exists(f"/dev/{name}"):
            os.close(os.open(f"{target}/{name}", os.O_CREAT | os.O_CLOEXEC))
            libc.mount(f"/dev/{name}", f"{target}/{name}", "", libc.MS_BIND)
    for name, text in _DEVICE_LINKS:
        os.symlink(text, f"{target}/{name}")
    os.mkdir(f"{target}/shm", 0o1777)


def _copy_tree(source: str, target: str) -> None:
    """Copy directories, symlinks and regular files for the caller to own.

    A file that he may not read (shadow) becomes an empty one: tools that append to it go on.
    """
    info = os.stat(source)
    os.mkdir(target)
    os.chmod(target, stat.S_IMODE(info.st_mode))
    try:
        entries = list(os.scandir(source))
    except PermissionError:
        return
    for entry in entries:
        place = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), place)
        elif entry.is_dir():
            _copy_tree(entry.path, place)
        elif entry.is_file():
            _copy_file(entry.path, place)


def _copy_file(source: str, target: str) -> None:
    try:
        shutil.copyfile(source, target)
    except PermissionError:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileNotFoundError:
        return  # a lock or temporary file of whoever works on the host's accounts meanwhile
    with contextlib.suppress(FileNotFoundError):
        shutil.copystat(source, target)


@contextlib.contextmanager
def _working_directory(path: str) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(path)
        yield
    finally:
        os.fchdir(before)
        os.close(before)
