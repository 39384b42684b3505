"""A trained head on disk: `head.safetensors` (weights and input statistics) and `head.json` (what they belong to)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from guardtrain.encoders.spec import EncoderSpec, require_same
from guardtrain.errors import DataError
from guardtrain.files import replace_file
from guardtrain.heads.bank import HeadBank

FORMAT = 1
WEIGHTS, DESCRIPTION = "head.safetensors", "head.json"


@dataclass(frozen=True)
class KeptHead:
    """One trained head, as it was kept in files.

    Args:
        bank: a bank of one.
        spec: the encoder whose embeddings it reads.
        about: mixture, hyper-parameters, data and versions, as plain data.
    """

    bank: HeadBank
    spec: EncoderSpec
    about: Mapping[str, Any]

    @torch.inference_mode()
    def probabilities(self, embeddings: torch.Tensor, spec: EncoderSpec) -> torch.Tensor:
        """`(N,)` float32 probabilities of being unsafe for `(N, D)` embeddings made by the encoder `spec`.

        Raises:
            EncoderError: the embeddings come from another encoder, with the fields that differ.
        """
        require_same(self.spec, spec, what="the head's encoder and that of the embeddings")
        return torch.sigmoid(self.bank(embeddings.float()))[0]


def save_head(folder: Path, bank: HeadBank, r: int, spec: EncoderSpec, head: Mapping[str, Any], **about: Any) -> None:
    """Write head `r` of `bank` into `folder`; the description is written last, so half a head is none.

    Args:
        folder: made if missing.
        bank: the trained bank.
        r: which of its heads.
        spec: the encoder's spec.
        head: the head's definition, `{_target_: ..., ...}`.
        about: further plain data to keep with it.
    """
    description = {
        "format": FORMAT,
        "head": dict(head),
        "dim": bank.dim,
        "encoder": json.loads(spec.to_json()),
        **about,
    }
    (folder / DESCRIPTION).unlink(missing_ok=True)  # an older head's: it must not stand beside new weights
    state = {name: value.contiguous() for name, value in bank.head_state(r).items()}
    replace_file(folder / WEIGHTS, lambda path: safetensors.torch.save_file(state, path))
    replace_file(folder / DESCRIPTION, lambda path: path.write_text(json.dumps(description, indent=2)))


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a head's `head.json`.

    Raises:
        DataError: there is none, or it is of a newer format.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"{folder} holds no {DESCRIPTION}; give a folder that `guardtrain train` wrote.")
    description: dict[str, Any] = json.loads(path.read_text())
    if description.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {description.get('format')}; this guardtrain reads format {FORMAT}. Update guardtrain."
        )
    return description


def kept_run(folder: Path) -> str | None:
    """The run whose head `folder` holds; None where it holds no whole head."""
    if not (folder / DESCRIPTION).is_file() or not (folder / WEIGHTS).is_file():
        return None
    run = read_description(folder).get("run")
    return None if run is None else str(run)


def load_head(folder: Path, definition: Any) -> KeptHead:
    """Read what `save_head` wrote.

    Args:
        folder: the head's folder.
        definition: the head definition built from `read_description(folder)["head"]`.

    Raises:
        DataError: missing or damaged files, or weights that do not fit the definition.
    """
    description = read_description(folder)
    try:
        state = safetensors.torch.load_file(folder / WEIGHTS)
        bank: HeadBank = definition.bank(1, int(description["dim"]))
        bank.load_state_dict(state)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise DataError(f"{folder / WEIGHTS} does not fit its description: {str(error).splitlines()[0]}") from error
    spec = EncoderSpec.from_json(json.dumps(description["encoder"]))
    about = {key: value for key, value in description.items() if key not in ("format", "head", "dim", "encoder")}
    return KeptHead(bank.eval(), spec, about)
