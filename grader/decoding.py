"""The text of a Python file: read where its bytes have one reading, otherwise refused in a sentence."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable

COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]{1,40})")  # PEP 263, in one of the first two lines
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
DECLARABLE = re.compile(r"utf-8|ascii|iso8859-\d+|cp\d+|gb\w+|big5\w*|shift_jis\w*|euc_\w+|koi8-\w|mac-roman")
SHOWN = {
    "gb18030": "GBK",
    "cp1252": "Windows-1252 (Latin-1)",
    "cp1251": "Windows-1251",
    "euc_kr": "EUC-KR",
    "big5": "Big5",
    "shift_jis": "Shift-JIS",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32-le": "UTF-32",
    "utf-32-be": "UTF-32",
}
HANGUL = frozenset("이다는을를의에가하고은로한지기도서사인대리자수")  # one of them is in nearly every phrase
COMMON = frozenset([*range(0xB0, 0xD8), 0xA1, 0xA3, 0xA6])  # first bytes of usual characters and signs in GB 2312
TYPOGRAPHY = frozenset("\u2018\u2019\u201c\u201d\u2013\u2014\u2026«»°²³±·§\xd7€")
MOSTLY = 0.85
NULS = 0.4  # of the bytes at every other place, in code of UTF-16


class UndecodableError(Exception):
    """Bytes that leave no single reading; the message is the end of a sentence that says what to do."""


def decode(source: bytes) -> tuple[str, str]:
    """The text of a file, without a byte order mark, as if it declared UTF-8; and what to say of its encoding, if any.

    Raises:
        UndecodableError: if the bytes are not text, or could be of several encodings.
    """
    for bom, codec in BOMS.items():
        if source.startswith(bom):
            text = _strictly(source[len(bom) :], codec)
            if text is None:
                raise UndecodableError(f"begins like {codec[:6].upper()} and is damaged. {_save(codec[:6].upper())}")
            return _without_marks(text), _read_as(SHOWN[codec]) if codec in SHOWN else ""
    if codec := _wide(source):
        text = _strictly(source, codec)
        if text is not None:
            return _without_marks(text), _read_as(SHOWN[codec])
    if b"\0" in source:
        raise UndecodableError("is not a text file: it has null bytes. Save it again in your editor as UTF-8.")
    return _narrow(source)


def _narrow(source: bytes) -> tuple[str, str]:
    """As `decode`, of an encoding in which ASCII is itself."""
    declared = _declared(source)
    if declared and (text := _strictly(source, declared)) is not None:
        return _without_marks(text), ""
    if (text := _strictly(source, "utf-8")) is not None:
        said = f"declares {declared} and is UTF-8; it was read as UTF-8. Delete the line that declares it."
        return _without_marks(text), said if declared else ""
    readings = {codec: text for codec in MEANS if (text := _strictly(source, codec)) is not None}
    likely = [codec for codec, text in readings.items() if MEANS[codec](text)]
    if "gb18030" in likely and "big5" in likely:
        likely.remove("big5")  # half of its characters would be none of GB 2312
    if len(likely) == 1:
        return _without_marks(readings[likely[0]]), _read_as(SHOWN[likely[0]])
    names = " or ".join(SHOWN[codec] for codec in likely)
    raise UndecodableError(f"is not UTF-8{f', but probably {names}' if likely else ''}. {_save(names)}")


def _read_as(name: str) -> str:
    return f"is not UTF-8; it was read as {name}. Save it as UTF-8 in your editor."


def _save(names: str) -> str:
    opened = f"Open it in your editor as {names}" if names else "Open it in your editor"
    return f"{opened}, save it as UTF-8 and hand it in again."


def _declared(source: bytes) -> str:
    """The codec that one of the first two lines declares, other than UTF-8; "" if none does, or none of text."""
    for line in re.split(rb"\r\n?|\n", source[:4096])[:2]:
        found = COOKIE.match(line.decode("latin-1"))
        if found:
            try:
                codec = codecs.lookup(found[1]).name
            except LookupError:
                return ""
            return codec if DECLARABLE.fullmatch(codec) and codec != "utf-8" else ""
        if line.strip() and not line.strip().startswith(b"#"):
            return ""
    return ""


def _without_marks(text: str) -> str:
    """Text without byte order marks in front, whose declared encoding, if it has one, is UTF-8."""
    first, *rest = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text.lstrip("\ufeff"), maxsplit=2)
    declaring = [COOKIE.sub(lambda found: found[0].replace(found[1], "utf-8"), line) for line in (first, *rest[:1])]
    return "".join([*declaring, *rest[1:]])


def _strictly(source: bytes, codec: str) -> str | None:
    try:
        return source.decode(codec)
    except UnicodeDecodeError:
        return None


def _wide(source: bytes) -> str:
    """The codec of UTF-16 without a mark, which shows in null bytes at every other place; "" if it is none."""
    even, odd = source[::2].count(0), source[1::2].count(0)
    half = len(source) / 2
    if len(source) % 2 == 0 and max(even, odd) > NULS * half and not min(even, odd):
        return "utf-16-be" if even else "utf-16-le"
    return ""


# ---------------------------------------------------------------- what people write in an encoding


def _mostly(truths: Iterable[bool]) -> bool:
    found = list(truths)
    return bool(found) and sum(found) >= MOSTLY * len(found)


def _wide_of(text: str) -> str:
    return "".join(character for character in text if character > "\x7f")


def _is_common(character: str) -> bool:
    """Whether a character is among those of GB 2312 that are ordered by sound, or a usual sign."""
    return character.encode("gb2312", "replace")[0] in COMMON


def _is_simplified(text: str) -> bool:
    return _mostly(map(_is_common, _wide_of(text)))


def _is_traditional(text: str) -> bool:
    wide = _wide_of(text)
    shared = sum(map(_is_common, wide))
    return 0.3 * len(wide) <= shared < len(wide) and _mostly("\u3000" <= c <= "\u9fff" or c >= "\uff00" for c in wide)


def _is_japanese(text: str) -> bool:
    wide = _wide_of(text)
    return _mostly("\u3000" <= c <= "\u9fff" for c in wide) and any("\u3040" <= c <= "\u30ff" for c in wide)


def _is_korean(text: str) -> bool:
    wide = _wide_of(text)
    return _mostly("\uac00" <= c <= "\ud7a3" for c in wide) and not HANGUL.isdisjoint(wide)


def _is_cyrillic(text: str) -> bool:
    return _mostly(
        len(run) > 2 and bool(re.fullmatch("[\u0410-\u044f\u0401\u0451]+", run)) for run in RUN.findall(text)
    )


def _is_western(text: str) -> bool:
    """Whether letters with accents stand alone or by twos, as in the languages of Western Europe."""
    runs = RUN.findall(text.translate(dict.fromkeys(map(ord, TYPOGRAPHY), " ")))
    return _mostly(len(run) == 1 or (len(run) == 2 and run.islower()) for run in runs) or not runs


RUN = re.compile(r"[^\x00-\x7f]+")
MEANS: dict[str, Callable[[str], bool]] = {
    "gb18030": _is_simplified,
    "big5": _is_traditional,
    "shift_jis": _is_japanese,
    "euc_kr": _is_korean,
    "cp1251": _is_cyrillic,
    "cp1252": _is_western,
}
