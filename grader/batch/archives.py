"""Folders and archives of hostile origin, listed and read into memory: nothing is unpacked to disk, no link followed.

Nothing that an archive says about itself is believed: sizes are counted while bytes come out. Of tar archives only the
headers are left to the standard library, whose reader of whole archives can be made to loop and to follow links.
"""

from __future__ import annotations

import bz2
import calendar
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from grader.engine.text import printable
from grader.locating import is_code, is_litter

MAX_ENTRIES = 10_000  # of what one student handed in that may be code
MAX_LISTED = 200_000  # of all it holds, data sets and installed packages too
MAX_BYTES = 512 << 20  # of all that is read of it, archives within archives counted again
MAX_TAR = 512 << 20  # which is passed through, and not kept
MAX_RATIO = 200  # unpacked to packed; code packs to a fifth at best, a bomb to a thousandth
FREE_BYTES = 4 << 20  # which may come out of anything, however well it was packed
MAX_NAME = 255
MAX_PATH = 1024
MAX_HEADER = 64 << 10  # of a tar entry that gives the name of the next one
PIECE = 256 << 10
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
OTHER_SUFFIXES = (".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")  # said to be none we read, rather than left out
OTHER_KINDS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "packed by Zstandard",
}
COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
PLAIN_ZIP = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a limit in Python
NAME_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)  # of the entry after them
OTHER_HEADERS = (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE)
LINK = "it is a link or no plain file"
EXTRA = struct.Struct("<HH")  # kind and length of an extra field of a zip
UNICODE_PATH = 0x7075
DRIVE = re.compile(r"^[A-Za-z]:")


class BadArchive(Exception):
    """Something cannot be read; the message is a sentence that says what to do."""


@dataclass
class Budget:
    """What may still be read of what one student handed in, over all of its archives."""

    entries: float = MAX_ENTRIES
    bytes: float = MAX_BYTES
    listed: float = MAX_LISTED

    def count(self, paths: Sequence[str], shown: str) -> None:
        """Take files off, of `listed` also those that cannot be code. Raises BadArchive if there are too many."""
        self.listed -= len(paths)
        self.entries -= sum(not is_litter(path) and (is_code(path) or is_archive(path)) for path in paths)
        if self.entries < 0 or self.listed < 0:
            most = MAX_ENTRIES if self.entries < 0 else MAX_LISTED
            raise BadArchive(f"{shown} holds over {most:,} files; hand in the code only.")

    def spend(self, size: int, shown: str) -> None:
        """Take bytes off. Raises BadArchive if there are too many."""
        self.bytes -= size
        if self.bytes < 0:
            raise BadArchive(f"{shown} brings what was handed in to more than can be read; hand in the code only.")


@dataclass(frozen=True)
class Member:
    """A file of a folder or an archive.

    Attributes:
        path: relative, with slashes.
        read: gives the contents, if they have at most so many bytes; raises BadArchive.
        odd: why it cannot be used, as the end of a sentence: a link, a hostile name; "" if nothing is.
        modified: when it was changed last, in seconds; 0 where nothing says so.
        open: gives the file itself, where it is on disk.
    """

    path: str
    read: Callable[[int, Budget], bytes]
    odd: str = ""
    modified: float = 0.0
    open: Callable[[], IO[bytes]] | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The path without its last part; "" at the top."""
        return self.path.rpartition("/")[0]


def is_archive(path: str) -> bool:
    """Whether a name is that of an archive, one that can be read here or not."""
    return path.lower().endswith(SUFFIXES + OTHER_SUFFIXES)


def without_suffix(name: str) -> str:
    """The name of an archive without its suffix."""
    return next((name[: -len(s)] for s in SUFFIXES + OTHER_SUFFIXES if name.lower().endswith(s)), name)


def one_line(text: str, limit: int = 120) -> str:
    """Hostile text for use in a sentence."""
    return " ".join(printable(text, limit).split())


def normalised(raw: str) -> tuple[str, str]:
    """A path, relative and with slashes, and what is wrong with it: the end of a sentence, or ""."""
    parts = [part for part in DRIVE.sub("", raw.replace("\\", "/")).split("/") if part not in ("", ".")]
    if ".." in parts:
        odd = "its path leads out of its folder"
    elif any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in raw):
        odd = "its name holds control characters"
    elif len(raw) > MAX_PATH or any(len(part) > MAX_NAME for part in parts):
        odd = "its name is too long"
    else:
        return unicodedata.normalize("NFC", "/".join(parts)), ""
    return "/".join(one_line(part, 60) for part in parts[:10] if part != ".."), odd


def decoded(raw: bytes) -> str:
    """A path whose encoding nobody wrote down: UTF-8, else what Chinese Windows writes, else what DOS did."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "/".join(_decoded_part(part) for part in raw.split(b"/"))  # a folder reads the same for all its files


def _decoded_part(raw: bytes) -> str:
    """GBK if at least half of its characters are usual ones: letters of DOS give rare ones, if any."""
    try:
        text = raw.decode("gbk")
    except UnicodeDecodeError:
        return raw.decode("cp437")
    wide = "".join(c for c in text if c > "\x7f")
    return text if len(wide.encode("gb2312", "ignore")) >= len(wide) else raw.decode("cp437")


# ---------------------------------------------------------------- folders


def folder_members(root: Path) -> tuple[list[Member], list[str]]:
    """The files below a folder, sorted, and the litter that was passed over. Links are listed, never followed."""
    members: list[Member] = []
    litter: list[str] = []
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            found = list(os.scandir(folder))
        except OSError:
            members.append(Member(_relative(folder, root)[0], _nothing, "it could not be opened"))
            continue
        for item in found:
            path, odd = _relative(Path(item.path), root)
            if is_litter(path):
                litter.append(path)
            elif item.is_dir(follow_symlinks=False) and not odd:
                waiting.append(Path(item.path))
            else:
                odd = odd or ("" if item.is_file(follow_symlinks=False) else LINK)
                place = Path(item.path), one_line(path)
                modified = item.stat(follow_symlinks=False).st_mtime
                members.append(Member(path, partial(_read_file, *place), odd, modified, partial(_open_file, *place)))
    return sorted(members, key=lambda member: member.path), litter


def _relative(path: Path, root: Path) -> tuple[str, str]:
    """The path below `root` as of `normalised`."""
    return normalised(decoded(os.fsencode(path.relative_to(root))))


def _open_file(path: Path, shown: str) -> IO[bytes]:
    """A plain file, open. Raises BadArchive if it is none."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise BadArchive(f"{shown} could not be read ({error.strerror}); look at its permissions.") from error
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise BadArchive(f"{shown} is a link, not a plain file; put the file itself there.")
    return file


def _read_file(path: Path, shown: str, limit: int, budget: Budget) -> bytes:
    """The contents of a plain file."""
    try:
        with _open_file(path, shown) as file:
            return _taken(file, limit, None, shown, budget)
    except OSError as error:
        raise BadArchive(f"{shown} could not be read ({error.strerror}); look at its permissions.") from error


def _nothing(limit: int, budget: Budget) -> bytes:
    """What a member has that cannot be read."""
    raise BadArchive("A folder could not be opened; look at its permissions.")


def _taken(file: IO[bytes], limit: int, packed: int | None, shown: str, budget: Budget) -> bytes:
    """All of a file, counted while it comes; `packed` is its size in the archive, where there is one."""
    pieces, total = [], 0
    while piece := file.read(PIECE):
        total += len(piece)
        if packed is not None and total > max(FREE_BYTES, MAX_RATIO * packed):
            raise BadArchive(f"{shown} unpacks to over {MAX_RATIO} times its size; hand in the code only.")
        if total > limit:
            raise BadArchive(f"{shown} is over {_size(limit)}; hand in the code only.")
        budget.spend(len(piece), shown)
        pieces.append(piece)
    return b"".join(pieces)


def _size(count: int) -> str:
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB"


@contextmanager
def _damage_of(shown: str) -> Iterator[None]:
    """Whatever goes wrong inside is said of one archive. On hostile bytes the library raises some dozen kinds."""
    try:
        yield
    except BadArchive:
        raise
    except Exception as error:
        raise BadArchive(f"{shown} is damaged or cut short; pack the files and hand them in again.") from error


# ---------------------------------------------------------------- archives


def archive_members(file: IO[bytes], name: str, budget: Budget, large: bool = False) -> list[Member]:
    """The files of an archive, in its order; `file` must stay open while they are read.

    Args:
        file: can be read and sought in.
        name: as the archive is spoken of.
        budget: what its entries count against.
        large: whether a tar may be of any size, that of a whole class.

    Raises:
        BadArchive: if it is none, damaged, or holds too much.
    """
    shown = one_line(name)
    with _damage_of(shown):
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(8)
        if not size:
            raise BadArchive(f"{shown} is an empty file; hand it in again.")
        for magic, kind in OTHER_KINDS.items():
            if head.startswith(magic):
                raise BadArchive(f"{shown} is {kind}; hand in a zip.")
        if head.startswith(b"PK"):
            return _zip_members(file, size, shown, budget)
        stream = _Stream(file, size, head, shown, float("inf") if large else MAX_TAR)
        first = stream.at(0, tarfile.BLOCKSIZE, whole=False)
        if _header(first) is not None or first == bytes(tarfile.BLOCKSIZE):
            return _tar_members(stream, shown, budget)
        if zipfile.is_zipfile(file):  # a program in front of it, as of archives that unpack themselves
            return _zip_members(file, size, shown, budget)
    raise BadArchive(f"{shown} is no zip and no tar, whatever its name says; pack the files again, as a zip.")


def _zip_members(file: IO[bytes], size: int, shown: str, budget: Budget) -> list[Member]:
    archive = zipfile.ZipFile(file)
    names = [_zipped_name(info) for info in archive.infolist()]
    budget.count(names, shown)
    members = []
    for info, raw in zip(archive.infolist(), names, strict=True):
        if raw.endswith(("/", "\\")):
            continue
        path, odd = normalised(raw)
        kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
        if kind not in (0, stat.S_IFREG):
            odd = odd or LINK
        members.append(Member(path, partial(_read_zipped, archive, info, size, shown), odd, _zipped_time(info)))
    return [member for member in members if member.path or member.odd]


def _zipped_name(info: zipfile.ZipInfo) -> str:
    """The name of a member: in UTF-8, or what the extra field of 7-Zip and WinRAR says, or else as good as it gets."""
    if info.flag_bits & 0x800:
        return info.orig_filename
    raw, extra = info.orig_filename.encode("cp437"), info.extra
    while len(extra) >= EXTRA.size:
        kind, length = EXTRA.unpack_from(extra)
        field, extra = extra[EXTRA.size : EXTRA.size + length], extra[EXTRA.size + length :]
        if kind == UNICODE_PATH and field[:1] == b"\1" and field[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            return field[5:].decode("utf-8", "replace")
    return decoded(raw)


def _zipped_time(info: zipfile.ZipInfo) -> float:
    """When a member was changed last; 0 where it says the first moment there is, as programs do that do not know."""
    try:
        return calendar.timegm(info.date_time) if info.date_time[0] > 1980 else 0.0
    except ValueError:
        return 0.0


def _read_zipped(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int, shown: str, limit: int, budget: Budget
) -> bytes:
    """The contents of a member of a zip."""
    if info.flag_bits & 0x1:
        raise BadArchive(f"{shown} is encrypted; hand in a zip without a password.")
    if info.compress_type not in PLAIN_ZIP:
        raise BadArchive(f"{shown} is packed in a way that few programs read; hand in a plain zip.")
    within = f"{one_line(info.filename, 60)} in {shown}"
    with _damage_of(within), archive.open(info) as file:
        return _taken(file, limit, min(info.compress_size, size), within, budget)


class _Stream:
    """The bytes of a tar, unpacked on the way, at any place; going back starts over where there is a compression."""

    def __init__(self, file: IO[bytes], size: int, head: bytes, shown: str, limit: float):
        file.seek(0)
        unpack = next((unpack for magic, unpack in COMPRESSIONS.items() if head.startswith(magic)), None)
        self._file = unpack(file) if unpack else file
        self._most = min(limit, max(FREE_BYTES, MAX_RATIO * size))
        self._shown = shown

    def at(self, place: int, count: int, whole: bool = True) -> bytes:
        """`count` bytes at a place. Raises BadArchive if that is too far, or if some are missing and `whole` is set."""
        if place + count > self._most:
            raise BadArchive(
                f"{self._shown} is over {MAX_TAR >> 20} MB unpacked, or {MAX_RATIO} times its size; "
                "hand in the code only."
            )
        data = self._file.read(count) if self._file.seek(place) == place else b""
        if whole and len(data) < count:
            raise BadArchive(f"{self._shown} is damaged or cut short; pack the files and hand them in again.")
        return data

    def finish(self, place: int) -> None:
        """Read on to the end, where a compression has its checksum."""
        while piece := self.at(place, tarfile.RECORDSIZE, whole=False):
            place += len(piece)


def _header(block: bytes) -> tarfile.TarInfo | None:
    """The header of a tar entry; None if a block is none."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def _tar_members(stream: _Stream, shown: str, budget: Budget) -> list[Member]:
    members: list[Member] = []
    place, extended = 0, dict[str, bytes]()
    while (block := stream.at(place, tarfile.BLOCKSIZE)).strip(b"\0"):  # a block of zeros ends it, and must be there
        info = _header(block)
        names = info is not None and info.type in NAME_HEADERS + OTHER_HEADERS
        size = -1 if info is None else info.size if names else int(extended.get("size", info.size))
        if info is None or size < 0:
            raise BadArchive(f"{shown} is damaged; pack the files and hand them in again.")
        budget.count([extended.get("path", info.name.encode("utf-8", "replace")).decode("utf-8", "replace")], shown)
        place += tarfile.BLOCKSIZE
        if info.type in NAME_HEADERS:
            if size > MAX_HEADER:
                raise BadArchive(f"{shown} holds a name that is too long; pack the files again, as a zip.")
            data = stream.at(place, size)
            extended |= {"path": data.rstrip(b"\0")} if info.type == tarfile.GNUTYPE_LONGNAME else _extended(data)
        elif info.type not in OTHER_HEADERS:
            size = size if info.isreg() else 0
            members += _tarred(info, extended, partial(_read_tarred, stream, place, size, shown))
            extended = {}
        place += -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    stream.finish(place)
    return members


def _tarred(
    info: tarfile.TarInfo, extended: dict[str, bytes], read: Callable[[int, Budget], bytes]
) -> Iterator[Member]:
    """The member that a header stands for; none for a folder."""
    path, odd = normalised(decoded(extended.get("path") or info.name.encode("utf-8", "surrogateescape")))
    if info.isdir() or not (path or odd):
        return
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) and "sparse" not in extended
    yield Member(path, read, odd or ("" if plain else LINK), max(0.0, float(info.mtime)))


def _extended(data: bytes) -> dict[str, bytes]:
    """What an extended header says about the next entry: its path and size, and whether it is sparse."""
    found: dict[str, bytes] = {}
    place = 0
    while place < len(data) and data[place] != 0:
        digits = data[place : place + 8].partition(b" ")[0]
        length = int(digits)
        key, _, value = data[place + len(digits) + 1 : place + length - 1].partition(b"=")
        if not len(digits) < length <= len(data) - place:
            raise ValueError("an extended header that stands still or leads out")
        if key in (b"path", b"size"):
            found[key.decode()] = value
        if key.startswith(b"GNU.sparse"):
            found["sparse"] = value
        place += length
    return found


def _read_tarred(stream: _Stream, place: int, size: int, shown: str, limit: int, budget: Budget) -> bytes:
    """The contents of a member of a tar."""
    if size > limit:
        raise BadArchive(f"A file in {shown} is over {_size(limit)}; hand in the code only.")
    budget.spend(size, shown)
    with _damage_of(shown):
        return stream.at(place, size)
