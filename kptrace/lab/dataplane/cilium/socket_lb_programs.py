"""Cilium's programs at connect(), sendmsg(), recvmsg() and getpeername(), rewritten; pure.

In: descriptors of the maps. Out: the bytes of CGROUP_SOCK_ADDR programs. They do what
bpf/bpf_sock.c does for a Service without L7: look the address up, from inside the cluster; else,
for an address of a node, the frontend that stands for all of them; choose the backend that the
client had before, if the Service keeps clients, else one by chance; put its address in the place of
the Service's, and note the latter by the socket for the way back. A client is a network namespace,
as Cilium has it at the socket (lb4_affinity_backend_id_by_netns). An address that is no Service's
stays; one without backends is refused with EHOSTUNREACH. An IPv6 socket may mean an IPv4 address
(``::ffff:``), which is translated as such. The way back does not ask, as Cilium's does, whether the
Service is still there.

``struct bpf_sock_addr``: user_ip4 at 4, user_ip6 at 8, user_port at 24, protocol at 36.
"""

from __future__ import annotations

import sys

from kptrace.bpf.drop_program import Code
from kptrace.lab.dataplane.cilium.services import (
    AFFINITY,
    EXTERNAL_IP,
    HOST_ID,
    INSIDE,
    REMOTE_NODE_ID,
    TWO_SCOPES,
)
from kptrace.model import Value

_LOOKUP, _UPDATE, _NOW, _RANDOM, _COOKIE, _NETNS, _SET_RESULT = 1, 2, 5, 7, 46, 122, 187
_MAP_FD = 1
_R0, _R1, _R2, _R3, _R4, _CTX, _COUNT, _REVNAT, _BACKEND, _STACK = 0, 1, 2, 3, 4, 6, 7, 8, 9, 10
_PORT, _PROTOCOL = 24, 36
_EHOSTUNREACH = 113
_HOST_PORT = 0x8
# the stack: a service's key, a backend's id, a node's key, a socket's key, what it is noted with
_KEY, _ID, _NODE, _SOCKET, _NOTED = -32, -36, -64, -184, -208
# who asks, which backend it has and since when, and how long it keeps it (0: not at all)
_CLIENT, _KEPT, _FOR = -120, -136, -144
_SECOND = 1_000_000_000
# opcodes: loads of 1, 2, 4 bytes, stores of registers and of constants, moves
_LD1, _LD2, _LD4, _LD8 = 0x71, 0x69, 0x61, 0x79
_ST1, _ST2, _ST4, _ST8 = 0x73, 0x6B, 0x63, 0x7B
_SET1, _SET4, _SET8 = 0x72, 0x62, 0x7A
_MOVE, _LOAD, _ADD, _AND, _REST, _TIMES, _LESS = 0xBF, 0xB7, 0x07, 0x57, 0x9C, 0x27, 0x1F
_ALWAYS, _IF_EQUAL, _IF_NOT, _IF_MORE = 0x05, 0x15, 0x55, 0x2D
_IF_NOT_4 = 0x56  # of the lower half of a register


class Fds(Value):
    """Descriptors of the maps of one family."""

    services: int
    backends: int
    ipcache: int
    affinity: int
    sockets: int


class _Family(Value):
    """words: how many of four bytes an address has; ``at``: where it stands in the context."""

    words: int
    at: int
    number: int

    @property
    def size(self) -> int:
        return 4 * self.words


V4, V6 = _Family(words=1, at=4, number=1), _Family(words=4, at=8, number=2)
MAPPED = _Family(words=1, at=20, number=1)  # the last word of an IPv6 address


def forward(fds: Fds, family: _Family) -> bytes:
    """For connect and sendmsg."""
    code = Code()
    code.put(_MOVE, _CTX, _R1)
    _service_key(code, family)
    _look_up(code, fds.services, _KEY)
    code.jump(_IF_NOT, _R0, 0, "found")
    _node_key(code, family)
    _look_up(code, fds.ipcache, _NODE)
    code.jump(_IF_EQUAL, _R0, 0, "proceed")
    code.put(_LD4, _R1, _R0)
    code.jump(_IF_EQUAL, _R1, HOST_ID, "a node's")
    code.jump(_IF_NOT, _R1, REMOTE_NODE_ID, "proceed")
    code.here("a node's")
    for word in range(family.words):
        code.put(_SET4, _STACK, offset=_KEY + 4 * word)
    _look_up(code, fds.services, _KEY)
    code.jump(_IF_EQUAL, _R0, 0, "proceed")
    code.here("found")
    _inside(code, fds, family)
    _choose(code, fds, family)
    _note(code, fds, family)
    for word in range(family.words):
        code.put(_LD4, _R1, _BACKEND, 4 * word)
        code.put(_ST4, _CTX, _R1, family.at + 4 * word)
    code.put(_LD2, _R1, _BACKEND, family.size)
    code.put(_ST4, _CTX, _R1, _PORT)
    code.here("proceed")
    code.put(_LOAD, _R0, value=1)
    code.put(0x95)
    code.here("refuse")
    code.put(_LOAD, _R1, value=(1 << 32) - _EHOSTUNREACH)
    code.call(_SET_RESULT)
    code.put(_LOAD, _R0, value=0)
    code.put(0x95)
    return code.finish()


def either(mapped: bytes, other: bytes) -> bytes:
    """For an IPv6 socket: the one program for ``::ffff:a.b.c.d``, else the other."""
    code = Code()
    prefix_words = (0, 0, int.from_bytes(b"\0\0\xff\xff", sys.byteorder))
    for number, word in enumerate(prefix_words):
        code.put(_LD4, _R2, _R1, V6.at + 4 * number)
        left = 2 * (len(prefix_words) - number - 1)  # of these instructions
        code.put(_IF_NOT_4, _R2, offset=left + len(mapped) // 8, value=word)
    return code.finish() + mapped + other


def backward(fds: Fds, family: _Family) -> bytes:
    """For recvmsg and getpeername: a backend's address becomes the Service's again."""
    code = Code()
    code.put(_MOVE, _CTX, _R1)
    _socket_key(code)
    for word in range(family.words):
        code.put(_LD4, _R1, _CTX, family.at + 4 * word)
        code.put(_ST4, _STACK, _R1, _SOCKET + 8 + 4 * word)
    code.put(_LD4, _R1, _CTX, _PORT)
    code.put(_ST2, _STACK, _R1, _SOCKET + 8 + family.size)
    _look_up(code, fds.sockets, _SOCKET)
    code.jump(_IF_EQUAL, _R0, 0, "proceed")
    for word in range(family.words):
        code.put(_LD4, _R1, _R0, 4 * word)
        code.put(_ST4, _CTX, _R1, family.at + 4 * word)
    code.put(_LD2, _R1, _R0, family.size)
    code.put(_ST4, _CTX, _R1, _PORT)
    code.here("proceed")
    code.put(_LOAD, _R0, value=1)
    code.put(0x95)
    return code.finish()


def _socket_key(code: Code) -> None:
    """The socket's cookie, and room for an address of either family; r1 is the context."""
    for offset in (8, 16, 24):
        code.put(_SET8, _STACK, offset=_SOCKET + offset)
    code.call(_COOKIE)
    code.put(_ST8, _STACK, _R0, _SOCKET)


def _service_key(code: Code, family: _Family) -> None:
    for offset in (0, 8, 16):
        code.put(_SET8, _STACK, offset=_KEY + offset)
    for word in range(family.words):
        code.put(_LD4, _R1, _CTX, family.at + 4 * word)
        code.put(_ST4, _STACK, _R1, _KEY + 4 * word)
    code.put(_LD4, _R1, _CTX, _PORT)
    code.put(_ST2, _STACK, _R1, _KEY + family.size)
    code.put(_LD4, _R1, _CTX, _PROTOCOL)
    code.put(_ST1, _STACK, _R1, _KEY + family.size + 4)


def _node_key(code: Code, family: _Family) -> None:
    for offset in (0, 8, 16):
        code.put(_SET8, _STACK, offset=_NODE + offset)
    code.put(_SET4, _STACK, offset=_NODE, value=32 + 8 * family.size)
    code.put(_SET1, _STACK, offset=_NODE + 7, value=family.number)
    for word in range(family.words):
        code.put(_LD4, _R1, _CTX, family.at + 4 * word)
        code.put(_ST4, _STACK, _R1, _NODE + 8 + 4 * word)


def _inside(code: Code, fds: Fds, family: _Family) -> None:
    """The entry for senders inside the cluster, where there are two; then what is left alone."""
    code.put(_LD1, _R1, _R0, 9)
    code.put(_AND, _R1, value=TWO_SCOPES)
    code.jump(_IF_EQUAL, _R1, 0, "the scope's")
    code.put(_SET1, _STACK, offset=_KEY + family.size + 5, value=INSIDE)
    _look_up(code, fds.services, _KEY)
    code.jump(_IF_EQUAL, _R0, 0, "proceed")
    code.here("the scope's")
    code.put(_LD1, _R1, _R0, 8)
    code.put(_AND, _R1, value=EXTERNAL_IP | _HOST_PORT)
    code.jump(_IF_NOT, _R1, 0, "proceed")


def _choose(code: Code, fds: Fds, family: _Family) -> None:
    code.put(_LD2, _COUNT, _R0, 4)
    code.put(_LD2, _REVNAT, _R0, 6)
    code.jump(_IF_EQUAL, _COUNT, 0, "refuse")
    _as_before(code, fds, family)
    code.here("by chance")
    code.call(_RANDOM)
    code.put(_REST, _R0, _COUNT)
    code.put(_ADD, _R0, value=1)
    code.put(_ST2, _STACK, _R0, _KEY + family.size + 2)
    _look_up(code, fds.services, _KEY)
    code.jump(_IF_EQUAL, _R0, 0, "proceed")
    code.put(_LD4, _R1, _R0)
    code.put(_ST4, _STACK, _R1, _ID)
    _look_up(code, fds.backends, _ID)
    code.jump(_IF_EQUAL, _R0, 0, "proceed")
    code.here("chosen")
    code.put(_MOVE, _BACKEND, _R0)
    _keep(code, fds)


def _as_before(code: Code, fds: Fds, family: _Family) -> None:
    """The client's backend, unless it has none or had it too long ago; r0 is the service."""
    for offset in (_FOR, _CLIENT, _CLIENT + 8, _CLIENT + 16):
        code.put(_SET8, _STACK, offset=offset)
    code.put(_LD1, _R1, _R0, 8)
    code.put(_AND, _R1, value=AFFINITY)
    code.jump(_IF_EQUAL, _R1, 0, "by chance")
    code.put(_LD4, _R1, _R0)
    code.put(_TIMES, _R1, value=_SECOND)
    code.put(_ST8, _STACK, _R1, _FOR)
    code.put(_MOVE, _R1, _CTX)
    code.call(_NETNS)
    code.put(_ST8, _STACK, _R0, _CLIENT)
    at = _CLIENT + (16 if family is V6 else 8)  # behind an IPv6 address' room
    code.put(_ST2, _STACK, _REVNAT, at)
    code.put(_SET1, _STACK, offset=at + 2, value=1)  # a namespace's cookie, no address
    _look_up(code, fds.affinity, _CLIENT)
    code.jump(_IF_EQUAL, _R0, 0, "by chance")
    code.put(_LD8, _R1, _R0)
    code.put(_ST8, _STACK, _R1, _KEPT)
    code.put(_LD4, _R1, _R0, 8)
    code.put(_ST4, _STACK, _R1, _ID)
    code.call(_NOW)
    code.put(_LD8, _R1, _STACK, _KEPT)
    code.put(_LESS, _R0, _R1)
    code.put(_LD8, _R1, _STACK, _FOR)
    code.put(_IF_MORE, _R0, _R1, "by chance")
    _look_up(code, fds.backends, _ID)
    code.jump(_IF_NOT, _R0, 0, "chosen")


def _keep(code: Code, fds: Fds) -> None:
    """For a Service that keeps its clients: which backend it has, from now on."""
    code.put(_LD8, _R1, _STACK, _FOR)
    code.jump(_IF_EQUAL, _R1, 0, "kept")
    code.call(_NOW)
    code.put(_ST8, _STACK, _R0, _KEPT)
    code.put(_SET8, _STACK, offset=_KEPT + 8)
    code.put(_LD4, _R1, _STACK, _ID)
    code.put(_ST4, _STACK, _R1, _KEPT + 8)
    code.load_map(_R1, _MAP_FD, fds.affinity)
    code.address(_R2, _STACK, _CLIENT)
    code.address(_R3, _STACK, _KEPT)
    code.put(_LOAD, _R4)
    code.call(_UPDATE)
    code.here("kept")


def _note(code: Code, fds: Fds, family: _Family) -> None:
    """Which Service this socket means by this backend (cilium_lb4_reverse_sk)."""
    code.put(_MOVE, _R1, _CTX)
    _socket_key(code)
    for word in range(family.words):
        code.put(_LD4, _R1, _BACKEND, 4 * word)
        code.put(_ST4, _STACK, _R1, _SOCKET + 8 + 4 * word)
        code.put(_LD4, _R1, _CTX, family.at + 4 * word)
        code.put(_ST4, _STACK, _R1, _NOTED + 4 * word)
    code.put(_LD2, _R1, _BACKEND, family.size)
    code.put(_ST2, _STACK, _R1, _SOCKET + 8 + family.size)
    code.put(_LD4, _R1, _CTX, _PORT)
    code.put(_ST2, _STACK, _R1, _NOTED + family.size)
    code.put(_ST2, _STACK, _REVNAT, _NOTED + family.size + 2)
    code.load_map(_R1, _MAP_FD, fds.sockets)
    code.address(_R2, _STACK, _SOCKET)
    code.address(_R3, _STACK, _NOTED)
    code.put(_LOAD, _R4)
    code.call(_UPDATE)


def _look_up(code: Code, fd: int, key: int) -> None:
    code.load_map(_R1, _MAP_FD, fd)
    code.address(_R2, _STACK, key)
    code.call(_LOOKUP)
