# SPDX-License-Identifier: Apache-2.0
"""Seccomp filters for package transactions.

The sync filter makes fsync(2) and its like do nothing. A stage is thrown away when the machine
crashes before the commit, and written to the device as a whole at its beginning: what rpm, dnf's
databases and scriptlets sync on the way is for nothing, and costs more than all else that they do.

In a user namespace that maps one id, chown to any other id fails with EINVAL, and rpm gives up.
The transaction filter answers success without changing the owner: files then belong to the user,
which is what the node wants (design section 8). Both filters deny the ioctls with which a program
types into the terminal it shares with the administrator who started it.
"""

from __future__ import annotations

import ctypes
import os
import struct

from redpak.errors import RedpakError
from redsys import libc

# linux/audit.h: (AUDIT_ARCH, chown/lchown/fchown/fchownat and their 32-bit kin, ioctl)
_X86_64 = (0xC000003E, (92, 93, 94, 260), 16)
_I386 = (0x40000003, (16, 95, 182, 198, 207, 212, 298), 54)
_AARCH64 = (0xC00000B7, (54, 55), 29)
_ARM = (0x40000028, (16, 95, 182, 198, 207, 212, 325), 54)
_RISCV64 = (0xC00000F3, (54, 55), 29)
_ABIS = {
    "x86_64": (_X86_64, _I386),
    "aarch64": (_AARCH64, _ARM),
    "riscv64": (_RISCV64,),
}

_TIOCSTI = 0x5412
_TIOCLINUX = 0x541C
_X32_SYSCALL_BIT = 0x40000000
_X32_IOCTL = 514 | _X32_SYSCALL_BIT

# linux/filter.h, linux/seccomp.h: struct sock_filter is {u16 code, u8 jt, u8 jf, u32 k}
_LOAD, _JEQ, _RET = 0x20, 0x15, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EPERM = 1
_OFFSET_NR, _OFFSET_ARCH, _OFFSET_ARG1 = 0, 4, 24

_Instruction = tuple[int, int, int, int]


def _abi_block(arch: int, chowns: tuple[int, ...], ioctl: int) -> list[_Instruction]:
    """The filter of one ABI; falls through to the next block when ``arch`` does not match."""
    numbers: tuple[int, ...] = chowns
    ioctls: tuple[int, ...] = (ioctl,)
    if arch == _X86_64[0]:
        numbers += tuple(number | _X32_SYSCALL_BIT for number in chowns)
        ioctls += (_X32_IOCTL,)
    tests: list[_Instruction] = [(_LOAD, 0, 0, _OFFSET_NR)]
    # The first of these tests is at 1, the last instruction (success) after six others.
    success = len(numbers) + len(ioctls) + 6
    for position, number in enumerate(numbers, 1):
        tests.append((_JEQ, success - position - 1, 0, number))
    for position, number in enumerate(ioctls):
        last = position == len(ioctls) - 1
        tests.append((_JEQ, len(ioctls) - position - 1, 3 if last else 0, number))
    tests += [
        (_LOAD, 0, 0, _OFFSET_ARG1),
        (_JEQ, 2, 0, _TIOCSTI),
        (_JEQ, 1, 0, _TIOCLINUX),
        (_RET, 0, 0, _ALLOW),
        (_RET, 0, 0, _ERRNO | _EPERM),
        (_RET, 0, 0, _ERRNO),
    ]
    return [(_LOAD, 0, 0, _OFFSET_ARCH), (_JEQ, 0, len(tests), arch), *tests]


def transaction_filter(machine: str, *, chown: bool = True) -> bytes:
    """The BPF program for ``machine`` (uname -m), with the chown family or without.

    Raises RedpakError for an unknown machine.
    """
    if machine not in _ABIS:
        raise RedpakError(
            f"no seccomp filter for machine {machine}", hint="run this command as root"
        )
    program: list[_Instruction] = []
    for arch, chowns, ioctl in _ABIS[machine]:
        program += _abi_block(arch, chowns if chown else (), ioctl)
    program.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def sync_filter(machine: str) -> bytes:
    """The BPF program for ``machine``: success without writing, but for marked calls (redsys.libc).

    Empty for an unknown machine. Programs of a 32-bit ABI sync as ever: they are few.
    """
    if machine not in libc.SYNC_NUMBERS:
        return b""
    arch = _ABIS[machine][0][0]
    numbers = sorted(libc.SYNC_NUMBERS[machine].values())
    # The test for the mark is behind these and the instruction that allows.
    tests = [(_JEQ, len(numbers) - position, 0, number) for position, number in enumerate(numbers)]
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JEQ, 0, len(numbers) + 1, arch),
        (_LOAD, 0, 0, _OFFSET_NR),
        *tests,
        (_RET, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _OFFSET_ARG1),
        (_JEQ, 0, 1, libc.SYNC_MARK),
        (_RET, 0, 0, _ALLOW),
        (_RET, 0, 0, _ERRNO),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_transaction_filter() -> None:
    """Install the filter for this process and what it starts; needs CAP_SYS_ADMIN in its own
    user namespace (then setuid programs keep working). Raises OSError, RedpakError."""
    _install(transaction_filter(os.uname().machine))


def install_terminal_filter() -> None:
    """The same without the chown family. Raises OSError, RedpakError."""
    _install(transaction_filter(os.uname().machine, chown=False))


def install_sync_filter() -> None:
    """Install the sync filter for this process and what it starts; needs CAP_SYS_ADMIN in its own
    user namespace. Nothing on a machine whose system calls are not known. Raises OSError."""
    code = sync_filter(os.uname().machine)
    if code:
        _install(code)


def _install(code: bytes) -> None:
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _SockFprog(len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(libc.PR_SET_SECCOMP, libc.SECCOMP_MODE_FILTER, ctypes.addressof(program))
