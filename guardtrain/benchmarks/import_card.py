"""The card of an imported guard: whose it is, what it judges, and what nobody has measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardtrain.benchmarks.published import PublishedGuard
from guardtrain.guards.directory import CARD, HEAD_ONNX
from guardtrain.guards.head_file import trust

_TEXT = """---
{front}
---
# {name}

{judges} It is the work of others, imported from their own files with guardtrain {version}; guardtrain trained and
changed nothing.

| | |
| --- | --- |
| paper | {paper} |
| files | {url} |
| licence | {licence} |
| encoder | {family} `{model}`{pretrained} |
| encoder's fingerprint | `{fingerprint}` |
| embedding | {dim} numbers, {norm} |

{files}

## Decisions

Taken as {classes}. The import was compared with {compared}.

One operating point, **published**: unsafe from logit 0 (probability .5) on, as its authors use it. It was not chosen on
validation images: no false-positive rate, recall or precision is known here, and the probability is a score that is not
calibrated. Measure it on labelled images of your own before you rely on it.

{notes}

## Use

In this folder, with a `photo.jpg` in it (elsewhere give its path, or its name on the hub as `org/name`):

```python
import guardtrain as gt

guard = gt.Guard.load("."{trusted})
found = guard.predict(["photo.jpg"])
print(found.probabilities, found.decision)
```

{onnx}`config.json` holds all that is said here as data, and the sha256 of every other file. Nothing is pickled.

## Limits

- It judges what the encoder sees, in one embedding, and only what its authors taught it.
- Embeddings of another encoder, or of the same one prepared otherwise, are refused by their fingerprint.
- It is one signal. A decision that affects a person should not rest on it alone.
"""


def write_import_card(folder: Path, published: PublishedGuard, content: Mapping[str, Any]) -> None:
    """Write `README.md` of an imported guard.

    Args:
        folder: the guard's directory.
        published: the guard.
        content: what `config.json` will hold.
    """
    from huggingface_hub import ModelCardData

    origin, spec = published.origin, published.spec
    data = ModelCardData(
        license=origin.licence or "other",
        library_name="guardtrain",
        pipeline_tag="image-classification",
        tags=["image-safety", "content-moderation", "guardtrain", spec.family],
    )
    target = str(content["head"]["_target_"])
    onnx = ""
    if (folder / HEAD_ONNX).is_file():
        most = content["agreement"][0]["difference"]
        onnx = (
            "`head.onnx` computes the same from `embeddings` (N, D) float32 with onnxruntime alone: `logit` and "
            f"`probability`, which differ from the guard's by at most {most:.1e}.\n"
        )
    text = _TEXT.format(
        front=data.to_yaml(),
        name=_cell(published.name),
        judges=f"A guard that finds {origin.judges}.",
        version=content["guardtrain"],
        paper=_cell(origin.paper),
        url=_cell(origin.url),
        licence=_cell(origin.licence or "none stated: ask its authors before you pass it on"),
        family=spec.family,
        model=_cell(spec.model),
        pretrained=f", `{_cell(spec.pretrained)}`" if spec.pretrained else "",
        fingerprint=spec.fingerprint,
        dim=content["dim"],
        norm="unit norm" if spec.normalize else "not of unit norm" if spec.normalize is False else "norm unknown",
        files="\n".join(f"- read from `{name}`, sha256 `{digest}`" for name, digest in published.files.items()),
        classes=published.classes,
        compared=content["imported"]["compared_with"],
        notes="\n".join(f"- {note}" for note in content["notes"][1:]),
        trusted=trust(target),
        onnx=onnx,
    )
    (folder / CARD).write_text(text.replace("\n\n\n", "\n\n"), encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
