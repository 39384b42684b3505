"""Print a report to the terminal: titles in bold, and nothing that the terminal cannot show."""

from __future__ import annotations

_ASCII = str.maketrans(
    {
        "─": "-",
        "–": "-",
        "−": "-",
        "·": "-",
        "×": "x",
        "÷": "1/",
        "±": "+-",
        "≤": "<=",
        "≥": ">=",
        "→": "->",
        "…": "...",
        "✓": "+",
    }
)


def show(text: str) -> None:
    """Print `text` line by line; a line that is not indented is a title."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    if not console.encoding.lower().startswith("utf"):
        text = text.translate(_ASCII).encode(console.encoding, "replace").decode(console.encoding)
    for line in text.splitlines():
        style = "bold" if line and not line.startswith(" ") else ""
        console.print(Text(line, style=style), soft_wrap=True)
