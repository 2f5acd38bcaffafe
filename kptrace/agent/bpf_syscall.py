"""bpf(2): maps, programs, and names for them in a bpffs, without any library.

In: bytes as the kernel wants them (include/uapi/linux/bpf.h, union bpf_attr). Out: file
descriptors, and bytes of maps. What is not pinned and not attached ends with its descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from struct import pack, unpack_from
from typing import NamedTuple

HASH, ARRAY, PERCPU_ARRAY, LRU_HASH, LPM_TRIE, RINGBUF = 1, 2, 6, 9, 11, 27
READ_ONLY_FOR_PROGRAMS, NO_PREALLOC = 1 << 7, 1 << 0
RAW_TRACEPOINT, CGROUP_SOCK_ADDR = 17, 18

_SYSCALL = {"x86_64": 321, "aarch64": 280, "ppc64le": 361, "s390x": 351, "riscv64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT, _PROG_LOAD = 0, 1, 2, 3, 4, 5
_OBJ_PIN, _OBJ_GET, _PROG_ATTACH, _INFO, _TRACEPOINT_OPEN, _MAP_FREEZE = 6, 7, 8, 15, 17, 22
_PROG_QUERY, _EFFECTIVE = 16, 1
_MOST_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS, on one hook
_READ_ONLY = 1 << 3
_LOG_SIZE = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)
_Bytes = ctypes.Array[ctypes.c_char]


def call(command: int, attributes: bytes | _Bytes) -> int:
    """A buffer is one that the kernel answers in."""
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) on {os.uname().machine} was never tried")
    if isinstance(attributes, bytes):
        attributes = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(number, command, ctypes.byref(attributes), len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# --- maps ---------------------------------------------------------------------------------------


class Shape(NamedTuple):
    kind: int
    key: int
    value: int
    entries: int


def make_map(kind: int, key: int, value: int, entries: int, flags: int = 0, name: str = "") -> int:
    """``name``: at most 15 letters, digits, dots and underscores."""
    named = pack("=II16s", 0, 0, name.encode()) if name else b""
    return call(_MAP_CREATE, pack("=IIIII", kind, key, value, entries, flags) + named)


def write(map: int, key: bytes, value: bytes) -> None:
    _element(_MAP_UPDATE, map, key, ctypes.create_string_buffer(value, len(value)))


def read(map: int, key: bytes, size: int) -> bytes:
    value = ctypes.create_string_buffer(size)
    _element(_MAP_LOOKUP, map, key, value)
    return value.raw


def delete(map: int, key: bytes) -> None:
    _element(_MAP_DELETE, map, key, None)


def entries(map: int, shape: Shape) -> Iterator[tuple[bytes, bytes]]:
    """Of a hash, in its own order. One that goes while we read is left out."""
    key, following = b"", ctypes.create_string_buffer(shape.key)
    while True:
        try:
            _element(_MAP_NEXT, map, key, following)
        except FileNotFoundError:
            return
        key = following.raw
        try:
            yield key, read(map, key, shape.value)
        except FileNotFoundError:
            continue


def freeze(map: int) -> None:
    call(_MAP_FREEZE, pack("=I", map))


def shape(map: int) -> Shape:
    """struct bpf_map_info: type, id, key_size, value_size, max_entries."""
    info = ctypes.create_string_buffer(24)
    call(_INFO, pack("=IIQ", map, len(info), ctypes.addressof(info)))
    kind, _, key, value, entries_ = unpack_from("=IIIII", info)
    return Shape(kind=kind, key=key, value=value, entries=entries_)


def _element(command: int, map: int, key: bytes, value: _Bytes | None) -> None:
    """Without a key: the first; what a command does not use must be 0."""
    where = ctypes.create_string_buffer(key, len(key)) if key else None
    addresses = (ctypes.addressof(array) if array else 0 for array in (where, value))
    call(command, pack("=IIQQQ", map, 0, *addresses, 0))


# --- programs -----------------------------------------------------------------------------------


def load(kind: int, code: bytes, attach: int = 0, name: str = "") -> int:
    """``attach``: what kind of hook it is for, where its type knows several.

    An OSError holds the verifier's last words.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    license = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_SIZE)
    where = (ctypes.addressof(instructions), ctypes.addressof(license))
    begin = pack("=IIQQ", kind, len(code) // 8, *where)
    end = pack("=II16sII", 0, 0, name.encode(), 0, attach)
    try:
        return call(_PROG_LOAD, begin + pack("=IIQ", 0, 0, 0) + end)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSPC):
            raise
        try:
            return call(_PROG_LOAD, begin + pack("=IIQ", 1, _LOG_SIZE, ctypes.addressof(log)) + end)
        except OSError:
            why = log.value.decode(errors="replace").strip()[-300:]
            raise OSError(error.errno, f"{error.strerror}: {why}") from None


def open_tracepoint(name: str, program: int) -> int:
    """A descriptor that keeps the program on a raw tracepoint."""
    text = ctypes.create_string_buffer(name.encode())
    return call(_TRACEPOINT_OPEN, pack("=QII", ctypes.addressof(text), program, 0))


def attach(program: int, cgroup: str, hook: int) -> None:
    """To a cgroup, until this goes (BPF_PROG_ATTACH, not a link)."""
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(_PROG_ATTACH, pack("=IIII", directory, program, hook, 0))
    finally:
        os.close(directory)


def effective(cgroup: Path, hook: int) -> tuple[int, ...]:
    """The ids of the programs that a socket made in the cgroup meets there: its own and those of
    the cgroups above it, in their order (BPF_F_QUERY_EFFECTIVE).
    """
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        query = pack(
            "=IIIIQII", directory, hook, _EFFECTIVE, 0, ctypes.addressof(ids), _MOST_PROGRAMS, 0
        )
        buffer = ctypes.create_string_buffer(query, len(query))
        call(_PROG_QUERY, buffer)
        (count,) = unpack_from("=I", buffer, 24)
    finally:
        os.close(directory)
    return tuple(ids[:count])


# --- names --------------------------------------------------------------------------------------


def pin(fd: int, path: Path) -> None:
    text = ctypes.create_string_buffer(os.fsencode(path))
    call(_OBJ_PIN, pack("=QII", ctypes.addressof(text), fd, 0))


def pinned(path: Path, *, to_write: bool = False) -> int:
    """A descriptor of what is pinned there; reading only, unless one asks for more."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    flags = 0 if to_write else _READ_ONLY
    return call(_OBJ_GET, pack("=QII", ctypes.addressof(text), 0, flags))
