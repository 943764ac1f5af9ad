# SPDX-License-Identifier: Apache-2.0
"""Kinds of values: how text that stands in a configuration becomes a typed value, and back.

A scalar reaches a kind as it was written: `umask: 027` arrives as "027". Each kind says what it
expects (for messages and documentation), converts (raising ValueError with what is wrong), writes
a value back as text, and describes itself as JSON Schema.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from redpak.errors import TYPE_CHECKING
from redpak.findings import closest
from redpak.values import dataclass, field

if TYPE_CHECKING:
    from typing import Any

ALIAS = re.compile(r"[A-Za-z0-9+_@.-]+")
# Not for nodes: the core OS's own, and the directory of private storage beside /nodes/ALIAS.
RESERVED_ALIASES = frozenset(("redmain", "_private"))
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f]")
_TRUE = frozenset(("true", "yes", "on", "1", "enabled"))
_FALSE = frozenset(("false", "no", "off", "0", "disabled"))
MAX_CPU = 8191  # the kernel's largest NR_CPUS is 8192
# Compiled when first used: most configurations limit nothing.
_SIZE = r"(\d{1,18})([kmgt]?)"
_CPUS = r"\d{1,5}(-\d{1,5})?( *, *\d{1,5}(-\d{1,5})?)*"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class BadValue(ValueError):
    """The text is not what the kind expects; `hint` may name what was meant."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Kind:
    """One kind of scalar: `expects` completes the sentence "expected ..."."""

    name: str
    expects: str
    parse: Callable[[str], Any]
    write: Callable[[Any], str]
    schema: dict[str, Any] = field(hash=False)


class ShareState(enum.Enum):
    """Whether a namespace is the caller's (enabled), a new one (disabled) or a given one (join)."""

    DISABLED = "disabled"
    JOIN = "join"
    ENABLED = "enabled"


@dataclass(frozen=True)
class Share:
    """How a namespace is shared; `path` is the namespace file to join, else empty."""

    state: ShareState
    path: str = ""

    def __str__(self) -> str:
        return self.path if self.state is ShareState.JOIN else self.state.value


def _text(text: str) -> str:
    if "\0" in text:
        raise BadValue("has a NUL character")
    return text


def _line(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise BadValue("has a control character or a line break")
    return text


def _bool(text: str) -> bool:
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadValue("", "write true or false")


def _umask(text: str) -> int:
    if not re.fullmatch(r"(0o)?[0-7]{1,4}", text) or int(text.replace("0o", ""), 8) > 0o777:
        raise BadValue("", "write octal digits such as 027, no more than 0777")
    return int(text.replace("0o", ""), 8)


def _alias(text: str) -> str:
    if not ALIAS.fullmatch(text) or text in (".", "..") or len(text) > 64:
        raise BadValue("", "use letters, digits and + _ @ . - only (at most 64, not . or ..)")
    return text


def check_path(text: str) -> str:
    """`text` if it may name a mount or a file: no control characters and no ".." part."""
    _line(text)
    if ".." in text.split("/"):
        raise BadValue('has a ".." part', "write the path without ..")
    if not text:
        raise BadValue("is empty")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise BadValue("", "use letters, digits and _, no digit first")
    return text


# linux/capability.h, in the order of their numbers.
_CAPABILITY_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(f"CAP_{name}" for name in _CAPABILITY_NAMES.split())


def _capability(text: str) -> str:
    name = text.upper()
    if name == "ALL":
        return "all"
    if name in CAPABILITIES:
        return name
    near = closest(name.lower(), [known.lower() for known in CAPABILITIES])
    raise BadValue("", f'did you mean "{near.upper()}"?' if near
                   else "see capabilities(7) for their names")


def _share(text: str) -> Share | None:
    word = text.lower()
    if word == "unset":
        return None
    if word.startswith(("/", "$")):
        return Share(ShareState.JOIN, check_path(text))
    if word in ("enabled", "disabled"):
        return Share(ShareState(word))
    near = closest(word, ("enabled", "disabled", "unset"))
    raise BadValue("", f'did you mean "{near}"?' if near else "")


def _seccomp(text: str) -> str:
    if text.lower() in ("default", "none"):
        return text.lower()
    if not text.startswith(("/", "$")):
        raise BadValue("", "write default, none, or a path such as /etc/filter")
    return check_path(text)


def parse_size(text: str) -> int | None:
    """A count of bytes ("512M", "1g", "4096"); None for "max". Raises BadValue."""
    word = text.lower()
    if word == "max":
        return None
    found = re.fullmatch(_SIZE, word, re.ASCII)
    if not found:
        raise BadValue("", "write bytes such as 536870912, 512M or max")
    return int(found[1]) * _UNITS[found[2]]


def parse_cpus(text: str) -> frozenset[int]:
    """The numbers of a list such as "0-2,5". Raises BadValue."""
    # "1 2" is two numbers to the kernel (lib/bitmap-str.c): a comma says so to people, too.
    text = text.strip(" ")
    numbers: set[int] = set()
    if text and (len(text) > 1000 or not re.fullmatch(_CPUS, text, re.ASCII)):
        raise BadValue("", "write numbers and ranges such as 0-2,5")
    for part in filter(None, text.replace(" ", "").split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high < low or high > MAX_CPU:
            raise BadValue(f"has the bad range {part}", "write numbers and ranges such as 0-2,5")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


_CPU_MAX = r"(max|\d{1,15})( +0*[1-9]\d{0,14})?"


def _cpu_max(text: str) -> str:
    if not re.fullmatch(_CPU_MAX, text.lower(), re.ASCII):
        raise BadValue("", "write microseconds and a period such as 50000 100000, or max")
    return _decimal(" ".join(text.lower().split()))


def _decimal(text: str) -> str:
    """`text` with its numbers as the kernel must read them: 010 would be eight in a size, and
    08:16 another name of the device 8:16."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


_IO_MAX = r"\d{1,9}:\d{1,9}( +[rw](bps|iops)=(\d{1,18}|max))+"


def _io_max(text: str) -> str:
    if not re.fullmatch(_IO_MAX, text.lower(), re.ASCII):
        raise BadValue("", "write a device and limits such as 8:16 rbps=2097152 wiops=120")
    return _decimal(" ".join(text.lower().split()))


def _count(text: str) -> str:
    word = text.lower()
    if word != "max" and not re.fullmatch(r"\d{1,18}", word, re.ASCII):
        raise BadValue("", "write a number or max")
    return _decimal(word)


def _io_weight(text: str) -> str:
    found = re.fullmatch(r"((default|\d{1,9}:\d{1,9}) +)?(\d{1,5})", text.lower(), re.ASCII)
    if not found or not 1 <= int(found[3]) <= 10000:
        raise BadValue("", "write a weight from 1 to 10000, alone or after default or 8:16")
    return _decimal(" ".join(text.lower().split()))


def _checked(parse: Callable[[str], Any]) -> Callable[[str], str]:
    """A parser that keeps the text itself once `parse` accepts it, with plain numbers."""
    def keep(text: str) -> str:
        parse(text)
        return _decimal(text.lower())
    return keep


def integer(low: int, high: int, what: str = "") -> Kind:
    """A whole number of [low, high]."""
    expects = what or f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise BadValue("", f"write a number from {low} to {high}")
        return int(text)
    return Kind("integer", expects, parse, str,
                {"type": "integer", "minimum": low, "maximum": high})


def choice(enumeration: type[enum.Enum], noun: str, **synonyms: enum.Enum) -> Kind:
    """One of the members of an enumeration, by value or synonym, whatever its case."""
    members = {str(member.value).lower(): member for member in enumeration}
    members.update(synonyms)
    names = [str(member.value) for member in enumeration]

    def parse(text: str) -> enum.Enum:
        member = members.get(text.lower())
        if member is None:
            near = closest(text, members)
            raise BadValue("", f'did you mean "{members[near].value}"?' if near
                           else f"known: {', '.join(names)}")
        return member
    return Kind("choice", noun, parse, lambda member: str(member.value), {"enum": names})


def _string(pattern: str = "") -> dict[str, Any]:
    return {"type": "string", "pattern": pattern} if pattern else {"type": "string"}


# Text is text as written: what YAML would take for a number or a boolean is text too.
_ANY_SCALAR = {"type": ["string", "number", "boolean"]}
TEXT = Kind("text", "text", _text, str, _ANY_SCALAR)
LINE = Kind("line", "one line of text", _line, str, _ANY_SCALAR)
PATH = Kind("path", "a path", check_path, str, _string())
ALIAS_KIND = Kind("alias", "an alias", _alias, str, _string(r"^[A-Za-z0-9+_@.-]{1,64}$"))
VARIABLE = Kind("variable", "the name of a variable", _variable, str,
                _string("^[A-Za-z_][A-Za-z0-9_]*$"))
CAPABILITY = Kind("capability", "a capability such as CAP_NET_ADMIN, or all", _capability, str,
                  _string("^([Cc][Aa][Pp]_[A-Za-z_]+|[Aa][Ll][Ll])$"))
BOOL = Kind("boolean", "true or false", _bool, lambda value: "true" if value else "false",
            {"type": "boolean"})
UMASK = Kind("umask", "an octal mask such as 027", _umask, lambda value: f"{value:03o}",
             {"type": ["string", "integer"]})
SHARE = Kind("share", "enabled, disabled, unset or the path of a namespace to join", _share, str,
             _string("^([Ee]nabled|[Dd]isabled|[Uu]nset|[/$].*)$"))
SECCOMP = Kind("seccomp", "default, none or the absolute path of a compiled filter", _seccomp, str,
               _string())
SIZE = Kind("size", "a size in bytes (K, M, G, T) or max", _checked(parse_size), str,
            {"type": ["string", "integer"]})
CPUS = Kind("cpus", "a list of numbers such as 0-2,5", _checked(parse_cpus), str,
            {"type": ["string", "integer"]})
CPU_MAX = Kind("cpu-max", "microseconds and a period such as 50000 100000", _cpu_max, str,
               {"type": ["string", "integer"]})
IO_MAX = Kind("io-max", "a device and its limits", _io_max, str, _string())
COUNT_MAX = Kind("count", "a whole number or max", _count, str, {"type": ["string", "integer"]})
IO_WEIGHT = Kind("io-weight", "default or a device, and a weight", _io_weight, str,
                 {"type": ["string", "integer"]})


class Partition(enum.Enum):
    """What cpuset.cpus.partition can be (kernel, admin-guide/cgroup-v2.rst)."""

    MEMBER = "member"
    ROOT = "root"
    ISOLATED = "isolated"


PARTITION = choice(Partition, "a cpuset partition")
