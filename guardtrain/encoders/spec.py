"""What an encoder is, as data: the settings a user gives, the spec they resolve to, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from guardtrain.errors import ConfigError, EncoderError

FAMILIES = ("open_clip", "timm", "nudenet", "external", "clip-retrieval")
LOADABLE = ("open_clip", "timm", "nudenet")
OUTPUTS = ("projected", "pooled")
RESIZE_MODES = ("shortest", "squash", "longest")
INTERPOLATIONS = {
    "open_clip": ("bicubic", "bilinear"),
    "timm": ("bicubic", "bilinear", "nearest", "lanczos"),
    "nudenet": ("bilinear",),
}
DTYPES = ("auto", "float32", "bfloat16")
CROPS = (1, 5)
LOCAL_DIR = "local-dir"


@dataclass
class EncoderSettings:
    """An encoder as a user configures it. Whatever is None is taken from the model's own published settings.

    Args:
        name: how the encoder is called in file names and tables.
        family: open_clip, timm, or nudenet (its detector's scores as an embedding).
        model: a model name of the family; for open_clip also `hf-hub:org/repo` or `local-dir:/path`. With
            `checkpoint` set to a folder it may be left empty.
        pretrained: the weights' published tag, such as `openai`; with `hf-hub:` a revision. Together with
            `checkpoint`: preprocessing and activation of this tag, weights of the file.
        checkpoint: weights on disk: a `.safetensors` or `.pt` file (loaded with weights_only), or for open_clip a
            folder with `open_clip_config.json` and weights. `pkg://package/folder` is inside an installed package.
        image_size: pixels of the square input.
        resize_mode: shortest (crop the centre), squash, or longest (pad).
        interpolation: bicubic or bilinear; timm also nearest and lanczos.
        mean, std: three numbers each, of pixel values in 0..1.
        crop_pct: timm only: the share of the resized image that the centre crop keeps, 0..1.
        output: projected (CLIP's joint space), or pooled (what goes into the projection). Ignored by timm, whose
            output is always pooled.
        normalize: scale embeddings to unit norm.
        crops: 1 embeds an image as a whole; 5 takes the mean of its embedding and those of its four corners, in five
            times the time. What that helps against, and what not: `docs/pages/defences.md`.
        crop_share: of height and width that a corner keeps, where there are corners.
        dtype: arithmetic of the forward pass. `auto` gives float32's embeddings and counts as float32 everywhere, a
            store made on any machine as good as another: many images under a large model are embedded in bfloat16
            where the machine computes in it and a sample of these images shows that it changes no embedding by more
            than a cosine of 3e-5 (see `guardtrain.embeddings.arithmetic`). `float32` is float32 to the last bit.
            `bfloat16` is bfloat16 whatever it changes, and another encoder.
        quick_gelu: the activation OpenAI's weights were trained with; None takes what the tag says.
        model_kwargs: further arguments of the model's constructor.
        batch_size: images a forward pass.
        device: auto, cpu, cuda, cuda:1, mps.
    """

    name: str = ""
    family: str = "open_clip"
    model: str = ""
    pretrained: str | None = None
    checkpoint: str | None = None
    image_size: int | None = None
    resize_mode: str | None = None
    interpolation: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    crop_pct: float | None = None
    output: str = "projected"
    normalize: bool = True
    crops: int = 1
    crop_share: float = 0.85
    dtype: str = "auto"
    quick_gelu: bool | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 256
    device: str = "auto"

    def check(self) -> None:
        """Refuse values outside the allowed sets.

        Raises:
            ConfigError: naming the key, the value and what is allowed.
        """
        for key, allowed in (
            ("family", LOADABLE),
            ("output", OUTPUTS),
            ("dtype", DTYPES),
            ("crops", CROPS),
            ("resize_mode", (None, *RESIZE_MODES)),
            ("interpolation", (None, *INTERPOLATIONS.get(self.family, ()))),
        ):
            if getattr(self, key) not in allowed:
                names = ", ".join(str(a) for a in allowed if a is not None)
                raise ConfigError(f"encoder.{key} must be one of {names}; it is {getattr(self, key)!r}.")
        for key in ("mean", "std"):
            value = getattr(self, key)
            if value is not None and len(value) != 3:
                raise ConfigError(f"encoder.{key} must be three numbers, one a colour channel; it is {list(value)}.")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise ConfigError(f"encoder.crop_pct must lie in (0, 1]; it is {self.crop_pct}.")
        if self.crop_pct is not None and self.family != "timm":
            raise ConfigError("encoder.crop_pct is timm's; open_clip preprocessing has none.")
        if not 0 < self.crop_share < 1:
            raise ConfigError(f"encoder.crop_share must lie between 0 and 1; it is {self.crop_share}.")
        for key in ("image_size", "batch_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"encoder.{key} must be at least 1; it is {value}.")
        if not self.model and not self.checkpoint:
            raise ConfigError("encoder.model must name a model, or encoder.checkpoint a folder with one.")


# What is recorded for people and for finding the weights again, but does not change an embedding.
_INFORMATION = ("name", "location", "dim", "versions")
_CROPS = {"crops": 1, "crop_share": None}


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that decides what numbers an encoder gives for an image.

    Args:
        family: open_clip, timm, nudenet; external (a user's own arrays) or clip-retrieval (a store without our spec),
            of which only what the user says is known.
        model: the model's name; `local-dir` where `model_config` describes it.
        pretrained: published tag, or the commit of a `hf-hub:` model; None where `weights_sha256` identifies them.
        weights_sha256: hex sha256 of the weights file.
        image_size: input (height, width) in pixels.
        resize_mode, interpolation, mean, std, crop_pct, fill_color: the preprocessing.
        output: projected or pooled.
        quick_gelu: the activation actually used; None where the family has no such choice.
        normalize: unit-norm embeddings; None where unknown.
        crops, crop_share: the embedding is the mean of so many crops' (1: of the image itself), corners of that share.
        dtype: arithmetic of the forward pass; float32 also where it was another that gives the same embeddings.
        model_kwargs: further constructor arguments; for external, whatever else the user says.
        model_config: the architecture of a `local-dir` or `hf-hub:` model.
        name, location, dim, versions: for information: what users call it, where its weights lay, the embedding's
            length, library versions. Not in the fingerprint (except an external encoder's name and dim, which are
            all there is).
    """

    family: str
    model: str
    pretrained: str | None = None
    weights_sha256: str | None = None
    image_size: tuple[int, int] | None = None
    resize_mode: str | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = None
    fill_color: int | None = None
    output: str | None = None
    quick_gelu: bool | None = None
    normalize: bool | None = None
    crops: int = 1
    crop_share: float | None = None
    dtype: str | None = None
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    model_config: dict[str, Any] | None = None
    name: str = ""
    location: str | None = None
    dim: int | None = None
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is the inverse."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        # left out where there are none, so that what was written before there were crops keeps its fingerprint
        return {key: value for key, value in data.items() if key not in _CROPS or value != _CROPS[key]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EncoderSpec:
        """The spec from `to_dict`'s form.

        Raises:
            EncoderError: a key this version does not know (which could change the numbers), or one that is missing.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise EncoderError(
                f"The encoder spec has fields this version of guardtrain does not know: {', '.join(unknown)}. "
                "It was probably written by a newer version."
            )
        if missing := {"family", "model"} - set(data):
            raise EncoderError(f"The encoder spec lacks {', '.join(sorted(missing))}; it has: {', '.join(data)}.")
        if data["family"] not in FAMILIES:
            raise EncoderError(f"The encoder's family must be one of {', '.join(FAMILIES)}; it is '{data['family']}'.")
        values = dict(data)
        for key in ("image_size", "mean", "std"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        return cls(**values)

    def to_json(self) -> str:
        """Indented JSON with the fingerprint beside the fields, ending in a newline."""
        return json.dumps(self.to_dict() | {"fingerprint": self.fingerprint}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EncoderSpec:
        """The spec from `to_json`'s form.

        Raises:
            EncoderError: no JSON object, unknown or missing fields, or a fingerprint that does not fit the fields.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise EncoderError(f"The encoder spec is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise EncoderError("The encoder spec is not a JSON object.")
        written = data.pop("fingerprint", None)
        spec = cls.from_dict(data)
        if written is not None and written != spec.fingerprint:
            raise EncoderError(
                f"The encoder spec was edited: its fields give the fingerprint {spec.fingerprint[:12]}, and "
                f"{str(written)[:12]} is written in it."
            )
        return spec

    def identity(self) -> dict[str, Any]:
        """The fields that change the numbers: what the fingerprint covers."""
        data = self.to_dict()
        informative = ("location", "versions") if self.family not in LOADABLE else _INFORMATION
        return {key: value for key, value in data.items() if key not in informative}

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over the canonical JSON of `identity`."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def diff(self, other: EncoderSpec) -> list[str]:
        """The fields in which the two give different numbers, such as `normalize: True, not False`."""
        mine, theirs = (_CROPS | one.identity() for one in (self, other))
        return [
            f"{key}: {_short(mine.get(key))}, not {_short(theirs.get(key))}"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]

    @property
    def label(self) -> str:
        """How to name it in a message: its name, else family and model."""
        return self.name or f"{self.family}:{self.model}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def require_same(found: EncoderSpec, wanted: EncoderSpec, what: str = "the embeddings") -> None:
    """Refuse embeddings (or a head, a store) of another encoder.

    Raises:
        EncoderError: naming `what`, both encoders, and each field that differs (found, not wanted).
    """
    if differing := found.diff(wanted):
        raise EncoderError(
            f"The encoder of {what} ({found.label}) is not the one wanted ({wanted.label}). They differ in "
            + "; ".join(differing)
            + "."
        )


def external_spec(description: Mapping[str, Any], dim: int, family: str = "external") -> EncoderSpec:
    """The spec of embeddings that somebody else made, from what the user says of the encoder.

    Args:
        description: any of `name`, `dim`, `normalized`, and further keys, which are kept and compared too; or a whole
            spec in `EncoderSpec.to_dict`'s form.
        dim: length of the embeddings there are.

    Raises:
        EncoderError: `dim` is said to be another.
    """
    said = dict(description)
    said.pop("fingerprint", None)
    if said.get("family") not in (None, "external", "clip-retrieval"):
        spec = EncoderSpec.from_dict(said)
        said = {"dim": spec.dim}
    else:
        family = str(said.pop("family", family))
        name = str(said.pop("name", "") or said.get("model") or family)
        own = {f.name for f in fields(EncoderSpec)} - _CROPS.keys()
        further = {key: said[key] for key in sorted(said) if key not in own}
        normalize = further.pop("normalized", said.get("normalize"))
        spec = EncoderSpec(
            family=family,
            model=str(said.get("model") or name),
            pretrained=said.get("pretrained"),
            normalize=normalize,
            model_kwargs=dict(said.get("model_kwargs") or {}) | further,
            name=name,
            dim=dim,
        )
    if said.get("dim") not in (None, dim):
        raise EncoderError(f"The embeddings are {dim}-d, and their encoder is said to give {said['dim']} dimensions.")
    return spec


def settings_for(
    spec: EncoderSpec, *, checkpoint: str | None = None, batch_size: int = 256, device: str = "auto"
) -> EncoderSettings:
    """Settings that resolve to `spec` again, to load the encoder that embeddings or a guard came from.

    Args:
        checkpoint: where the weights lie on this machine; default: where they lay when the spec was made.

    Raises:
        EncoderError: an encoder that guardtrain did not run itself and cannot load.
    """
    if spec.family not in LOADABLE:
        raise EncoderError(
            f"The encoder {spec.label} is not one that guardtrain can load (family '{spec.family}'): only its "
            "embeddings are there. Name the encoder in the settings to embed images."
        )
    return EncoderSettings(
        name=spec.name,
        family=spec.family,
        model="" if spec.model == LOCAL_DIR else spec.model,
        pretrained=spec.pretrained,
        checkpoint=(checkpoint or spec.location) if spec.weights_sha256 is not None else None,
        image_size=None if spec.image_size is None else spec.image_size[0],
        resize_mode=spec.resize_mode,
        interpolation=spec.interpolation,
        mean=None if spec.mean is None else list(spec.mean),
        std=None if spec.std is None else list(spec.std),
        crop_pct=spec.crop_pct,
        output=spec.output or "projected",
        normalize=bool(spec.normalize),
        crops=spec.crops,
        **({} if spec.crop_share is None else {"crop_share": spec.crop_share}),
        dtype=spec.dtype or "float32",
        quick_gelu=spec.quick_gelu,
        model_kwargs=dict(spec.model_kwargs),
        batch_size=batch_size,
        device=device,
    )
