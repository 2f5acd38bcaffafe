"""A program for connect(): who asks for one IPv4 address gets another. As a load balancer does, in
six instructions.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from struct import pack

from kptrace.agent import bpf_syscall
from kptrace.agent.cgroup import HOOKS

CONNECT4 = HOOKS["connect4"]
_USER_IP4 = 4  # its offset in struct bpf_sock_addr (include/uapi/linux/bpf.h)


def reroute(directory: Path, there: str, here: str) -> None:
    """On this cgroup, and gone with it."""
    program = bpf_syscall.load(
        bpf_syscall.CGROUP_SOCK_ADDR, _code(_number(there), _number(here)), CONNECT4, "test"
    )
    bpf_syscall.attach(program, str(directory), CONNECT4)
    os.close(program)


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address), sys.byteorder, signed=True)


def _code(there: int, here: int) -> bytes:
    return b"".join(
        (
            _instruction(0x61, 2, 1, _USER_IP4, 0),  # w2 = the address
            _instruction(0x56, 2, 0, 2, there),  # if it is another, skip two
            _instruction(0xB4, 2, 0, 0, here),
            _instruction(0x63, 1, 2, _USER_IP4, 0),
            _instruction(0xB7, 0, 0, 0, 1),  # let it pass
            _instruction(0x95, 0, 0, 0, 0),
        )
    )


def _instruction(code: int, dst: int, src: int, offset: int, value: int) -> bytes:
    return pack("=BBhi", code, dst | src << 4, offset, value)
