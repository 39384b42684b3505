"""Modules of users' own: the head that the page on them shows, in the files that it names, and a source of images."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "extend.md"
OWN_HEAD = ["--config-dir", "mine", "head=tiny"]

SOURCE = """
from dataclasses import dataclass

from PIL import Image
from guardtrain.records import Records

@dataclass
class Squares:
    n: int = 6

    def records(self):
        return Records.from_columns(id=[str(i) for i in range(self.n)], label=[i % 2 for i in range(self.n)])

    def content_key(self):
        return f"squares {self.n}"

    def image(self, i):
        return Image.new("RGB", (32, 32), (20 * i, 0, 0))
"""


def write_own_head(folder: Path) -> None:
    """Write `my_head.py` and `mine/head/tiny.yaml` as they stand in that page."""
    shown = re.findall(r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert {name for name, _ in shown} == {"my_head.py", "mine/head/tiny.yaml"}
    for name, text in shown:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
