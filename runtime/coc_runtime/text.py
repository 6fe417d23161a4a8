"""Text for people: names of files and messages as one line that every terminal and file can take."""

import re

_LONE = re.compile("[\ud800-\udfff]")
"""Surrogates: what Python makes of the bytes of a file's name that are not UTF-8."""


def one_line(text: str) -> str:
    """The text with line breaks, control characters and bytes that are not UTF-8 escaped: \\n, \\xe9."""
    return "".join(part if part.isprintable() else _escaped(part) for part in text)


def encodable(text: str, encoding: str = "utf-8") -> str:
    """The text with all that the encoding lacks escaped; line breaks stay."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        escaped = _LONE.sub(lambda found: _escaped(found[0]), text)
        return escaped.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that `os.fsdecode` could not decode
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
