"""Train the demo encoder, a small CLIP, on captioned scenes: `python -m guardtrain.scenes.train_encoder`."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # read once, when torch loads OpenMP: threads that spin while they wait slow all others
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import open_clip
import timm
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from guardtrain.scenes import DEMO_ENCODER
from guardtrain.scenes.canvas import Dice
from guardtrain.scenes.captions import describe
from guardtrain.scenes.features import CATEGORIES
from guardtrain.scenes.render import RENDERER_VERSION, entropy, render, sample_scene

MEAN, STD = (0.45, 0.45, 0.45), (0.27, 0.27, 0.27)

MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 256,
    # CLIP's own ResNet keeps resolution longer than timm's small models do: features here are ~20 pixels wide.
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64},
    # open_clip's tokenizer has 49,408 words, and their table is most of the file: hence the narrow text tower.
    "text_cfg": {"context_length": 36, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 1},
}
PREPROCESS_CONFIG: dict[str, Any] = {
    "mean": list(MEAN),
    "std": list(STD),
    "size": [64, 64],
    "mode": "RGB",
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


@dataclass(frozen=True)
class EncoderTraining:
    """Settings that the training depends on.

    With the same values, library versions and thread count on one kind of processor the weights come out the same
    bit for bit; elsewhere the figures agree within their noise. Every image is seen once.

    `largest_scale` bounds the factor on cosines. CLIP's own bound of 100 lets two halves of a pair lie almost together,
    told apart by a sharp softmax; a low one makes the small feature a visible part of the embedding.
    """

    images: int = 280_000
    batch: int = 250
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    largest_scale: float = 10.0
    seed: int = 0
    threads: int = 2
    held_out: int = 1_000


def captioned_scenes(start: int, count: int, seed: int, size: int = 64) -> tuple[np.ndarray, list[str], list[str]]:
    """Both halves of scenes `start` to `start + count` of the captions pool, which shares no scene with any other pool.

    The captions of two halves differ in the name of the feature alone, so that each is the other's hardest negative.
    Neither halves nor contexts carry a label here.

    Returns:
        images: (2 * count, size, size, 3) uint8, the halves of a scene side by side
        captions: as many sentences
        titles: as many names of the feature, "a comb"
    """
    categories = tuple(CATEGORIES)
    images = np.empty((2 * count, size, size, 3), np.uint8)
    captions, titles = [], []
    for k in range(count):
        generator = entropy("captions", seed, start + k)
        scene = sample_scene(generator, categories[(start + k) % len(categories)], 0, context_correlation=0.5)
        images[2 * k : 2 * k + 2] = render(scene, (0, 1), size)
        draws = generator.random(16).tolist()
        captions += [describe(scene, label, Dice(draws)) for label in (0, 1)]
        titles += [scene.stand_in.safe, scene.stand_in.unsafe]
    return images, captions, titles


def pixels(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32, normalised as `PREPROCESS_CONFIG` says."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # channels stay innermost in memory
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def train(settings: EncoderTraining, console: Console | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Train a CLIP by its symmetric contrastive loss (Radford et al. 2021, https://arxiv.org/abs/2103.00020, fig. 3).

    Returns:
        the model in evaluation mode, and the training figures for `training.json`.
    """
    with _reproducibly(settings.threads):
        return _train(settings, console or Console())


@contextmanager
def _reproducibly(threads: int) -> Iterator[None]:
    """Deterministic algorithms and a fixed thread count inside; as it was before, afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def _train(settings: EncoderTraining, console: Console) -> tuple[Any, dict[str, Any]]:
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):  # only the initial weights are random
        torch.manual_seed(settings.seed)
        model = open_clip.model.CustomTextCLIP(**MODEL_CONFIG).to(memory_format=torch.channels_last)
    tokenize = open_clip.SimpleTokenizer(context_length=MODEL_CONFIG["text_cfg"]["context_length"])
    steps = settings.images // settings.batch
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps, pct_start=settings.warmup, cycle_momentum=False
    )
    curve: list[dict[str, float]] = []
    recent: list[tuple[float, float]] = []
    model.train()
    with console.status("rendering …") as status:
        for step in range(steps):
            images, captions, titles = captioned_scenes(step * settings.batch // 2, settings.batch // 2, settings.seed)
            loss, told_apart = _losses(model, tokenize, images, captions, titles)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(settings.largest_scale))
            recent.append((loss.item(), told_apart))
            if (step + 1) % max(1, steps // 60) == 0 or step + 1 == steps:
                seconds = time.perf_counter() - started
                mean_loss, apart = np.mean(recent, axis=0).tolist()
                images_seen = (step + 1) * settings.batch
                curve.append({"images": images_seen, "loss": round(mean_loss, 4), "halves_told_apart": round(apart, 4)})
                recent.clear()
                rate = images_seen / seconds
                line = (
                    f"{step + 1}/{steps} steps · loss {mean_loss:.3f} · halves told apart {apart:.3f} · "
                    f"{rate:.0f} images/s · {seconds:.0f} s"
                )
                status.update(line) if console.is_terminal else console.print(line)
    seconds = time.perf_counter() - started
    model.eval()
    figures = {
        "settings": asdict(settings),
        "renderer_version": RENDERER_VERSION,
        "seconds": round(seconds, 1),
        "parameters": {
            "image": sum(p.numel() for p in model.visual.parameters()),
            "text": sum(p.numel() for p in model.text.parameters()),
        },
        "retrieval": retrieval(model, tokenize, settings),
        "loss": curve,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "timm": timm.__version__,
            "numpy": np.__version__,
        },
        "reproducible": "bit for bit with these settings, versions and thread count on the same kind of processor",
    }
    return model, figures


def _losses(
    model: Any, tokenize: Any, images: np.ndarray, captions: list[str], titles: list[str]
) -> tuple[Tensor, float]:
    """The loss of a batch, and how often an image is nearer to its own title than to that of its other half.

    The images are matched twice: with their captions, where every image has its own, and with their titles, which
    several images share: there all images of a title are its positives (Yang et al. 2022, UniCL,
    https://arxiv.org/abs/2204.03610, eq. 3). Titles alone teach small features several times faster than captions.
    """
    unique = sorted(set(titles))
    row_of = {title: k for k, title in enumerate(unique)}
    title = torch.tensor([row_of[t] for t in titles])
    with torch.autocast("cpu", torch.bfloat16):
        image = model.encode_image(pixels(images))
    text = model.encode_text(tokenize(captions + unique))  # too narrow to gain from bfloat16
    image = nn.functional.normalize(image.float(), dim=-1)  # (B, D)
    text = nn.functional.normalize(text, dim=-1)  # (B + U, D)
    logits = model.logit_scale.exp() * image @ text.T  # (B, B + U)
    by_caption, by_title = logits[:, : len(captions)], logits[:, len(captions) :]
    loss = _contrastive(by_caption, torch.arange(len(captions))) + _contrastive(by_title, title)
    own = by_title.detach().gather(1, title[:, None])
    other = by_title.detach().gather(1, title.view(-1, 2).flip(1).reshape(-1, 1))
    return loss / 2, (own > other).float().mean().item()


def _contrastive(logits: Tensor, text_of: Tensor) -> Tensor:
    """Symmetric InfoNCE of logits (B, U): image i belongs to text `text_of[i]`, a text may have several images."""
    by_image = nn.functional.cross_entropy(logits, text_of)
    log_p = logits.T.log_softmax(dim=-1)  # (U, B): over the images, for each text
    positive = nn.functional.one_hot(text_of, logits.shape[1]).T.float()
    by_text = -(log_p * positive).sum(-1) / positive.sum(-1)
    return (by_image + by_text.mean()) / 2


@torch.inference_mode()
def retrieval(model: nn.Module, tokenize: Any, settings: EncoderTraining) -> dict[str, float]:
    """Image → caption and caption → image top-1 among `settings.held_out` scenes that training did not see."""
    images, captions, _ = captioned_scenes(settings.images // 2, settings.held_out // 2, settings.seed)
    image = nn.functional.normalize(model.encode_image(pixels(images)), dim=-1)
    text = nn.functional.normalize(model.encode_text(tokenize(captions)), dim=-1)
    similarity = image @ text.T
    target = torch.arange(len(similarity))
    return {
        "candidates": settings.held_out,
        "image_to_text_top1": round((similarity.argmax(1) == target).float().mean().item(), 4),
        "text_to_image_top1": round((similarity.argmax(0) == target).float().mean().item(), 4),
    }


def save(model: nn.Module, figures: dict[str, Any], folder: Path) -> None:
    """Write `open_clip_config.json`, `open_clip_model.safetensors` (float16) and `training.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    part = folder / "open_clip_model.safetensors.part"
    save_file(state, part)
    part.chmod(0o644)  # safetensors writes for its owner alone
    part.replace(folder / "open_clip_model.safetensors")
    config = {"model_cfg": {**MODEL_CONFIG, "custom_text": True}, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "training.json").write_text(json.dumps(figures, indent=2) + "\n")


def main() -> None:
    """Train and save the demo encoder; see `--help`."""
    defaults = EncoderTraining()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DEMO_ENCODER, help="folder to write (default: the packaged one)")
    parser.add_argument("--images", type=int, default=defaults.images, help="captioned images to train on")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    arguments = parser.parse_args()
    settings = EncoderTraining(images=arguments.images, seed=arguments.seed, threads=arguments.threads)
    model, figures = train(settings)
    save(model, figures, arguments.output)
    print(f"{arguments.output}: {figures['seconds']} s, retrieval {figures['retrieval']}")


if __name__ == "__main__":
    main()
