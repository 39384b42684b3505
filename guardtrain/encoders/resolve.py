"""From settings to spec without building a model: quick enough for the start of every command."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from guardtrain.encoders.hub import hub_file
from guardtrain.encoders.resolved import Resolved, local_path, versions
from guardtrain.encoders.spec import LOCAL_DIR, EncoderSettings, EncoderSpec
from guardtrain.errors import ConfigError, EncoderError
from guardtrain.files import file_sha256, stand_in

# open_clip's own defaults (open_clip.transform.PreprocessCfg), repeated here because importing them takes 4 s; a
# test compares the two.
OPEN_CLIP_PREPROCESS: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# In open_clip's own order of preference.
_FOLDER_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_RESIZE_OF_CROP_MODE = {"center": "shortest", "squash": "squash", "border": "longest"}
TIMM_CONFIG = "config.json"
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_TIMM_ORG = "timm/"
_HUB, _OLD_HUB = "hf-hub:", "hf_hub:"  # timm still takes its old spelling
_NOT_OF_THE_NUMBERS = ("name", "batch_size", "device")


def resolve_spec(settings: EncoderSettings, memo: Path | None = None) -> EncoderSpec:
    """The spec that `settings` mean, with the model's published preprocessing where they say nothing.

    Args:
        memo: a folder in which resolved specs are remembered, keyed by the settings, the library versions and the
            size and modification time of local weights. With it a second call imports no torch and hashes no file.

    Raises:
        ConfigError: settings outside the allowed sets.
        EncoderError: an unknown model or tag (with close names), a missing checkpoint, hub files that cannot be had.
    """
    settings.check()
    key = _memo_key(settings) if memo is not None else None
    if memo is not None and key is not None and (file := memo / f"{key}.json").is_file():
        try:
            spec = EncoderSpec.from_json(file.read_text())
            return replace(spec, name=settings.name or spec.name)
        except EncoderError:
            pass  # written by another version: resolve it again
    spec = resolve(settings).spec
    if memo is not None and key is not None:
        with suppress(OSError):  # whoever needs the folder for more says what is wrong with it
            memo.mkdir(parents=True, exist_ok=True)
            temporary = memo / f".{key}.{os.getpid()}.tmp"
            temporary.write_text(spec.to_json())
            temporary.replace(memo / f"{key}.json")
    return spec


def resolve(settings: EncoderSettings) -> Resolved:
    """`resolve_spec`, with the files it found; hashes local weights each time."""
    settings.check()
    if settings.model.startswith(_OLD_HUB):
        settings = replace(settings, model=_HUB + settings.model.removeprefix(_OLD_HUB))
    if settings.family == "nudenet":
        from guardtrain.encoders.nudenet_adapter import resolve_nudenet

        return resolve_nudenet(settings)
    return _resolve_open_clip(settings) if settings.family == "open_clip" else _resolve_timm(settings)


def arithmetic(settings: EncoderSettings) -> str:
    """The arithmetic that an encoder's numbers are those of: `auto` promises float32's."""
    return "float32" if settings.dtype == "auto" else settings.dtype


def corners(settings: EncoderSettings) -> float | None:
    """The share of an image that a corner keeps; None where an image is embedded as a whole."""
    return None if settings.crops == 1 else settings.crop_share


def close_names(name: str, allowed: Iterable[str]) -> str:
    """`Close: a, b.` for an unknown model or tag, else the first few allowed."""
    allowed = list(allowed)
    by_case = {a.lower(): a for a in allowed}
    close = [by_case[c] for c in difflib.get_close_matches(name.lower(), list(by_case), n=5, cutoff=0.5)]
    return f"Close to it: {', '.join(close)}." if close else f"There are, for example: {', '.join(allowed[:5])}."


# ---------------------------------------------------------------- open_clip


def _resolve_open_clip(settings: EncoderSettings) -> Resolved:
    published = dict(OPEN_CLIP_PREPROCESS)
    model_config: dict[str, Any] | None = None
    checkpoint = _checkpoint(settings)
    folder, weights, revision = _open_clip_folder(settings, checkpoint)
    location = settings.checkpoint
    if folder is not None:
        written = _read_open_clip_config(folder)
        model_config = written["model_cfg"]
        published |= {k: v for k, v in written.get("preprocess_cfg", {}).items() if k in published and v is not None}
        config = model_config
        model = settings.model if revision is not None else LOCAL_DIR
        pretrained = revision
        weights = weights or _weights_in(folder)
        location = settings.checkpoint or (str(folder) if revision is None else None)
    else:
        model = settings.model.replace("/", "-")
        config = _built_in_config(model)
        pretrained = None if checkpoint is not None else settings.pretrained
        weights = checkpoint
    quick_gelu = bool(config.get("quick_gelu", False))
    if folder is None and settings.pretrained is not None:
        tag = open_clip_tag(model, settings.pretrained)
        published |= {k: v for k, v in tag.items() if k in published and v is not None}
        # The tag knows what its weights were trained with; the model's name need not say so.
        quick_gelu = bool(tag.get("quick_gelu", False))
    elif folder is None and checkpoint is None:
        raise EncoderError(
            f"encoder.model={settings.model} needs weights: set encoder.pretrained to a tag "
            f"({_some_tags(model)}) or encoder.checkpoint to a local file."
        )
    size = settings.image_size or config.get("vision_cfg", {}).get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    # The hub's own weights are named by its commit; a file of the user's is not.
    sha = file_sha256(weights) if weights is not None and (revision is None or checkpoint is not None) else None
    spec = EncoderSpec(
        family="open_clip",
        model=model,
        pretrained=pretrained,
        weights_sha256=sha,
        image_size=(int(height), int(width)),
        resize_mode=settings.resize_mode or published["resize_mode"],
        interpolation=settings.interpolation or published["interpolation"],
        mean=_triple(settings.mean or published["mean"]),
        std=_triple(settings.std or published["std"]),
        fill_color=int(published["fill_color"]),
        output=settings.output,
        quick_gelu=quick_gelu if settings.quick_gelu is None else settings.quick_gelu,
        normalize=settings.normalize,
        crops=settings.crops,
        crop_share=corners(settings),
        dtype=arithmetic(settings),
        model_kwargs=dict(settings.model_kwargs),
        model_config=model_config,
        name=settings.name or (folder.name if folder is not None and revision is None else _label(settings)),
        location=location,
        dim=config.get("embed_dim") if settings.output == "projected" else None,
        versions=versions("guardtrain", "open_clip_torch", "torch", "torchvision", "pillow"),
    )
    return Resolved(spec, folder, weights)


def _open_clip_folder(
    settings: EncoderSettings, checkpoint: Path | None
) -> tuple[Path | None, Path | None, str | None]:
    """Folder with an `open_clip_config.json`, weights of it where they are a hub file, and the hub's commit."""
    if checkpoint is not None and checkpoint.is_dir():
        return checkpoint, None, None
    if settings.model.startswith("local-dir:"):
        folder = Path(settings.model.removeprefix("local-dir:")).expanduser()
        if not folder.is_dir():
            raise EncoderError(f"encoder.model={settings.model}: there is no folder {folder}.")
        return folder, checkpoint, None
    if settings.model.startswith(_HUB):
        repo = settings.model.removeprefix(_HUB)
        config = hub_file(repo, [OPEN_CLIP_CONFIG], f"open_clip {settings.model}", settings.pretrained)
        return config.parent, checkpoint, config.parent.name
    return None, None, None


def _read_open_clip_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder, OPEN_CLIP_CONFIG)
    if not isinstance(config.get("model_cfg"), dict):
        raise EncoderError(f"{folder / OPEN_CLIP_CONFIG} has no 'model_cfg'.")
    return config


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise EncoderError(f"The encoder's folder {folder} must hold {name} and weights; it holds {found}.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise EncoderError(f"{file} is not JSON: {error}") from None
    return config if isinstance(config, dict) else {}


def _weights_in(folder: Path, config: str = OPEN_CLIP_CONFIG) -> Path:
    """The weights of a folder that holds a model's configuration, too."""
    _read_json(folder, config)
    for name in _FOLDER_WEIGHTS:
        if (folder / name).is_file():
            return _weights(folder / name)
    raise EncoderError(f"The encoder's folder {folder} has no weights (looked for {', '.join(_FOLDER_WEIGHTS)}).")


def _built_in_config(model: str) -> dict[str, Any]:
    folder = _open_clip_package() / "model_configs"
    file = folder / f"{model}.json"
    if not file.is_file():
        names = sorted(p.stem for p in folder.glob("*.json"))
        raise EncoderError(f"open_clip has no model '{model}'. {close_names(model, names)}")
    return json.loads(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _open_clip_package() -> Path:
    found = find_spec("open_clip")  # locates without importing, which would take 4 s
    if found is None or not found.submodule_search_locations:
        raise EncoderError("encoder.family=open_clip needs the package open_clip_torch, which is not installed.")
    return Path(next(iter(found.submodule_search_locations)))


def open_clip_tag(model: str, tag: str) -> dict[str, Any]:
    """open_clip's entry for a pretrained tag: preprocessing, quick_gelu and where the weights are."""
    import open_clip

    entry = open_clip.get_pretrained_cfg(model, tag)
    if not entry:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise EncoderError(
            f"open_clip has no pretrained tag '{tag}' for {model}. "
            + (close_names(tag, tags) if tags else f"It has none for {model}: set encoder.checkpoint.")
        )
    return dict(entry)


def _some_tags(model: str) -> str:
    import open_clip

    return ", ".join(open_clip.list_pretrained_tags_by_model(model)[:5]) or "it has none"


# ---------------------------------------------------------------- timm


def _resolve_timm(settings: EncoderSettings) -> Resolved:
    import timm

    checkpoint = _checkpoint(settings)
    folder, weights, revision = _timm_folder(settings, checkpoint)
    if folder is not None:
        written = read_timm_config(folder)
        architecture, published = str(written["architecture"]), dict(written.get("pretrained_cfg") or {})
        arguments = {**(written.get("model_args") or {}), **settings.model_kwargs}
        model, pretrained = (architecture, None) if revision is None else (settings.model, revision)
        weights = checkpoint if checkpoint is not None and checkpoint.is_file() else weights
        if not timm.is_model(architecture):
            raise EncoderError(f"{folder / TIMM_CONFIG} names the model '{architecture}', which timm does not have.")
    else:
        model, pretrained, published = _registered_timm(settings, checkpoint)
        arguments, weights = dict(settings.model_kwargs), checkpoint
    data = timm.data.resolve_data_config(pretrained_cfg=published)
    height, width = (settings.image_size,) * 2 if settings.image_size else data["input_size"][1:]
    # The hub's own weights are named by its commit; a file of the user's is not.
    sha = None if weights is None or (revision is not None and checkpoint is None) else file_sha256(weights)
    label = folder.name if folder is not None and revision is None else _label(settings)
    spec = EncoderSpec(
        family="timm",
        model=model,
        pretrained=pretrained,
        weights_sha256=sha,
        image_size=(int(height), int(width)),
        resize_mode=settings.resize_mode or _RESIZE_OF_CROP_MODE[data["crop_mode"]],
        interpolation=settings.interpolation or data["interpolation"],
        mean=_triple(settings.mean or data["mean"]),
        std=_triple(settings.std or data["std"]),
        crop_pct=float(settings.crop_pct or data["crop_pct"]),
        output="pooled",
        normalize=settings.normalize,
        crops=settings.crops,
        crop_share=corners(settings),
        dtype=arithmetic(settings),
        model_kwargs=arguments,
        name=settings.name or label,
        location=settings.checkpoint or (str(folder) if folder is not None and revision is None else None),
        versions=versions("guardtrain", "timm", "torch", "torchvision", "pillow"),
    )
    return Resolved(spec, folder, weights)


def _registered_timm(settings: EncoderSettings, checkpoint: Path | None) -> tuple[str, str | None, dict[str, Any]]:
    """Architecture, tag (None with weights of the user's own) and published settings of a model that timm knows."""
    import timm

    name = settings.model.removeprefix(_HUB).removeprefix(_TIMM_ORG)
    if not name:
        raise ConfigError("encoder.model must name the timm model that encoder.checkpoint belongs to.")
    architecture, _, tag = name.partition(".")
    tag = settings.pretrained or tag
    if not timm.is_model(architecture):
        hub = f" A repository of the hub is encoder.model=hf-hub:{name}." if name.count("/") == 1 else ""
        raise EncoderError(f"timm has no model '{architecture}'. {close_names(architecture, timm.list_models())}{hub}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and checkpoint is None and tag not in tags:
        raise EncoderError(f"timm has no pretrained tag '{tag}' for {architecture}. {close_names(tag, tags)}")
    entry = timm.models.get_pretrained_cfg(f"{architecture}.{tag}" if tag in tags else architecture)
    published = entry.to_dict() if entry is not None else {}
    if checkpoint is None and not (published.get("hf_hub_id") or published.get("url") or published.get("file")):
        raise EncoderError(f"timm publishes no weights for {architecture}: set encoder.checkpoint to a local file.")
    return architecture, None if checkpoint is not None else str(published.get("tag") or tag), published


def _timm_folder(settings: EncoderSettings, checkpoint: Path | None) -> tuple[Path | None, Path | None, str | None]:
    """Folder with timm's `config.json`, its weights where they are there, and the hub's commit."""
    import timm

    if checkpoint is not None and checkpoint.is_dir():
        return checkpoint, _weights_in(checkpoint, TIMM_CONFIG), None
    if settings.model.startswith(f"{LOCAL_DIR}:"):
        folder = Path(settings.model.removeprefix(f"{LOCAL_DIR}:")).expanduser()
        if not folder.is_dir():
            raise EncoderError(f"encoder.model={settings.model}: there is no folder {folder}.")
        return folder, _weights_in(folder, TIMM_CONFIG), None
    if settings.model.startswith(_HUB):
        repo = settings.model.removeprefix(_HUB)
        if repo.startswith(_TIMM_ORG) and timm.is_model(repo.removeprefix(_TIMM_ORG).partition(".")[0]):
            return None, None, None  # of timm's own, which it knows by name
        config = hub_file(repo, [TIMM_CONFIG], f"timm {settings.model}", settings.pretrained)
        return config.parent, None, config.parent.name
    return None, None, None


def read_timm_config(folder: Path) -> dict[str, Any]:
    """Read what timm writes of a model beside its weights: `architecture`, `pretrained_cfg`, perhaps `model_args`.

    Raises:
        EncoderError: there is no such file, or it is of something else.
    """
    config = _read_json(folder, TIMM_CONFIG)
    if not isinstance(config.get("architecture"), str):
        raise EncoderError(f"{folder / TIMM_CONFIG} has no 'architecture': it is no model that timm saved.")
    return config


# ---------------------------------------------------------------- shared


def _checkpoint(settings: EncoderSettings) -> Path | None:
    if settings.checkpoint is None:
        return None
    path = local_path(settings.checkpoint)
    if not path.exists():
        raise EncoderError(f"encoder.checkpoint={settings.checkpoint}: there is no file or folder {path.absolute()}.")
    return path if path.is_dir() else _weights(path)


def _weights(path: Path) -> Path:
    """The file, which is refused where it only stands for weights."""
    if wrong := stand_in(path):
        raise EncoderError(wrong)
    return path


def _triple(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _label(settings: EncoderSettings) -> str:
    model = settings.model.replace("/", "-").replace(":", "-")
    return f"{model}-{settings.pretrained}" if settings.pretrained else model


def _memo_key(settings: EncoderSettings) -> str | None:
    """None where resolving must look again each time: a hub repository's main branch may have moved in the cache."""
    if settings.model.startswith((_HUB, _OLD_HUB)):
        return None
    said: dict[str, Any] = {k: v for k, v in asdict(settings).items() if k not in _NOT_OF_THE_NUMBERS}
    said["versions"] = versions("guardtrain", "open_clip_torch", "timm")
    roots = [local_path(settings.checkpoint)] if settings.checkpoint else []
    if settings.model.startswith("local-dir:"):
        roots.append(Path(settings.model.removeprefix("local-dir:")).expanduser())
    files = [f for root in roots for f in (sorted(root.iterdir()) if root.is_dir() else [root]) if f.is_file()]
    said["files"] = [[str(f.absolute()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
