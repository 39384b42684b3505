r"""File names as text that any table, URL and terminal can hold, and from there back to the file.

A name on disk is bytes. Where they are UTF-8, its text is what everybody reads; a byte that is not stands as `\xe9` in
it. Such a text is a name everywhere in guardtrain: in ids, in record tables, on the command line.
"""

from __future__ import annotations

import os
import re
from typing import IO

_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


def path_text(path: str | os.PathLike[str]) -> str:
    r"""A path as text. Text stays as it is, so that it does no harm to ask twice.

    >>> path_text("caf\udce9/1.png")  # as Python gives the bytes b"caf\xe9/1.png"
    'caf\\xe9/1.png'
    >>> path_text("café/1.png")
    'café/1.png'
    """
    text = os.fspath(path)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text


def path_on_disk(text: str) -> str:
    r"""The path that a text of `path_text` stands for, as Python's functions take it.

    A file that is called so to the letter comes first, then one whose bytes the text is in UTF-8 (a locale may say
    otherwise), then one for whose bytes `\xe9` stands. Where there is none, the text itself: whoever opens it says so.
    """
    if text.isascii() and "\\x" not in text:
        return text
    raw = text.encode("utf-8", "surrogateescape")
    meant = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), raw)
    candidates = [text, *(os.fsdecode(each) for each in (raw, meant))]
    found = next((path for path in candidates if os.path.lexists(path)), None)
    return found if found is not None else candidates[1]


def open_on_disk(text: str) -> IO[bytes]:
    """The local file that `text` names, to be read.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    return open(path_on_disk(text), "rb")
