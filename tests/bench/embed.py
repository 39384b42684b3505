"""Embedding image files: end to end beside the forward pass alone and beside clip-retrieval's way, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from guardtrain.embeddings.arithmetic import PARITY, computes_bfloat16, cosines
from guardtrain.embeddings.extraction import extract
from guardtrain.embeddings.reading import make_reader
from guardtrain.encoders import EncoderSettings, load_encoder
from guardtrain.encoders.encoder import Encoder
from guardtrain.scenes import SceneSource
from guardtrain.sources import ManifestSource

IMAGES = int(os.environ.get("GUARDTRAIN_BENCH_IMAGES", "2000"))
DISTINCT = 200  # files; the others are links to them, and are decoded like any other
SIZES = ((500, 375), (375, 500), (500, 500), (500, 333))
PREPRO_WORKERS, BATCH = 4, 256  # clip-retrieval's defaults
# Its command, from an environment of its own (it wants older numpy, pandas and pyarrow): then the real one runs, too.
CLIP_RETRIEVAL = os.environ.get("GUARDTRAIN_BENCH_CLIP_RETRIEVAL")
DEMO = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")


def photograph(seed: int) -> Image.Image:
    """Noise with the spectrum of photographs, shapes, and grain."""
    g = np.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    spectrum = np.exp(2j * np.pi * g.random(frequency.shape)) / np.maximum(frequency, 1 / max(width, height))
    luminance = np.fft.irfft2(spectrum, s=(height, width))
    pixels = 128 + 45 * luminance[..., None] / luminance.std() + g.normal(0, 20, 3)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x, y, across, down = (int(v) for v in g.integers((0, 0, 20, 20), (width, height, 180, 180)))
        draw.rectangle([x, y, x + across, y + down], fill=tuple(int(v) for v in g.integers(0, 255, 3)))
    grainy = np.asarray(image) + g.normal(0, 5, (height, width, 1))
    return Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))


def make_files(folder: Path, count: int) -> ManifestSource:
    """`count` JPEGs and their table."""
    folder.mkdir()
    lines = ["image,label"]
    for i in range(count):
        file, first = folder / f"{i:06d}.jpg", folder / f"{i % DISTINCT:06d}.jpg"
        if file == first:
            photograph(i).save(file, quality=90)
        else:
            os.link(first, file)
        lines.append(f"{file.name},{i % 2}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return ManifestSource(str(folder / "table.csv"))


def random_vit_b32(folder: Path) -> tuple[EncoderSettings, Path]:
    """open_clip's ViT-B/32 with random weights, which do for speed, and the file they are in."""
    weights = folder / "vit_b32.safetensors"
    torch.manual_seed(0)
    save_file(open_clip.create_model("ViT-B-32").state_dict(), str(weights))
    return EncoderSettings(name="vit_b32", model="ViT-B-32", checkpoint=str(weights)), weights


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of the processors; the second tells how much of a shared machine the work had."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def forward_rate(model: Encoder, batches: list[torch.Tensor], repeats: int = 2) -> tuple[float, float]:
    """The forward pass alone, on decoded images in memory, in the better of two ways to share cores.

    Returns:
        images a second, and processor milliseconds an image.
    """
    count = sum(map(len, batches))
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ways = (
            lambda: [model.forward(batch) for batch in batches],
            lambda: list(pool.map(model.forward, batches)),
        )
        times = [timed(way) for way in ways for _ in range(repeats)]
    return count / min(wall for wall, _ in times), 1e3 * min(used for _, used in times) / count


def passes(model: Encoder, source: ManifestSource, count: int) -> list[torch.Tensor]:
    """Model inputs of the first images, as the pipeline has them."""
    reader = make_reader(source, source.records(), model)
    starts = range(0, count, model.rows_a_pass)
    made = [range(start, min(start + model.rows_a_pass, count)) for start in starts]
    return [reader.inputs(rows, [reader.read(row) for row in rows]).batch for rows in made]  # type: ignore[misc]


def clip_retrieval_way(weights: Path, files: list[Path]) -> float:
    """Images a second of `clip-retrieval inference` as it does by default: open_clip, float32, a DataLoader."""
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=str(weights))
    model.eval()

    class Files(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> torch.Tensor:
            return transform(Image.open(files[i]))  # type: ignore[no-any-return]

    loader = torch.utils.data.DataLoader(
        Files(), batch_size=BATCH, num_workers=PREPRO_WORKERS, shuffle=False, pin_memory=False, prefetch_factor=2
    )
    started = time.perf_counter()
    with torch.no_grad():
        for batch in loader:
            features = model.encode_image(batch)
            features /= features.norm(dim=-1, keepdim=True)
            features.numpy()
    return len(files) / (time.perf_counter() - started)


def commands_side_by_side(weights: Path, source: ManifestSource, root: Path) -> tuple[float, float, float]:
    """`guardtrain embed` and the real `clip-retrieval inference` on the same files, from start to exit.

    Returns:
        seconds of ours, seconds of theirs, and the images a second that theirs reports of itself, without its warm-up.
    """
    images = Path(source.path).parent
    ours = [
        *(sys.executable, "-m", "guardtrain.cli", "embed", "encoder=openai_vit_b32", f"encoder.checkpoint={weights}"),
        *("source=manifest", f"source.path={source.path}", f"out={root / 'ours'}", f"hydra.run.dir={root / 'log'}"),
    ]
    theirs = [
        *(str(CLIP_RETRIEVAL), "inference", "--input_dataset", str(images), "--output_folder", str(root / "theirs")),
        *("--enable_text", "False", "--clip_model", f"open_clip:ViT-B-32/{weights}"),
    ]
    seconds = []
    for command in (ours, theirs):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    told = json.loads(next((root / "theirs" / "stats").iterdir()).read_text())
    return seconds[0], seconds[1], told["sample_count"] / told["total_duration"]


def peak_megabytes(table: Path, store: Path) -> float:
    """Peak memory of a process that embeds a table's images with the demo encoder; as Linux tells it."""
    code = (
        "from pathlib import Path\n"
        "from guardtrain.embeddings.extraction import extract\n"
        "from guardtrain.sources import ManifestSource\n"
        "from tests.bench.embed import DEMO\n"
        f"extract(ManifestSource({str(table)!r}), DEMO, {str(store)!r}, progress=False, shard_size=1024)\n"
        "peak = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM'))\n"
        "print(float(peak.split()[1]) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def bench_embed() -> dict[str, float]:
    """2,000 JPEGs under ViT-B/32 with random weights and under the demo encoder; figures by name."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        source = make_files(root / "images", IMAGES)
        settings, weights = random_vit_b32(root)
        model = load_encoder(settings)
        sample = passes(model, source, min(120, IMAGES))
        exact = np.concatenate([model.forward(batch).numpy() for batch in sample])
        fastest, cost = forward_rate(model, sample)
        figures |= {"embed_vit_b32_forward_float32": fastest, "embed_vit_b32_forward_float32_cpu_ms": cost}
        if computes_bfloat16(model.device):
            quick = load_encoder(settings)
            quick.use_bfloat16()
            found = np.concatenate([quick.forward(batch).numpy() for batch in sample])
            figures["embed_vit_b32_bfloat16_one_minus_cosine"] = worst = float((1 - cosines(exact, found)).max())
            if worst <= PARITY:
                fastest, cost = forward_rate(quick, sample)
                figures |= {"embed_vit_b32_forward_bfloat16": fastest, "embed_vit_b32_forward_bfloat16_cpu_ms": cost}
            del quick
        wall, used = timed(lambda: extract(source, settings, root / "vit", progress=False, load=lambda _: model))
        rate, used = IMAGES / wall, 1e3 * used / IMAGES
        arithmetic = json.loads((root / "vit" / "extraction.json").read_text())["arithmetic"]
        again, cost_again = forward_rate(model, sample)  # once more, for what else the machine does changes
        fastest, cost = max(fastest, again), min(cost, cost_again)
        figures |= {
            "embed_vit_b32_end_to_end": rate,
            "embed_vit_b32_end_to_end_cpu_ms": used,
            "embed_vit_b32_share_of_forward": rate / fastest,
            "embed_vit_b32_share_of_forward_cpu": cost / used,
        }
        print(f"ViT-B/32, {IMAGES:,} JPEGs: {rate:.1f} images a second end to end in {arithmetic}; forward pass alone "
              f"{fastest:.1f}: {rate / fastest:.0%} (of processor time {cost:.1f} / {used:.1f} ms: {cost / used:.0%})",
              flush=True)  # fmt: skip
        few = sorted((root / "images").glob("*.jpg"))[: min(512, IMAGES)]
        theirs = clip_retrieval_way(weights, few)
        figures |= {"embed_vit_b32_clip_retrieval_way": theirs, "embed_vit_b32_over_clip_retrieval": rate / theirs}
        print(f"  clip-retrieval's default path, rebuilt here (open_clip, float32, DataLoader): {theirs:.1f}; ours is "
              f"{rate / theirs:.1f} times as fast", flush=True)  # fmt: skip

        if CLIP_RETRIEVAL:
            mine, real, told = commands_side_by_side(weights, source, root)
            figures |= {
                "embed_command_seconds": mine,
                "embed_clip_retrieval_command_seconds": real,
                "embed_command_over_clip_retrieval_command": real / mine,
                "embed_clip_retrieval_own_rate": told,
            }
            print(f"  commands from start to exit: guardtrain embed {mine:.0f} s, clip-retrieval inference {real:.0f} "
                  f"s: {real / mine:.1f} times as fast; without its start and warm-up it says {told:.1f} a second: "
                  f"{rate / told:.1f} times", flush=True)  # fmt: skip

        demo = load_encoder(DEMO)
        scenes = SceneSource("test", 20_000, seed=3)
        images = torch.from_numpy(scenes.images(range(4000)))
        forward, cost = forward_rate(demo, list(images.split(demo.rows_a_pass)))

        class InMemory:
            """Scenes that are drawn already."""

            records, content_key, image = scenes.records, scenes.content_key, scenes.image

            def images(self, indices: Any) -> np.ndarray:
                return images.numpy()[np.asarray(indices) % 4000]  # type: ignore[no-any-return]

        wall, used = timed(lambda: extract(InMemory(), DEMO, root / "demo", progress=False, load=lambda _: demo))
        rate, used = 20_000 / wall, 1e3 * used / 20_000
        figures |= {
            "embed_demo_forward": forward,
            "embed_demo_share_of_forward": rate / forward,
            "embed_demo_share_of_forward_cpu": cost / used,
        }
        print(f"demo encoder, 20,000 scenes: {rate:.0f} a second; forward alone {forward:.0f}: {rate / forward:.0%} "
              f"(of processor time {cost / used:.0%})", flush=True)  # fmt: skip

        ten = make_files(root / "ten", 10 * IMAGES)
        small = peak_megabytes(Path(source.path), root / "small")
        large = peak_megabytes(Path(ten.path), root / "large")
        figures |= {"embed_peak_mb": small, "embed_peak_mb_ten_times": large, "embed_peak_growth": large / small - 1}
        growth = f"{large / small - 1:+.1%}"
        print(f"peak memory, {IMAGES:,} and {10 * IMAGES:,} JPEGs: {small:.0f} and {large:.0f} MB: {growth}")
    return figures
