"""EDGE: the state of nodes as it lies in a bundle: a folder, or a tar of one (DESIGN section 6).

In: a path. Out: the nodes in it, the API's documents, and each node's files as a mapping that reads
a file when it is asked for: a bundle may hold 60 MB a node, of which one Service needs little.

``api`` may be a folder, a link to one, or a file that holds the relative path of one, for bundles
of several clusters' states that share it. Such a path is followed only as far as the folder that
holds the bundle: a bundle is data of others.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kptrace.bundle.paged_file import FilePages
from kptrace.kube.objects.cluster_state import FILES, OPTIONAL_FILES
from kptrace.model.errors import NotFoundError, ObservationError, ParseError
from kptrace.rules.iptables.save_index import Pages, split_pages
from kptrace.rules.live.queries import TABLES, is_query

API = "api"
RULES = "rules"  # of a saved run: facts about rules, one by one (rules/live/queries.py)
# what makes a folder a node's: any of these, gzipped or not
MARKS = (
    TABLES,
    "iptables-save.txt",
    "iptables-nft-save.txt",
    "iptables-legacy-save.txt",
    "ip6tables-save.txt",
    "nft-ruleset.json",
    "ipvsadm-Sn.txt",
    "ip-addr.json",
    "ip-route.json",
)
_LONGEST_PATH = 4096
BIG = 1 << 18  # bytes
MOST_BYTES = 1 << 30  # as bundle/archive.py, which is not needed for a folder


class Bundle:
    """``with_api``: the API's documents, by file name; ``node``: a node's files, by file name."""

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        try:
            exists = path.is_dir()
        except OSError as error:
            raise ObservationError(f"{path} cannot be read: {error.strerror}") from None
        self._folders = _folders(path) if exists else _members(_archived(path))

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(
            sorted(
                name
                for name, files in self._folders.items()
                if name != API and any(mark in files for mark in MARKS)
            )
        )

    def api(self) -> Mapping[str, bytes]:
        names = (*FILES, *OPTIONAL_FILES)
        files = self._folders.get(API, {})
        return FilteredFiles(files, names)

    def node(self, name: str) -> Mapping[str, str]:
        if name not in self.nodes:
            have = ", ".join(self.nodes) or "none at all"
            raise NotFoundError(f"{self._name} holds no node {name}", f"it holds: {have}")
        files = self._folders[name]
        return (
            SavedRunFiles(files, name, self._name) if TABLES in files else DecodedFiles(files, name)
        )

    def rules_changed_while_reading(self, name: str) -> bool:
        """No. A saved run's rules are of several generations: it armed its own table meanwhile."""
        return False

    def refresh_after(self, seconds: float) -> bool:
        return False


class Folder(Mapping[str, bytes]):
    """The files of a folder by name, gzipped ones without ``.gz``; read when asked for."""

    def __init__(self, path: Path) -> None:
        self._paths: dict[str, Path] = {}
        inner = sorted((path / RULES).rglob("*")) if (path / RULES).is_dir() else []
        for file in (*inner, *sorted(path.iterdir(), reverse=True)):
            if file.is_symlink() and not file.exists():
                continue  # a dangling link is a missing file
            # x.txt is believed before x.txt.gz
            self._paths[file.relative_to(path).as_posix().removesuffix(".gz")] = file

    def __getitem__(self, name: str) -> bytes:
        path = self._paths[name]
        try:
            _require_regular(path)
            return _unzipped(path) if path.suffix == ".gz" else path.read_bytes()
        except OSError as error:
            raise ParseError(str(path), 0, f"cannot be read: {error}") from None

    def big(self, name: str) -> Path | None:
        """Where a file lies that is better read in pages."""
        path = self._paths[name]
        return path if path.suffix != ".gz" and path.stat().st_size > BIG else None

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _require_regular(path: Path) -> None:
    """Raises ParseError for a pipe or a device, which reading could block on or never end, and for
    a file that is too large.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ParseError(str(path), 0, "is not a regular file")
    if status.st_size > MOST_BYTES:
        raise ParseError(str(path), 0, f"holds more than {MOST_BYTES >> 20} MiB")


def _unzipped(path: Path) -> bytes:
    import gzip  # few bundles need it
    import zlib

    try:
        with gzip.open(path) as file:
            content = file.read(MOST_BYTES + 1)
    except (EOFError, zlib.error) as error:
        raise ParseError(str(path), 0, f"cannot be read: {error}") from None
    if len(content) > MOST_BYTES:
        raise ParseError(str(path), 0, f"holds more than {MOST_BYTES >> 20} MiB")
    return content


class FilteredFiles(Mapping[str, bytes]):
    """Only the files with these names."""

    def __init__(self, files: Mapping[str, bytes], names: tuple[str, ...]) -> None:
        self._files = files
        self._names = tuple(name for name in names if name in files)

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class DecodedFiles(Mapping[str, str]):
    """A node's files as text."""

    def __init__(self, files: Mapping[str, bytes], node: str) -> None:
        self._files, self._node = files, node
        self._read: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._read:
            self._read[name] = self._text(name)
        return self._read[name]

    def pages(self, name: str) -> Pages:
        path = self._files.big(name) if isinstance(self._files, Folder) else None
        return FilePages(path, f"{self._node}/{name}") if path else split_pages(self[name])

    def _text(self, name: str) -> str:
        try:
            return self._files[name].decode()
        except UnicodeDecodeError as error:
            raise ParseError(
                f"{self._node}/{name}", 0, f"not UTF-8 at byte {error.start}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class SavedRunFiles(DecodedFiles):
    """A node of a saved run: of its rules only those are there that the trace reached."""

    def __init__(self, files: Mapping[str, bytes], node: str, run: str) -> None:
        super().__init__(files, node)
        self._run = run

    def get_many(self, names: Sequence[str]) -> Mapping[str, str]:
        for name in names:
            if is_query(name) and name not in self:
                raise NotFoundError(
                    f"{self._run} is a saved run: of {self._node}'s rules it holds only what its "
                    f"trace reached, and not {name}",
                    "`kptrace replay` prints its report; `kptrace snapshot` keeps all rules",
                )
        return {name: self[name] for name in names if name in self}


def _folders(path: Path) -> dict[str, Mapping[str, bytes]]:
    try:
        folders: dict[str, Mapping[str, bytes]] = {
            entry.name: Folder(entry)
            for entry in sorted(path.iterdir())
            if entry.is_dir() and entry.name != API
        }
        api = _api(path)
        return {**folders, API: Folder(api)} if api else folders
    except OSError as error:
        raise ObservationError(
            f"{error.filename or path} cannot be read: {error.strerror}"
        ) from None


def _api(path: Path) -> Path | None:
    api = path / API
    if api.is_dir():
        return api
    if not api.is_file():
        return None
    with api.open("rb") as file:
        said = file.read(_LONGEST_PATH).decode(errors="replace").strip()
    meant, home = (path / said.replace("\0", "/")).resolve(), path.resolve().parent
    if not said or "\0" in said or not meant.is_relative_to(home) or not meant.is_dir():
        raise ParseError(str(api), 0, f"names no folder beside the bundle: {said[:80]!r}")
    return meant


def _archived(path: Path) -> dict[str, bytes]:
    from kptrace.bundle import archive

    return archive.read(path)


def _members(files: Mapping[str, bytes]) -> dict[str, Mapping[str, bytes]]:
    """The same of an archive; its files may stand below one folder of the bundle's own name."""
    parts = {name: name.strip("/").split("/") for name in files}
    tops = {part[0] for part in parts.values()}
    if len(tops) == 1 and all(len(part) > 2 for part in parts.values()):
        parts = {name: part[1:] for name, part in parts.items()}
    folders: dict[str, dict[str, bytes]] = {}
    for name, part in parts.items():
        if len(part) == 2 or (len(part) > 2 and part[1] == RULES):
            folders.setdefault(part[0], {})["/".join(part[1:])] = files[name]
    return dict(folders)
