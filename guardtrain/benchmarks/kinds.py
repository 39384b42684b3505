"""The kinds of published guards that can be imported: each reads its authors' own files; see `conf/kind/`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from guardtrain.benchmarks.concepts import Concepts
from guardtrain.benchmarks.layers import Folded, folded, only_layer
from guardtrain.benchmarks.published import Origin, Original
from guardtrain.benchmarks.reading import CHECKPOINTS, read_arrays
from guardtrain.benchmarks.scoring import Layers, Scorer, affine, highest
from guardtrain.benchmarks.unsaid import Classes, Unsaid, unsafe_among, unsafe_setting
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.errors import ConfigError, GuardError
from guardtrain.heads.unit_norm import unit_rows


@dataclass(frozen=True)
class Read:
    """An importer's findings.

    Args:
        name: what the guard is called.
        scorer: its head.
        files: that were read.
        hint: a text that may name the encoder.
        judges: what it calls unsafe, where that is less than its kind does.
        encoder: the encoder that the files themselves are, or name; None to find it by `hint`.
        classes: what is taken as unsafe, in words.
        assumed: what the files do not say, and was taken for granted.
        length: of the embeddings it was fitted on (root mean square), where the files tell.
        original: its own program, where that is at hand.
    """

    name: str
    scorer: Scorer
    files: tuple[Path, ...]
    hint: str = ""
    judges: str = ""
    encoder: EncoderSettings | None = None
    classes: str = "unsafe: a high output, as published"
    assumed: tuple[str, ...] = ()
    length: float | None = None
    original: Original | None = None


class Kind(Protocol):
    """A kind of published guard; a user's own is any class with these, named by `_target_`.

    Attributes:
        normalize: whether the head reads embeddings of unit norm; None where nobody said.
        origin: where such guards come from.

    One whose file comes with a package has a `default_file` besides.
    """

    @property
    def normalize(self) -> bool | None: ...

    @property
    def origin(self) -> Origin: ...

    def read(self, path: Path) -> Read:
        """Read a guard's file or folder; raises GuardError where it is none of this kind."""


@dataclass
class Q16:
    """Q16: two prompts learned on CLIP, `softmax(100·x̂·p̂ᵀ)[1]` (Schramowski et al., FAccT 2022, arXiv 2202.06675).

    The file is their pickle of an array, or the array as `.npy` or as a tensor (`.pt`: the prompts Qu et al. tuned).

    Args:
        scale: of the cosines.
    """

    scale: float = 100.0
    normalize: ClassVar[bool] = True
    origin: ClassVar[Origin] = Origin(
        "Schramowski, Tauchmann and Kersting, Can machines help us answering question 16 in datasheets, FAccT 2022",
        "https://github.com/ml-research/Q16",
        "mit",
        "images that people find morally wrong, or offensive",
    )

    def read(self, path: Path) -> Read:
        arrays = read_arrays(path)
        prompts = next(iter(arrays.values()))
        if len(arrays) != 1 or prompts.ndim != 2 or len(prompts) != 2:
            shapes = ", ".join(str(array.shape) for array in arrays.values())
            raise GuardError(f"{path} must hold Q16's two prompts (2, D); it holds {shapes}.")
        safe, unsafe = unit_rows(prompts)
        scorer = affine(self.scale * (unsafe - safe), 0.0, unit=True)
        return Read("q16", scorer, (path,), path.stem, classes="unsafe: the second of its two prompts, as published")


@dataclass
class MultiHeaded:
    """MultiHeaded: an MLP for each of five categories on raw ViT-L/14 features (Qu et al., CCS 2023, arXiv 2305.13873).

    The file is one head (`sexual.pt`), or the folder with all five: then an image is unsafe if any head says so.

    Args:
        heads: which heads of a folder.
    """

    heads: list[str] = field(default_factory=lambda: ["sexual", "violent", "disturbing", "hateful", "political"])
    normalize: ClassVar[bool] = False
    origin: ClassVar[Origin] = Origin(
        "Qu et al., Unsafe diffusion: on the generation of unsafe images and hateful memes, CCS 2023",
        "https://github.com/YitingQu/unsafe-diffusion",
        None,
        "sexual, violent, disturbing, hateful or political images",
    )

    def read(self, path: Path) -> Read:
        if path.is_dir():
            if not self.heads:
                raise ConfigError("kind.heads is empty; name some of the folder's heads.")
            files = tuple(path / f"{name}.pt" for name in self.heads)
            classes = f"unsafe: a high output of any head ({', '.join(self.heads)}), as published"
            return Read("multiheaded", highest([self._head(file) for file in files]), files, classes=classes)
        return Read(f"multiheaded-{path.stem}", self._head(path), (path,), judges=f"{path.stem} images")

    @staticmethod
    def _head(path: Path) -> Layers:
        layers = [{"linear": "0"}, "relu", "dropout", {"batch_norm": "3"}, {"linear": "4"}]
        return folded(layers, read_arrays(path), path).logit(path)


@dataclass
class LaionNsfw:
    """LAION's NSFW detector: an MLP on unit-norm CLIP, B/32 or L/14, after a fixed standardisation."""

    normalize: ClassVar[bool] = True
    origin: ClassVar[Origin] = Origin(
        "Schuhmann et al., LAION-5B, NeurIPS 2022 Datasets and Benchmarks",
        "https://github.com/LAION-AI/CLIP-based-NSFW-Detector",
        "mit",
        "sexual images and nudity",
        ("Sexual",),
    )

    def read(self, path: Path) -> Read:
        arrays = read_arrays(path)
        count = sum(name.startswith("linear_") and name.endswith(".weight") for name in arrays)
        layers: list[Any] = [{"standardise": "norm", "epsilon": 1e-10}]
        for i in range(1, max(count, 1) + 1):
            layers += [{"linear": f"linear_{i}"}, "relu"]
        return Read("laion-nsfw", folded(layers[:-1], arrays, path).logit(path), (path,), path.stem)


@dataclass
class UniversalFakeDetect:
    """Generated or real: a linear head on raw ViT-L/14 features (Ojha, Li and Lee, CVPR 2023, arXiv 2302.10174)."""

    normalize: ClassVar[bool] = False
    origin: ClassVar[Origin] = Origin(
        "Ojha, Li and Lee, Towards universal fake image detectors that generalize across generative models, CVPR 2023",
        "https://github.com/WisconsinAIVision/UniversalFakeDetect",
        "mit",
        "generated images (1), not unsafe ones; real is 0",
        (),
        (
            "Its authors cut 224 × 224 pixels out of the middle of an image without resizing it; the encoder here "
            "resizes the shorter side first, as CLIP does. Traces of generation in single pixels get weaker that way.",
        ),
    )

    def read(self, path: Path) -> Read:
        scorer = folded([{"linear": ""}], read_arrays(path), path).logit(path)
        return Read("universal-fake-detect", scorer, (path,), classes="unsafe: generated images, as published")


@dataclass
class SafetyChecker:
    """Stable Diffusion's safety checker: cosines with 17 concepts and 3 of special care (Rombach et al., CVPR 2022).

    The file is the folder of a local copy in its Hub layout: `config.json` and `model.safetensors`, or
    `pytorch_model.bin`. Its image tower is not read, but taken to be OpenAI's ViT-L/14, whose patches and
    input size `config.json` must give.
    """

    normalize: ClassVar[bool] = True
    origin: ClassVar[Origin] = Origin(
        "Rombach et al., High-resolution image synthesis with latent diffusion models, CVPR 2022",
        "https://huggingface.co/CompVis/stable-diffusion-safety-checker",
        None,
        "sexual images and nudity",
        ("Sexual",),
        (
            "The copy's own image tower is not read; that it is OpenAI's ViT-L/14 is taken for granted, not checked.",
            "The checker gives no score: the probability is that of its largest margin, on CLIP's logit scale.",
        ),
    )

    def read(self, path: Path) -> Read:
        config, weights = path / "config.json", _weights_of(path)
        try:
            about = json.loads(config.read_text(encoding="utf-8"))
            vision, dim = about.get("vision_config") or {}, int(about.get("projection_dim", 512))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise GuardError(f"{config} is damaged, or not the safety checker's: {error}") from error
        patch, size = vision.get("patch_size", 32), vision.get("image_size", 224)  # transformers' own defaults
        if (patch, size) != (14, 224):
            raise GuardError(
                f"{config} describes an image tower with patches of {patch} on {size} pixels, no ViT-L/14."
            )
        names = ("concept_embeds", "concept_embeds_weights", "special_care_embeds", "special_care_embeds_weights")
        arrays = read_arrays(weights, names)
        concepts, thresholds, special, special_thresholds = (arrays[name] for name in names)
        for embeds, cosines in ((concepts, thresholds), (special, special_thresholds)):
            if embeds.ndim != 2 or embeds.shape != (cosines.size, dim) or not len(embeds):
                raise GuardError(
                    f"{weights}: concepts of shape {embeds.shape} do not fit {cosines.size} thresholds, {dim}."
                )
        scorer = Concepts(concepts, thresholds.ravel(), special, special_thresholds.ravel())
        classes = "unsafe: an image nearer to one of its concepts than that concept's threshold, as published"
        return Read("sd-safety-checker", scorer, (config, weights), classes=classes)


def _weights_of(path: Path) -> Path:
    names = ("model.safetensors", "pytorch_model.bin")
    found = [path / name for name in names if (path / name).is_file()]
    if not path.is_dir() or not found:
        raise GuardError(f"{path} must be a folder with config.json and {' or '.join(names)}.")
    return found[0]


_OWN = Origin("none given", "none given", None, "what its authors call unsafe")


@dataclass
class OwnClassifier:
    """Settings of a classifier of one's own, whatever its file."""

    normalize: bool | None = None
    unsafe: Any = None
    name: str | None = None
    paper: str = _OWN.paper
    url: str = _OWN.url
    licence: str | None = None
    judges: str = _OWN.judges

    @property
    def origin(self) -> Origin:
        """Return the guard's origin as the config says it."""
        return Origin(self.paper, self.url, self.licence, self.judges)


@dataclass
class StateDict(OwnClassifier):
    """Any linear head or MLP in a torch checkpoint or safetensors file, described by its layers.

    Args:
        layers: in order, see `guardtrain.benchmarks.layers.folded`; null for a single linear layer.
        normalize: whether it reads embeddings of unit norm; null for what `encoder` says, or unit norm.
        unsafe: which outputs are unsafe, by number from 0. One output is taken as the logit of unsafe; 0 turns it
            round. Several are a softmax (unless the layers end with sigmoid), and nothing but this says which is which.
        name: what the guard is called; null for the file's name.
        paper, url, licence, judges: where it comes from.
    """

    layers: list[Any] | None = None

    def read(self, path: Path) -> Read:
        if path.suffix.lower() not in (".safetensors", *CHECKPOINTS):
            raise GuardError(f"{path} is no state dict: .safetensors, {', '.join(CHECKPOINTS)} are.")
        arrays = read_arrays(path)
        found = folded(only_layer(arrays, path) if self.layers is None else self.layers, arrays, path)
        if found.outputs == 1:
            scorer, classes, assumed = self._one_output(found.layers, path)
        else:
            scorer, classes, assumed = self._several(found, path)
        return Read(self.name or path.stem, scorer, (path,), path.stem, classes=classes, assumed=assumed)

    def _one_output(self, layers: Layers, path: Path) -> tuple[Layers, str, tuple[str, ...]]:
        chosen = Classes(("0", "1"), (1,), "")
        assumed: tuple[str, ...] = ()
        if self.unsafe is None:
            assumed = ("a high output means unsafe; kind.unsafe=0 where a low one does",)
        else:
            chosen = unsafe_among((0, 1), self.unsafe, f"The one output of {path}, class 0 below and 1 above 0,")
        high = chosen.unsafe == (1,)
        return layers.judging(chosen.unsafe), f"unsafe: {'above' if high else 'below'} 0 of its one output", assumed

    def _several(self, found: Folded, path: Path) -> tuple[Layers, str, tuple[str, ...]]:
        places, what = range(found.outputs), f"The head in {path}"
        if self.unsafe is None:
            raise Unsaid(
                f"{what} has {found.outputs} outputs, numbered from 0, and a state dict does not say which of them is "
                "of unsafe images (where classes were sorted by name, 'nsfw' stands before 'sfw' and is 0). Say it "
                "with one of",
                [unsafe_setting([str(place)]) for place in reversed(places)],
                "" if found.outputs == 2 else "Several: kind.unsafe=[1,2]; their probabilities are added.",
            )
        chosen = unsafe_among(places, self.unsafe, what)
        if found.last == "sigmoid":
            if len(chosen.unsafe) > 1:
                raise ConfigError(
                    f"{what} has a sigmoid an output, so that their probabilities do not add up to one of unsafe: "
                    "name one output in kind.unsafe."
                )
            return found.layers.output(chosen.unsafe[0]), f"{chosen}", ()
        taken = () if found.last else (f"its {found.outputs} outputs go into a softmax; layers=[…,sigmoid] if not",)
        return found.layers.judging(chosen.unsafe), f"{chosen}", taken


@dataclass
class Sklearn(OwnClassifier):
    """A scikit-learn classifier in a skops file.

    Args:
        trusted: types outside scikit-learn and numpy that may be loaded; skops names those that it finds.
        normalize: whether it reads embeddings of unit norm; null for what its scaler was fitted on, what `encoder`
            says, or unit norm.
        unsafe: the class that is unsafe, by its name in `classes_`, or a list of them; null where the other of two is
            called safe, sfw, normal, neutral, benign, 0, false or -1.
        name: what the guard is called; null for the file's name.
        paper, url, licence, judges: where it comes from.
    """

    trusted: list[str] = field(default_factory=list)

    def read(self, path: Path) -> Read:
        from guardtrain.benchmarks.sklearn_models import Classifier, classes_of, read_skops, scaled_length, scorer_of

        model = read_skops(path, self.trusted)
        chosen = unsafe_among(classes_of(model, path), self.unsafe, f"The {type(model).__name__} in {path}")
        itself = Classifier(model, chosen.unsafe)
        return Read(
            self.name or path.stem,
            scorer_of(model, chosen.unsafe),
            (path,),
            path.stem,
            classes=str(chosen),
            length=scaled_length(model),
            original=Original(itself.probabilities, "scikit-learn's own predict_proba of the model in the file"),
        )


def not_finite(scorer: Scorer) -> bool:
    """Whether a head gives no number for an ordinary embedding."""
    probe = np.full((1, scorer.dim), scorer.dim**-0.5)
    return not np.isfinite(scorer.logits(probe)).all()
