# SPDX-License-Identifier: Apache-2.0
"""Fuzz the loader: no exception but the configuration error, no run over 1 s or 100 MiB.

`tox -e fuzz` runs it for REDPAK_FUZZ_SECONDS, 600 by default. Inputs are drawn by hypothesis:
mutations of the configurations we ship, text made of YAML's own tokens, repetitions, and bytes.
What hypothesis finds it shrinks and prints.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from redpak.errors import ConfigError
from redpak.load import FileKind, check_text, load_text
from redpak.yamltree import MAX_BYTES

SECONDS = float(os.environ.get("REDPAK_FUZZ_SECONDS", "600"))
MAX_SECONDS = 1.0
MAX_KIB = 100 * 1024  # of resident memory more than before the run

CONF = Path(__file__).resolve().parents[2] / "conf"
SEEDS = tuple(file.read_bytes() for file in sorted(CONF.rglob("*.yaml")))
TOKENS = tuple(token.encode() for token in (
    "headers", "alias", "config", "exports", "environ", "enforce", "mode", "mount", "path", "key",
    "value", "Public", "Overlay", "Execfd", "cgroups", "io", "max", "capabilities", "cap", "add",
    "share_net", "umask", "8:0 rbps=",
    "cpuset: {cpus: ", "0-8191,", "512m", "$NODE_PATH", "${", "\\$", "/", "..", "a", "0", "9" * 20,
    ": ", "- ", "? ", ", ", "[", "]", "{", "}", "\n", "\n  ", "\n    ", "\t", " ", "&a ", "*a",
    "!!", "!x ", "'", '"', "|", ">", "|2-", "#", "%", "---\n", "...\n", "<<", "\\x00", "\\u2028",
    "\u2028", "\ufeff", "\x85", "\r", "~", "=", "@", "`"))

fragments = st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4),
                      st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")))


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A shipped configuration with some spans replaced, moved, doubled or cut."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        other = draw(st.sampled_from(SEEDS))[start:end]
        piece = draw(st.one_of(fragments, st.sampled_from([data[start:end] * 2, b"", other])))
        data = data[:start] + piece + data[end:]
    return data


@st.composite
def token_texts(draw: st.DrawFn) -> bytes:
    """Tokens of YAML and of our format, in any order."""
    return b"".join(draw(st.lists(fragments, max_size=60)))


@st.composite
def repetitions(draw: st.DrawFn) -> bytes:
    """A short pattern up to the largest size that is looked at: what costs more than linearly."""
    head = draw(token_texts())[:200]
    unit = b"".join(draw(st.lists(fragments, min_size=1, max_size=5)))
    size = draw(st.sampled_from([100, 5_000, 50_000, MAX_BYTES]))
    text: bytes = (head + unit * (size // max(1, len(unit))))[:MAX_BYTES]
    return text


inputs = st.one_of(mutations(), token_texts(), repetitions(), st.binary(max_size=300))


def memory_kib(field: str) -> int:
    """VmRSS (now) or VmHWM (the peak since it was last reset) of this process, proc(5)."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def reset_peak() -> None:
    """Make VmHWM start again from the current size: 5 to clear_refs, proc(5)."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
        clear.write("5")


class Watch:
    """What the session saw."""

    def __init__(self) -> None:
        self.runs = 0
        self.accepted = 0
        self.slowest = 0.0
        self.slowest_input = b""
        self.largest = 0

    def load(self, data: bytes, kind: FileKind) -> None:
        reset_peak()
        gc.disable()  # hypothesis has much to collect, and that is not the loader's time
        size, before = memory_kib("VmRSS"), time.thread_time()
        config, findings = check_text(data, "fuzz.yaml", kind=kind)
        taken, grown = time.thread_time() - before, memory_kib("VmHWM") - size
        gc.enable()
        self.runs += 1
        self.accepted += config is not None
        self.largest = max(self.largest, grown)
        if taken > self.slowest:
            self.slowest, self.slowest_input = taken, data
        assert taken <= MAX_SECONDS, f"{taken:.2f} s"
        assert grown <= MAX_KIB, f"{grown} KiB"
        assert (config is None) == bool(findings)
        assert all(str(finding) and "\n" not in str(finding) for finding in findings)
        if config is None and self.runs % 50 == 0:
            try:
                load_text(data, "fuzz.yaml", kind=kind)
            except ConfigError as error:
                assert error.findings == findings
            else:
                raise AssertionError("accepted the second time")


def test_the_loader_survives_any_input_in_bounded_time_and_memory() -> None:
    watch = Watch()
    end = time.monotonic() + SECONDS
    batch = 0
    while time.monotonic() < end:
        batch += 1

        @seed(int.from_bytes(os.urandom(4), "big"))
        @settings(max_examples=500, deadline=None, database=None,
                  phases=(Phase.generate, Phase.shrink),
                  suppress_health_check=list(HealthCheck))
        @given(inputs, st.sampled_from(list(FileKind)))
        def fuzz(data: bytes, kind: FileKind) -> None:
            watch.load(data, kind)
        fuzz()
    print(f"\n{watch.runs} inputs, {watch.accepted} accepted, {SECONDS:.0f} s; slowest "
          f"{watch.slowest * 1000:.1f} ms of processor time ({len(watch.slowest_input)} bytes: "
          f"{watch.slowest_input[:60]!r}); most memory for one {watch.largest / 1024:.1f} MiB")
    assert watch.runs > 0
