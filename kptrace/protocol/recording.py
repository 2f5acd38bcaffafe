"""One run, whole: the question, and every word that the cluster and the agents said.

A report is a pure function of a ``Recording`` (trace.report), so a saved run is replayed by the
code that made it. Saved, it is a bundle (DESIGN section 6) with one file more::

    api/services.json ...                 the API documents as they were read
    NODE/ip-route.json ...                what was dumped of a node
    NODE/pods/NAMESPACE/NAME/ip-addr.json and of a pod
    run.json                              the question, the probes, and all other replies

so ``kptrace explain --bundle`` reads it too. Paths only name entries of a mapping here: nothing in
this file touches a disk, and a hostile path can name nothing but an entry of its own archive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from kptrace.model import EvidenceSource, Netns, Probe, Resolution, Source, TraceRequest, Value
from kptrace.model.errors import ParseError
from kptrace.protocol import NETNS_UNAVAILABLE, UNREADABLE, FileContent, Reply
from kptrace.rules.live.queries import TABLES, is_query

RUN_FILE = "run.json"
AGENT = "agent"  # the name of the layer that takes all others of its node along
VERSION: Literal[1] = 1


class Recording(Value):
    """What was asked, of whom, and what came back.

    resolution: what the API and DNS said of the target
    unavailable:     sources of evidence that could not be had at all (no agent on a node)
    """

    request: TraceRequest
    source: Source
    resolution: Resolution
    api: dict[str, str]
    probes: tuple[Probe, ...] = ()
    replies: tuple[Reply, ...] = ()
    unavailable: tuple[EvidenceSource, ...] = ()
    version: int = VERSION


def sender_was_there(run: Recording) -> bool:
    """An agent looked into the place that the packet starts from, so it could send."""
    return any(
        isinstance(reply, FileContent)
        and reply.netns == run.source.netns
        and reply.file != NETNS_UNAVAILABLE
        for reply in run.replies
    )


def files_by_netns(replies: Iterable[Reply]) -> dict[Netns, dict[str, str]]:
    """The texts that were dumped, by place and file name. Who asks for all tables once more looks
    at the rules anew, and what was told of them before is no longer believed.
    """
    texts: dict[Netns, dict[str, str]] = {}
    for reply in replies:
        if not isinstance(reply, FileContent) or reply.unavailable:
            continue
        if reply.file == TABLES and TABLES in texts.get(reply.netns, {}):
            texts_by_name = texts[reply.netns]
            texts[reply.netns] = {
                name: texts_by_name[name] for name in texts_by_name if not is_query(name)
            }
        texts.setdefault(reply.netns, {})[reply.file] = reply.text
    return texts


def pack(run: Recording) -> dict[str, bytes]:
    """The files of a saved run, by path."""
    files = {f"api/{name}": text.encode() for name, text in run.api.items()}
    kept: list[Reply] = []
    for reply in run.replies:
        if isinstance(reply, FileContent) and not reply.unavailable:
            files[_path(reply.netns, reply.file)] = reply.text.encode()
            reply = msgspec.structs.replace(reply, text="")
        kept.append(reply)
    rest = msgspec.structs.replace(run, api={}, replies=tuple(kept))
    files[RUN_FILE] = msgspec.json.format(msgspec.json.encode(rest), indent=1)
    return files


def unpack(files: Mapping[str, bytes], source: str) -> Recording:
    """The run that these files hold; ``source`` names the archive in errors."""
    try:
        rest = msgspec.json.decode(files[RUN_FILE], type=Recording)
    except KeyError:
        raise ParseError(
            source, 0, f"holds no {RUN_FILE}: not a saved run", "kptrace ... --save FILE makes one"
        ) from None
    except UNREADABLE as error:
        raise ParseError(f"{source}:{RUN_FILE}", 0, str(error)) from None
    if rest.version != VERSION:
        raise ParseError(
            source, 0, f"was saved in form {rest.version}; this kptrace reads form {VERSION}"
        )
    replies = tuple(_filled(rest.replies, files, source))
    api = {
        path.removeprefix("api/"): _text(content, source, path)
        for path, content in files.items()
        if path.startswith("api/")
    }
    return msgspec.structs.replace(rest, api=api, replies=replies)


def _filled(replies: Iterable[Reply], files: Mapping[str, bytes], source: str) -> Iterable[Reply]:
    for reply in replies:
        if isinstance(reply, FileContent) and not reply.unavailable:
            path = _path(reply.netns, reply.file)
            if path in files:
                yield msgspec.structs.replace(reply, text=_text(files[path], source, path))
            else:
                yield msgspec.structs.replace(reply, unavailable="not in the saved run")
        else:
            yield reply


def _path(netns: Netns, file: str) -> str:
    return f"{netns.node}/pods/{netns.pod}/{file}" if netns.pod else f"{netns.node}/{file}"


def _text(content: bytes, source: str, path: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ParseError(f"{source}:{path}", 0, f"not UTF-8 at byte {error.start}") from None
