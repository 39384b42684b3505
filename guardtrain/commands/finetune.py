"""`guardtrain finetune`: an encoder tuned by LoRA on one mixture, then a head and guard on it as by `train`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from guardtrain.api.fitting import require_mixture
from guardtrain.api.recipe import recipe_settings
from guardtrain.commands import elapsed
from guardtrain.commands.data import load_pools
from guardtrain.commands.terminal import show
from guardtrain.commands.tracking import tracked
from guardtrain.config import PRECOMPUTED, FinetuneConfig, TrainConfig
from guardtrain.config_checks import build, plain, typed
from guardtrain.errors import ConfigError
from guardtrain.files import replace_file
from guardtrain.mixtures import counts

if TYPE_CHECKING:
    from guardtrain.curves.engine import Run
    from guardtrain.encoders.spec import EncoderSettings
    from guardtrain.training.pools import Pools
    from guardtrain.training.recipe import TrainingRecipe

log = logging.getLogger(__name__)

ENCODER_FOLDER, PROBE_FOLDER = "encoder", "probe"
COMPARISON_FILE = "against_probe.parquet"
TUNABLE = ("open_clip", "timm")
TUNED_OPTION = "tuned"  # what `encoder=` is called with --config-dir OUT/conf
_PROBE_HEAD = {"_target_": "guardtrain.heads.LinearHead"}
_CONFIG = Path(".hydra") / "config.yaml"
# Raised when a change to the code changes the weights that tuning comes to.
_VERSION = 1


def run(config: DictConfig) -> None:
    """Tune what `config` (see `FinetuneConfig`) describes; a tuning that was cut off continues."""
    settings = typed(config, FinetuneConfig)
    mix = settings.mixture
    counts(mix.budget, mix.ratio, mix.arm, mix.rounding, mix.control)  # refused before anything is embedded
    from guardtrain.training.finetuning.adapters import require_peft

    require_peft()
    _require_images(settings)
    if settings.trainer.threads:
        import torch

        torch.set_num_threads(settings.trainer.threads)
    folder = Path(settings.out)
    log.info(
        "the frozen encoder first: the mixture is drawn from its pools, and its linear probe is where tuning starts"
    )
    pools = load_pools(settings, log.info, partial(require_mixture, mix))
    encoder = _tuned(settings, pools, folder)
    log.info("encoder   %s", folder / ENCODER_FOLDER)
    log.info("          elsewhere: encoder=%s with --config-dir %s", TUNED_OPTION, folder / "conf")
    log.info("")
    # from here on it is a run of `guardtrain train` with another encoder, and its folder is one of those
    from guardtrain.commands.train import train

    own = _train_config(settings, encoder)
    config_text = OmegaConf.to_yaml(OmegaConf.create(plain(own)))
    replace_file(folder / _CONFIG, lambda path: path.write_text(config_text, encoding="utf-8"))
    train(own)
    _compare(settings, own, pools)
    log.info("%.1f s in all", elapsed.seconds())


def _require_images(settings: FinetuneConfig) -> None:
    """Raises ConfigError where a source gives embeddings only, or no encoder is named."""
    from guardtrain.sources.base import ImageSource

    if settings.encoder.family == PRECOMPUTED:
        raise ConfigError(
            f"finetune tunes an encoder, and encoder={PRECOMPUTED} names none. Choose one, such as "
            "encoder=openai_vit_b32; `guardtrain train` trains heads on embeddings that are there."
        )
    if settings.encoder.family not in TUNABLE:
        raise ConfigError(
            f"finetune tunes encoders of {' and '.join(TUNABLE)}; encoder.family is '{settings.encoder.family}'."
        )
    if settings.encoder.crops != 1:
        raise ConfigError(
            f"finetune tunes encoders that embed an image as a whole; encoder.crops is {settings.encoder.crops}. Tune "
            "with encoder.crops=1; what it writes can be used with encoder.crops=5."
        )
    nodes = {"data.real": settings.data.real}
    if settings.data.pairs is not None:
        nodes["data.pairs"] = settings.data.pairs
    for name, node in settings.data.test.items():
        if not (isinstance(node, dict) and "hold_out" in node):
            nodes[f"data.test.{name}"] = node
    for place, node in nodes.items():
        source = build(node, place)
        if not isinstance(source, ImageSource):
            raise ConfigError(
                f"{place} ({type(source).__name__}) gives embeddings, and finetune needs the images: the tuned encoder "
                "sees them anew. Name a source of images (data=manifest, data=image_folder, …), or train a head on "
                "these embeddings with `guardtrain train`."
            )


def _tuned(settings: FinetuneConfig, pools: Pools, folder: Path) -> EncoderSettings:
    """The settings of the tuned encoder, which is tuned now or was before; the linear probe is trained first."""
    from guardtrain.curves.engine import make_mixer, plan_single, run_plan
    from guardtrain.curves.results import run_key
    from guardtrain.training.finetuning.checkpoint import read_tuned, save_tuned, tuned_settings
    from guardtrain.training.finetuning.fit import probe_recipe, tune

    recipe = probe_recipe(settings.loss, settings.selection, settings.trainer)
    probed = _probe_settings(settings)
    planned = plan_single(pools, plain(settings.mixture), recipe_settings(probed, recipe))
    mixture = planned.mixture
    log.info("mixture: %d real + %d pair images, seed %d", mixture.n_real, mixture.n_pair_images, mixture.seed)
    _probe(settings, pools, recipe, planned, folder)
    about = _about(settings, pools, planned)
    key = run_key(about)
    out = folder / ENCODER_FOLDER
    if (there := read_tuned(out)) is not None and there.get("key") == key:
        log.info("the encoder is tuned already")
        return tuned_settings(out, settings.encoder)
    import torch

    from guardtrain.encoders import load_encoder
    from guardtrain.training.finetuning.images import read_pixels

    work = folder / "checkpoints" / f"lora-{key}"
    encoder = load_encoder(replace(settings.encoder, device="cpu"))  # Lightning moves it
    drawn = pools.drawn([mixture])
    rows = drawn.rows
    first = len(pools.real)
    parts = [(build(settings.data.real, "data.real"), pools.real.records.ids[rows[rows < first]].tolist())]
    if pools.pairs is not None and (rows >= first).any():
        ids = pools.pairs.records.ids[rows[rows >= first] - first].tolist()
        parts.append((build(settings.data.pairs, "data.pairs"), ids))
    pixels = read_pixels(parts, encoder, memory_gb=settings.memory_gb, folder=work, progress=settings.trainer.progress)
    folds = settings.lora.folds
    wanted = replace(recipe.selection, method="cross_validation" if folds else "fixed", folds=max(2, folds))
    plan = run_plan(pools, make_mixer(pools), mixture, replace(recipe, selection=wanted), drawn)
    with tracked(settings, "finetune", key) as tracker:
        tuned = tune(
            encoder,
            pixels=pixels,
            embeddings=torch.from_numpy(drawn.matrix),
            labels=torch.from_numpy(drawn.labels),
            plan=plan,
            loss=recipe.loss,
            settings=settings.lora,
            trainer=settings.trainer,
            folder=work,
            loggers=tracker.loggers,
        )
    log.info("tuned in %.0f s: %s", tuned.seconds, _worded(tuned, settings))
    name = f"{pools.spec.label}-lora-{key[:8]}"
    result = {"step": tuned.step, "held_out_loss": tuned.held_out, "seconds": round(tuned.seconds, 1)}
    save_tuned(out, encoder, settings.encoder, name, {"key": key, "from": about, "layers": tuned.layers, **result})
    made = tuned_settings(out, settings.encoder)
    option = folder / "conf" / "encoder" / f"{TUNED_OPTION}.yaml"
    text = (
        f"# {pools.spec.label}, tuned by guardtrain finetune on {mixture.n_images} images of {pools.name}: on these, "
        "what is validated or calibrated looks better than it is\n"
    )
    own = {name: value for name, value in plain(made).items() if name not in ("device", "batch_size")}
    text += OmegaConf.to_yaml(OmegaConf.create(own))
    replace_file(option, lambda path: path.write_text(text, encoding="utf-8"))
    return made


def _worded(tuned: Any, settings: FinetuneConfig) -> str:
    if tuned.held_out is None:
        return f"all {tuned.step} steps, nothing held out"
    before, after = tuned.held_out
    if tuned.step == 0:
        return (
            f"the held-out loss never fell below that of the frozen encoder ({before:.3f}), whose weights are kept; "
            "try a lower lora.lr, or more images"
        )
    return f"held-out loss {before:.3f} → {after:.3f} at step {tuned.step} of at most {settings.lora.steps}"


def _probe(settings: FinetuneConfig, pools: Pools, recipe: TrainingRecipe, planned: Run, folder: Path) -> None:
    """The linear probe of the frozen encoder on the same mixture, into the same table: what the tuning is judged by."""
    from guardtrain.curves.engine import train_run
    from guardtrain.curves.folder import RESULTS_FILE
    from guardtrain.curves.results import ResultsTable
    from guardtrain.curves.summary import run_text
    from guardtrain.heads.artifact import kept_run, save_head

    table = ResultsTable(folder / RESULTS_FILE)
    done = planned.key in table.done(pools.tests)
    if not done or kept_run(folder / PROBE_FOLDER) != planned.key:
        checkpoints = folder / "checkpoints" / planned.key
        fitted, rows = train_run(pools, recipe, planned, memory_gb=settings.memory_gb, checkpoints=checkpoints)
        (folder / PROBE_FOLDER).mkdir(parents=True, exist_ok=True)
        save_head(folder / PROBE_FOLDER, fitted.bank, 0, pools.spec, _PROBE_HEAD, run=planned.key)
        if not done:
            table.append(rows)
    frame = table.read()
    log.info("the linear probe of the frozen encoder:")
    log.info(run_text(frame[frame["run"] == planned.key]))
    log.info("")


def _compare(settings: FinetuneConfig, own: TrainConfig, pools: Pools) -> None:
    """Tell what the tuning changed on each test set, with intervals, and keep it as a table."""
    from guardtrain.commands.finetune_comparison import comparison, comparison_text
    from guardtrain.heads.artifact import load_head

    folder = Path(settings.out)
    probe = load_head(folder / PROBE_FOLDER, build(_PROBE_HEAD, "head"))
    head = load_head(folder, build(own.head, "head"))
    frame = comparison(pools, load_pools(own, lambda _: None), probe, head)
    replace_file(folder / COMPARISON_FILE, lambda path: frame.to_parquet(path, index=False))
    log.info("")
    show(comparison_text(frame))
    log.info("table     %s", folder / COMPARISON_FILE)


def _about(settings: FinetuneConfig, pools: Pools, planned: Run) -> dict[str, Any]:
    """All that decides the tuned weights, as plain data."""
    point = planned.point
    return {
        "version": _VERSION,
        "data": pools.digest,
        "mixture": {name: getattr(point, name) for name in ("budget", "ratio", "arm", "control", "seed")},
        "rounding": settings.mixture.rounding,
        "loss": plain(settings.loss),
        "lora": plain(settings.lora),
    }


def _common(settings: FinetuneConfig) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(TrainConfig)}


def _probe_settings(settings: FinetuneConfig) -> TrainConfig:
    """The config of `guardtrain train` that the probe is a run of."""
    from guardtrain.training.settings import OptimizerSettings

    return TrainConfig(**(_common(settings) | {"head": _PROBE_HEAD, "optimizer": OptimizerSettings()}))


def _train_config(settings: FinetuneConfig, encoder: EncoderSettings) -> TrainConfig:
    """The config of `guardtrain train` that the rest is a run of: the tuned encoder, and a head that says so."""
    head: Mapping[str, Any] = plain(settings.head)
    if "name" not in head and (name := getattr(build(head, "head"), "name", None)):
        head = {**head, "name": f"{name} on LoRA"}
    return TrainConfig(**(_common(settings) | {"head": dict(head), "encoder": encoder}))
