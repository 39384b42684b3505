"""What the sources that keep images inside tables and archives share: rows with image cells."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from guardtrain.errors import DataError
from guardtrain.file_names import path_on_disk, path_text
from guardtrain.sources.images import is_url, read_encoded

if TYPE_CHECKING:
    import pyarrow as pa


class ImageRows(Protocol):
    """Rows whose image cells are read one at a time.

    Attributes:
        table: every column but the images themselves, one line a row; of an image column `c` that knows its files'
            names, these as `c.path`; of one that holds paths or URLs, these under its own name, too.
        ids: a default id for each row, independent of filters.
        image_columns: names of the columns that hold images, the one that is meant where none is named first.
        key: text that changes when what the images hold changes.
        hint: where columns may have been lost, for the message about one that is missing.
    """

    table: pa.Table
    ids: list[str]
    image_columns: tuple[str, ...]
    key: str
    hint: str

    def cell(self, row: int, column: str) -> bytes | str | None:
        """The file's bytes, the path or URL of the file, or None where the cell is empty. Safe in several threads."""
        ...

    def uri(self, row: int, column: str) -> str | None:
        """A path or fsspec URL that the image can be opened by, without reading it; None where there is none."""
        ...


class TableRows:
    """Rows of a plain table whose image column holds paths or URLs."""

    hint = ""

    def __init__(self, table: pa.Table, image: str, root: str, stem: str, origin: str) -> None:
        if image not in table.column_names:
            from guardtrain.sources.guessing import may_be_images, without_image_column

            raise without_image_column(image, table.column_names, may_be_images(table), origin)
        self._uris = [located(value, root) for value in table[image].to_pylist()]
        self.table = table.append_column(f"{image}.path", table[image])
        self.ids = [f"{stem}/{i:06d}" for i in range(table.num_rows)]
        self.image_columns = (image,)
        self.key = _uris_key(self._uris)

    def cell(self, row: int, column: str) -> bytes | str | None:
        """See `ImageRows`."""
        return self._uris[row]

    def uri(self, row: int, column: str) -> str | None:
        """See `ImageRows`."""
        return self._uris[row]


def _uris_key(uris: list[str | None]) -> str:
    """Return a key of local files' path, size and time; of URLs the URL: a changed file behind one cannot be seen."""
    digest = hashlib.sha256()
    for uri in uris:
        digest.update(f"{uri}\0".encode())
        if uri is not None and not is_url(uri) and Path(path_on_disk(uri)).is_file():
            digest.update(f"{stat_key(uri)}\0".encode())
    return digest.hexdigest()


def stat_key(file: str) -> str:
    """Absolute path, size and modification time of a local file."""
    path = Path(path_on_disk(file))
    stat = path.stat()
    return f"{path_text(path.absolute())}|{stat.st_size}|{stat.st_mtime_ns}"


def located(uri: Any, root: str) -> str | None:
    """A cell's path or URL, relative ones from `root`; a file on the hub through `hf://`, which knows the login."""
    if uri is None or uri == "":
        return None
    text = str(uri)
    if is_url(text):
        return hub_uri(text.strip())
    text = as_on_disk(text, root)
    if text.startswith("/") or not root:
        return text
    return f"{root.rstrip('/')}/{text}"


def as_on_disk(path: str, root: str) -> str:
    r"""A path as a spreadsheet or Windows wrote it, with a blank behind it or backslashes, as the file is called here.

    Args:
        path: local, relative ones from `root`.
        root: a folder or URL; behind a URL nothing is looked for, and backslashes are slashes.

    Returns:
        The path without blanks around it, with slashes, where that is a file and `path` itself is none; else `path`.
    """
    if "\\" not in path and path == path.strip():
        return path
    plain = path.strip()
    others = [plain, plain.replace("\\", "/")]
    if is_url(root):
        return others[-1]
    folder = Path(root).expanduser()
    return next((p for p in [path, *others] if Path(path_on_disk(str(folder / p))).is_file()), path)


def hub_uri(url: str) -> str:
    """`https://huggingface.co/datasets/OWNER/NAME/resolve/REVISION/FILE` as `hf://datasets/…`, others as they are.

    The hub's gated files need a login that plain https does not send.

    >>> hub_uri("https://huggingface.co/datasets/a/b/resolve/main/x/1.jpg")
    'hf://datasets/a/b@main/x/1.jpg'
    >>> hub_uri("https://example.org/1.jpg")
    'https://example.org/1.jpg'
    """
    prefix = "https://huggingface.co/datasets/"
    parts = url.removeprefix(prefix).split("?")[0].split("/", 4)
    if not url.startswith(prefix) or len(parts) < 5 or parts[2] != "resolve":
        return url
    return f"hf://datasets/{parts[0]}/{parts[1]}@{parts[3]}/{parts[4]}"


def cell_bytes(rows: ImageRows, row: int, column: str, record_id: str, origin: str) -> bytes:
    """The file of an image cell, as it is.

    Raises:
        OSError: it cannot be read.
        DataError: the cell is empty.
    """
    cell = rows.cell(row, column)
    if cell is None:
        raise DataError(f"Record {record_id} of {origin} has no image (column '{column}' is empty).")
    return cell if isinstance(cell, bytes) else read_encoded(cell)
