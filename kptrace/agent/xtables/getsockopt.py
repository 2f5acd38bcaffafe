"""Legacy tables by getsockopt(2), without the program: what ``iptables-legacy-save`` reads.

In: a namespace to stand in. Out: the tables' names, and a table as
``rules/iptables/legacy_table.py`` reads it. Asking about a table that a namespace lacks would
create it (ipt_register_table on demand), so ``/proc/net/ip_tables_names`` is looked at first.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
from contextlib import suppress
from pathlib import Path
from struct import pack_into, unpack_from

from kptrace.model.family import Family
from kptrace.rules.iptables.legacy_table import Bounds, XtTable

_NAMES = {Family.IPV4: "ip_tables_names", Family.IPV6: "ip6_tables_names"}
_SOCKETS = {
    Family.IPV4: (socket.AF_INET, 0),
    Family.IPV6: (socket.AF_INET6, 41),
}  # and its socket level
_GET_INFO, _GET_ENTRIES = 64, 65
_NAME = 32
_INFO = _NAME + 13 * 4  # valid hooks, 5 starts, 5 ends, entries, size
_ENTRIES = 40  # where they begin in struct ipt_get_entries
_TRIES = 10
_libc = ctypes.CDLL(None, use_errno=True)


def names(family: Family) -> list[str]:
    """The tables that exist in this thread's namespace, in the kernel's order."""
    try:
        return Path(f"/proc/thread-self/net/{_NAMES[family]}").read_text().split()
    except OSError:
        return []


def table(family: Family, name: str) -> XtTable | None:
    """None: there is no such table. To be called inside the namespace."""
    if name not in names(family):
        return None
    domain, level = _SOCKETS[family]
    with socket.socket(domain, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sock:
        for _ in range(_TRIES):  # rules may be swapped between the two calls
            info = _get(sock, level, _GET_INFO, name, _INFO, 0)
            valid, *numbers = unpack_from("=12I", info, _NAME)
            size: int = unpack_from("=I", info, _INFO - 4)[0]
            try:
                entries = _get(sock, level, _GET_ENTRIES, name, _ENTRIES + size, size)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                continue
            starts, ends = numbers[:5], numbers[5:10]
            hooks = tuple((h, starts[h], ends[h]) for h in range(5) if valid & 1 << h)
            data = memoryview(entries)[_ENTRIES:]
            return XtTable(data, Bounds(hooks=hooks), family)
    raise OSError(errno.EAGAIN, f"table {name} changes faster than it can be read")


def _get(
    sock: socket.socket, level: int, what: int, name: str, length: int, size: int
) -> mmap.mmap:
    """socket.getsockopt has room for 1 KiB only."""
    buffer = _room(length)
    pack_into("=32sI", buffer, 0, name.encode(), size)
    size_of = ctypes.c_uint32(length)
    view = (ctypes.c_char * length).from_buffer(buffer)
    if _libc.getsockopt(sock.fileno(), level, what, view, ctypes.byref(size_of)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: table {name}")
    return buffer


def _room(length: int) -> mmap.mmap:
    """Of 10,000 Services there are 62 MB: in pages of 4 KiB the kernel takes as long to map them as
    to fill them.
    """
    room = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError, AttributeError):  # a kernel without huge pages
        room.madvise(mmap.MADV_HUGEPAGE)
    return room
