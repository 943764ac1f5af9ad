# SPDX-License-Identifier: Apache-2.0
"""The default system call filter of applications (tag `seccomp: default`).

It refuses, with EPERM, what containers usually refuse: loading kernel code, mounting, new
namespaces, tracing, keyrings, clocks, raw hardware, and what is obsolete. A call through another
ABI than the machine's own (i386, x32) is refused altogether, since it has other numbers.
"""

from __future__ import annotations

import os
import stat
import struct

from redpak.errors import TYPE_CHECKING
from redpak.findings import Origin
from redwrap.errors import LaunchError

if TYPE_CHECKING:
    from typing import Optional

# linux/audit.h
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
# asm/unistd.h. aarch64 and riscv64 share the generic table (asm-generic/unistd.h).
_X86_64 = {
    "ptrace": 101, "syslog": 103, "ustat": 136, "sysfs": 139, "modify_ldt": 154,
    "pivot_root": 155, "_sysctl": 156, "acct": 163, "settimeofday": 164, "mount": 165,
    "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170,
    "setdomainname": 171, "iopl": 172, "ioperm": 173, "create_module": 174, "init_module": 175,
    "delete_module": 176, "get_kernel_syms": 177, "query_module": 178, "quotactl": 179,
    "nfsservctl": 180, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237,
    "set_mempolicy": 238, "get_mempolicy": 239, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272, "move_pages": 279,
    "vmsplice": 278, "perf_event_open": 298, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "open_tree_attr": 467, "chroot": 161,
}
_GENERIC = {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42,
    "chroot": 51, "quotactl": 60, "vmsplice": 75, "acct": 89, "unshare": 97, "kexec_load": 104,
    "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117,
    "reboot": 142, "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "add_key": 217,
    "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225, "mbind": 235,
    "get_mempolicy": 236, "set_mempolicy": 237, "migrate_pages": 238, "move_pages": 239,
    "perf_event_open": 241, "name_to_handle_at": 264, "open_by_handle_at": 265,
    "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
    "kcmp": 272, "finit_module": 273, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "open_tree_attr": 467,
}
# clone and ioctl are refused by their arguments; clone3 hides its flags in memory, so it is
# answered ENOSYS and libc falls back to clone.
_NUMBERS = {"x86_64": (_X86_64, 56, 16), "aarch64": (_GENERIC, 220, 29),
            "riscv64": (_GENERIC, 220, 29)}
_CLONE3 = 435
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME} of linux/sched.h
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_X32_BIT = 0x40000000

# linux/filter.h, linux/seccomp.h
_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_ANY, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_NUMBER, _ARCHITECTURE, _ARGUMENT0, _ARGUMENT1 = 0, 4, 16, 24

Instruction = tuple[int, int, int, int]


def default_filter(machine: str) -> bytes:
    """The filter for `machine` (uname -m) as a BPF program. Raises LaunchError."""
    if machine not in _ARCH:
        raise LaunchError(f"config.seccomp: there is no default filter for the machine {machine}",
                          hint="name the file of a compiled filter")
    names, clone, ioctl = _NUMBERS[machine]
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_JUMP_EQUAL, 1, 0, _ARCH[machine]), (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        program += [(_JUMP_ABOVE, 0, 1, _X32_BIT), (_RETURN, 0, 0, _EPERM)]
    for number in sorted(names.values()):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    program += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ENOSYS)]
    program += [(_JUMP_EQUAL, 0, 4, clone), (_LOAD, 0, 0, _ARGUMENT0),
                (_JUMP_ANY, 0, 1, _NEW_NAMESPACES), (_RETURN, 0, 0, _EPERM),
                (_RETURN, 0, 0, _ALLOW)]
    # What could type into the terminal that the application shares with its caller.
    program += [(_JUMP_EQUAL, 0, 4, ioctl), (_LOAD, 0, 0, _ARGUMENT1),
                (_JUMP_EQUAL, 1, 0, _TIOCSTI), (_JUMP_EQUAL, 0, 1, _TIOCLINUX),
                (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def load_profile(profile: str, origin: Optional[Origin]) -> bytes:
    """The filter that the tag names: "default" or the file of a compiled one. Raises LaunchError.
    """
    if profile == "default":
        return default_filter(os.uname().machine)
    where = f"{origin}: config.seccomp: {profile}"
    try:
        with open(profile, "rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(8 * 4096 + 1)
    except OSError as err:
        raise LaunchError(f"{where}: {err.strerror}",
                          hint="write default, none, or the path of a compiled filter") from err
    if not stat.S_ISREG(status.st_mode) or not data or len(data) % 8 or len(data) > 8 * 4096:
        raise LaunchError(f"{where} is no compiled filter: it has {len(data)} bytes",
                          hint="write it with seccomp_export_bpf(3), at most 4096 instructions")
    if struct.unpack("H", data[-8:-6])[0] & 7 != _RETURN:  # its class, of a constant or not
        raise LaunchError(f"{where} is no compiled filter: it does not end with a return",
                          hint="write it with seccomp_export_bpf(3)")
    return data
