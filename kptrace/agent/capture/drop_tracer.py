"""The kernel's reports of dropped packets: an eBPF program on the tracepoint ``skb:kfree_skb``.

In: cookies, and the inode numbers of the namespaces that we know. Out: Drop with the reason and
the function as the kernel names them, the namespace, the interface and the packet.

Plain bpf(2): nothing is pinned, so the program ends with its file descriptors, also on SIGKILL.
It hears of all namespaces at once, so one is enough for an agent; what was dropped in a
namespace that is not watched is not told. A packet whose neighbour does not answer is dropped
(NEIGH_FAILED) three seconds after it was queued.

Needs CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN), BTF, and kernel 5.17 for reasons.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import pack, unpack, unpack_from

from kptrace.agent import bpf_syscall
from kptrace.bpf import drop_program
from kptrace.bpf.btf import BadBtf, Btf
from kptrace.model import DropEvent, Netns, Probe
from kptrace.model.errors import PermissionDeniedError, UnsupportedError
from kptrace.packet.headers import dissect
from kptrace.packet.probe_id import DNS_PORT, ProbeMatcher, blocks

BTF = Path("/sys/kernel/btf/vmlinux")
_RING_SIZE = 1 << 18
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_PREFIX = "SKB_DROP_REASON_"


class DropTracer:
    layer = "drops"

    def __init__(
        self, node: Netns, probes: tuple[Probe, ...], namespaces: Mapping[int, Netns]
    ) -> None:
        """node: stands for all of them in Lost. places: by the inode of the namespace.

        Raises Forbidden or Unsupported.
        """
        self.place, self._namespaces = node, namespaces
        self._fds: list[int] = []
        self._mapped: list[mmap.mmap] = []
        try:
            self._attach(_kernel_types(), probes)
        except OSError as error:
            self.close()
            raise _refusal(error) from None
        except BadBtf as error:
            self.close()
            raise UnsupportedError(str(error), "kernel 5.17 or newer tells why it drops") from None
        self._clock = time.time_ns() - time.monotonic_ns()

    def _attach(self, btf: Btf, probes: tuple[Probe, ...]) -> None:
        self._reasons = btf.enum("skb_drop_reason")
        if not self._reasons:
            raise BadBtf("this kernel gives no drop reasons")
        self._ring = self._keep(bpf_syscall.make_map(bpf_syscall.RINGBUF, 0, 0, _RING_SIZE))
        self._record = self._keep(
            bpf_syscall.make_map(bpf_syscall.PERCPU_ARRAY, 4, drop_program.VALUE, 1)
        )
        format_map = self._keep(
            bpf_syscall.make_map(bpf_syscall.ARRAY, 4, 8, 1, bpf_syscall.READ_ONLY_FOR_PROGRAMS)
        )
        bpf_syscall.write(format_map, bytes(4), drop_program.FORMAT.ljust(8, b"\0"))
        bpf_syscall.freeze(format_map)
        code = drop_program.program(
            btf,
            drop_program.Maps(ring=self._ring, record=self._record, format=format_map),
            blocks(p.probe_id for p in probes),
            text=any(p.flow.dport == DNS_PORT for p in probes),
        )
        self._consumer = self._map(mmap.PAGESIZE, 0, mmap.PROT_READ | mmap.PROT_WRITE)
        whole = mmap.PAGESIZE + 2 * _RING_SIZE
        self._producer = self._map(whole, mmap.PAGESIZE, mmap.PROT_READ)
        program = self._keep(bpf_syscall.load(bpf_syscall.RAW_TRACEPOINT, code))
        self._keep(bpf_syscall.open_tracepoint("kfree_skb", program))

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _map(self, size: int, offset: int, protection: int) -> mmap.mmap:
        self._mapped.append(mmap.mmap(self._ring, size, prot=protection, offset=offset))
        return self._mapped[-1]

    def fileno(self) -> int:
        return self._ring

    def receive(self) -> list[bytes]:
        """All that is queued."""
        return list(self._records())

    def tell(self, queued: list[bytes], recogniser: ProbeMatcher) -> Iterator[DropEvent]:
        for record in queued:
            report = drop_program.read_report(record)
            seen = dissect(report.data) if report else None
            if report is None or seen is None or recogniser.recognise(seen) is None:
                continue
            where = report.device_ns or report.socket_ns
            if where and where not in self._namespaces:
                continue  # another agent's: nodes that share a kernel hear of each other's
            yield DropEvent(
                node=self.place.node,
                reason=self._reason(report.reason),
                location=report.symbol,
                time_ns=report.time + self._clock,
                netns=self._namespaces.get(where),
                interface=report.device,
                packet=seen.packet,
            )

    def _records(self) -> Iterator[bytes]:
        """kernel Documentation/bpf/ringbuf.rst: positions only grow; the data is mapped twice."""
        at = unpack_from("=Q", self._consumer)[0]
        while at < unpack_from("=Q", self._producer)[0]:
            start = mmap.PAGESIZE + at % _RING_SIZE
            head = unpack_from("=I", self._producer, start)[0]
            if head & _BUSY:
                return
            size = head & ~_DISCARDED
            if not head & _DISCARDED:
                yield self._producer[start + 8 : start + 8 + size]
            at += (size + 8 + 7) // 8 * 8
            self._consumer[:8] = pack("=Q", at)

    def _reason(self, number: int) -> str:
        return self._reasons.get(number, f"REASON_{number}").removeprefix(_PREFIX)

    def lost(self) -> int:
        """Reports that did not fit into the ring, on all processors together."""
        return sum(
            unpack("=Q", value[drop_program.LOST : drop_program.LOST + 8])[0]
            for value in self._values()
        )

    def _values(self) -> Iterator[bytes]:
        size = (drop_program.VALUE + 7) // 8 * 8
        values = bpf_syscall.read(self._record, bytes(4), size * _cpus())
        return (values[n : n + size] for n in range(0, len(values), size))

    def close(self) -> None:
        for mapped in self._mapped:
            mapped.close()
        while self._fds:
            os.close(self._fds.pop())


def _kernel_types() -> Btf:
    return Btf(BTF.read_bytes(), drop_program.STRUCTS)


def _refusal(error: OSError) -> PermissionDeniedError | UnsupportedError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return PermissionDeniedError(
            f"bpf: {error.strerror}", "grant CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN"
        )
    if error.errno == errno.ENOENT:
        return UnsupportedError(
            f"no {BTF}", "a kernel with CONFIG_DEBUG_INFO_BTF tells why it drops"
        )
    return UnsupportedError(f"bpf: {error.strerror}", "kernel 5.17 or newer tells why it drops")


def _cpus() -> int:
    """How many values a per-processor map holds: one for each that could ever be there."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(last.split(",")[-1].split("-")[-1]) + 1
