# SPDX-License-Identifier: Apache-2.0
"""Damaged plans and odd command lines: no fault of memory in the part of red-wrap that is in C.

tests/fuzz/fuzz_launcher.c mutates a real plan for REDPAK_FUZZ_SECONDS, 5 by default, under
AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from support.actors import actor_kinds, find_actor
from support.wrapping import CHECKOUT, make_ground

LAUNCHER = CHECKOUT / "redwrap/launcher"
FUZZER = CHECKOUT / "tests/fuzz/fuzz_launcher.c"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror",
         "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{LAUNCHER}")


def test_no_plan_and_no_command_line_is_a_fault_of_memory(
        red_wrap: Path, pool_root: Path, tmp_path: Path) -> None:
    ground = make_ground(find_actor(actor_kinds()[0]), pool_root, red_wrap)
    node = ground.node(
        "core", config=["seccomp: default", "umask: 027", "share_time: disabled"],
        environ=["- {key: V, mode: Execfd, value: echo x}"],
        exports=["- {mode: Execfd, mount: /etc/who, path: 'echo $LEAF_ALIAS'}",
                 "- {mode: Overlay, mount: /stack, path: $NODE_PATH/layer}",
                 "- {mode: OverlayPrivate, mount: /changed, path: $NODE_PATH/layer}",
                 "- {mode: Restricted, mount: /none, path: $NODE_PATH/none, optional: true}"])
    ground.write(node / "layer/file", "")
    ground.settle()
    ground.output(node, "true")
    fuzzer = tmp_path / "fuzzer"
    sources = [str(path) for path in sorted(LAUNCHER.glob("*.c")) if path.name != "launcher.c"]
    subprocess.run(["cc", *FLAGS, "-o", fuzzer, FUZZER, *sources], check=True)
    seconds = os.environ.get("REDPAK_FUZZ_SECONDS", "5")
    done = subprocess.run([fuzzer, ground.plan(node), seconds, str(time.time_ns() % 10**6)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plans, well_formed = (int(word) for word in done.stdout.split() if word.isdigit())
    assert plans > well_formed > plans / 10, done.stdout
