# SPDX-License-Identifier: Apache-2.0
"""Other containers with the same application on the same platform: a Debian root as their image.

The root is the one that scripts/prove made with debootstrap; what is not installed here, or does
not work here, is reported as such and left out of the tables.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Peers:
    """Where the others keep their things. `absent` says who could not take part, and why."""

    directory: Path
    base: Path
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def podman(self) -> list[str]:
        """podman with a storage of its own, without control groups: the machine may have none."""
        # It allows no long path for what lives only as long as the bench.
        return ["podman", f"--root={self.directory}/podman", f"--runroot=/run/bench.{os.getpid()}",
                "--storage-driver=overlay", "--cgroup-manager=cgroupfs"]

    def run_options(self) -> list[str]:
        # Limits that need no privilege to be set.
        return ["--network=host", "--cgroups=disabled", "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=1024:1024"]

    def import_image(self, root: Path, name: str) -> None:
        """Make an image of a root directory, which is one layer. Raises CalledProcessError."""
        archive = subprocess.Popen(
            ["tar", "-C", str(root), "--exclude=./proc/*", "--exclude=./sys/*", "-c", "."],
            stdout=subprocess.PIPE)
        subprocess.run([*self.podman, "import", "--quiet", "-", f"localhost/{name}"],
                       stdin=archive.stdout, check=True, capture_output=True)
        archive.wait()

    def build_image(self, containerfile: str, context: Path, name: str) -> float:
        """Build an image from nothing cached but its base; wall time in seconds."""
        (context / "Containerfile").write_text(containerfile)
        start = time.perf_counter()
        subprocess.run([*self.podman, "build", "--no-cache", "--quiet", "--isolation=chroot",
                        "--network=host", f"--tag=localhost/{name}", str(context)],
                       check=True, capture_output=True)
        return time.perf_counter() - start

    def make_bundle(self) -> Path:
        """An OCI bundle of the base, as `crun spec` writes it, with the host's network."""
        bundle = self.directory / "bundle"
        bundle.mkdir()
        subprocess.run(["crun", "spec"], cwd=bundle, check=True)
        file = bundle / "config.json"
        config = json.loads(file.read_text())
        config["process"].update(terminal=False, args=["/usr/bin/true"])
        config["process"].pop("rlimits", None)
        config["root"] = {"path": str(self.base), "readonly": True}
        kept = [one for one in config["linux"]["namespaces"]
                if one["type"] not in ("network", "cgroup")]
        config["linux"]["namespaces"] = kept
        # The machine may have control groups that crun does not like.
        config["linux"].pop("resources", None)
        config["mounts"] = [one for one in config["mounts"] if one["type"] != "cgroup"]
        file.write_text(json.dumps(config))
        return bundle

    def launches(self) -> dict[str, list[str]]:
        """Command lines that run /usr/bin/true, of those that can."""
        ways: dict[str, Callable[[], list[str]]] = {
            "podman run": self._podman_launch,
            "crun run": lambda: ["crun", "--cgroup-manager=disabled", "run",
                                 f"--bundle={self.make_bundle()}", "redpak-bench"],
            "firejail": lambda: ["firejail", "--noprofile", "--quiet", "--", "/usr/bin/true"],
            "unshare": lambda: ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork",
                                "--mount-proc", "/usr/bin/true"],
        }
        found = {}
        for name, way in ways.items():
            program = shutil.which(name.split()[0])
            if program is None:
                self.absent[name] = "not installed"
                continue
            try:
                argv = way()
                subprocess.run(argv, check=True, capture_output=True, timeout=120)
            except subprocess.CalledProcessError as error:
                self.absent[name] = f"fails here: {_last_line(error)}"
            else:
                found[name] = [program, *argv[1:]]
        return found

    def _podman_launch(self) -> list[str]:
        self.import_image(self.base, "base")
        return [*self.podman, "run", "--rm", *self.run_options(), "localhost/base",
                "/usr/bin/true"]

    def start_service(self, image: str, command: Sequence[str]) -> tuple[str, list[int]]:
        """Start a container in the background: its id, and the processes that it takes."""
        words = [*self.podman, "run", "--detach", *self.run_options(),
                 "--env=LD_LIBRARY_PATH=/usr/lib64", image, *command]
        name = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        form = "{{.State.ConmonPid}} {{.State.Pid}}"
        state = subprocess.run([*self.podman, "inspect", "--format", form, name], check=True,
                               capture_output=True, text=True).stdout.split()
        return name, [int(pid) for pid in state]

    def stop_service(self, name: str) -> None:
        subprocess.run([*self.podman, "rm", "--force", "--time=0", name], check=True,
                       capture_output=True)

    def close(self) -> None:
        """Unmount what podman keeps mounted."""
        if shutil.which("podman"):
            subprocess.run([*self.podman, "umount", "--all"], capture_output=True)
            shutil.rmtree(f"/run/bench.{os.getpid()}", ignore_errors=True)
            overlay = self.directory / "podman/overlay"
            if overlay.is_mount():
                subprocess.run(["umount", str(overlay)], check=True)


def _last_line(error: subprocess.CalledProcessError) -> str:
    lines = bytes(error.stderr or b"").decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"status {error.returncode}"


def disk_usage(*paths: Path) -> float:
    """MiB on disk; a file with several links counts once."""
    done = subprocess.run(["du", "-sxck", *map(str, paths)], check=True, capture_output=True,
                          text=True)
    return int(done.stdout.splitlines()[-1].split()[0]) / 1024


def proportional_memory(pids: Sequence[int]) -> float:
    """MiB of the PSS of these processes and all below them."""
    total, pending = 0, list(pids)
    while pending:
        pid = pending.pop()
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pending += [int(child) for child in children if int(child) not in pids]
    return total / 1024
