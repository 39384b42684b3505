"""The dataclass schema behind `conf/`: composed YAML is merged into it, so every wrong key or type is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from omegaconf import MISSING

from guardtrain.benchmarks.attacks.settings import AttackSettings
from guardtrain.benchmarks.calibrating_settings import CalibrateSettings
from guardtrain.benchmarks.settings import BenchmarkSettings
from guardtrain.config_groups import conf_dir as conf_dir
from guardtrain.curves.audit.settings import AuditSettings
from guardtrain.curves.collecting.settings import CollectSettings
from guardtrain.curves.grid import GridSettings
from guardtrain.curves.planning_settings import PlanSettings
from guardtrain.curves.settings import PlotSettings
from guardtrain.curves.tuning.settings import TuneSettings
from guardtrain.embeddings.settings import EngineSettings
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.errors import ConfigError
from guardtrain.guards.predict_settings import PredictConfig
from guardtrain.guards.serving.settings import ServeSettings
from guardtrain.guards.settings import GuardSettings, PickSettings
from guardtrain.mixtures.settings import MixtureSettings
from guardtrain.quick_hydra import store_schema
from guardtrain.sources.settings import DataSettings
from guardtrain.tracking.settings import LoggerSettings
from guardtrain.training.finetuning.settings import LoraSettings
from guardtrain.training.settings import LossSettings, OptimizerSettings, SelectionSettings, TrainerSettings

PRECOMPUTED = "precomputed"  # encoder.family where the embeddings come with the data


@dataclass
class EmbedConfig:
    """`guardtrain embed`: images (or texts) of a source → a store.

    Args:
        input: `image`, or `text`: a column of prompts or captions, by the text tower of a CLIP.
        text_column: which column that is.
        out: the store's folder; null puts it into the cache, where `train` and `curve` find it.
        shard_size: rows a file of the store holds; what a crash can cost at most.
        storage: numbers on disk: `float32` or `float16`.
        workers: threads that read, decode and, on the CPU, embed; null for as many as there are processors.
        on_error: what cannot be read is set aside and listed in `quarantine.parquet` (`quarantine`), or ends
            the run (`raise`). More than half of the records ends it anyway.
        retry: try what was set aside again, and nothing else; with `out`, files may have been mended since.
        engine: this process, or Ray.
    """

    source: Any = MISSING
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    input: str = "image"
    text_column: str = "text"
    out: str | None = None
    shard_size: int = 4096
    storage: str = "float32"
    workers: int | None = None
    on_error: str = "quarantine"
    retry: bool = False
    engine: EngineSettings = field(default_factory=EngineSettings)
    data_dir: str = MISSING
    cache_dir: str = MISSING

    def __post_init__(self) -> None:
        for name, allowed in (
            ("input", ("image", "text")),
            ("storage", ("float32", "float16")),
            ("on_error", ("quarantine", "raise")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}.")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; it must be at least 1, or null.")


@dataclass
class StoreConfig:
    """`guardtrain store ACTION`: look at stores of embeddings, verify, append to, merge, filter and deduplicate them.

    Args:
        action: `info`, `verify`, `append`, `merge`, `filter` or `dedup`; the word after `store`.
        path: the store's folder (all but merge).
        paths: merge: the stores' folders, in order.
        out: merge, filter, dedup: the new store's folder; filter, dedup: or a record table `NAME.parquet`, which
            `StoreSource` joins with the store as its `manifest`.
        repair: verify: delete damaged shards, so that they can be made again.
        where: filter: column of the metadata -> value or list of values to keep; one that no row has is an error,
            unless it ends in a question mark.
        split: filter: keep train, val or test.
        ids: filter: keep those of a file: one a line, or column `id` of a table.
        halves: filter: of a pair of which one half is kept: `error`, `drop` it too, or `complete` it with the other.
        duplicates: merge: of an id that is in several: `error`, or keep the `first`.
        disputed: append, merge, dedup: of rows that are the same record or image with two labels (or of one id that is
            two images): `error`; the `first` counts (append: the store's); the `last` counts (append: the source's);
            merge and dedup: `drop` them.
        checkpoint: append: where the encoder's weights lie; null for where they lay when the store was made.
        batch_size: append: images a forward pass.
        device: append: auto, cpu, cuda, cuda:1, mps.
        data_dir: where source configs look for files; default: `$GUARDTRAIN_DATA`, else `data`.
    """

    action: str = MISSING
    path: str | None = None
    paths: list[str] = field(default_factory=list)
    out: str | None = None
    repair: bool = False
    where: Any = None  # a mapping; typed as one, Hydra lets nobody add to it
    split: str | None = None
    ids: str | None = None
    halves: str = "error"
    duplicates: str = "error"
    disputed: str = "error"
    source: Any = None
    checkpoint: str | None = None
    batch_size: int = 256
    device: str = "auto"
    data_dir: str = MISSING


@dataclass
class _TrainingConfig:
    """Settings that `train` and `curve` share.

    Args:
        data_dir: where data configs look for files; default: `$GUARDTRAIN_DATA`, else `data`.
        cache_dir: where embeddings are kept; default: `$GUARDTRAIN_CACHE`, else `~/.cache/guardtrain`.
        memory_gb: most memory a bank of heads may take.
    """

    data: DataSettings = field(default_factory=DataSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    head: Any = MISSING
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    out: str = MISSING
    data_dir: str = MISSING
    cache_dir: str = MISSING
    memory_gb: float = 2.0


@dataclass
class TrainConfig(_TrainingConfig):
    """`guardtrain train`: one head on one mixture.

    Args:
        out: folder of the head, its metrics, logs and checkpoints; started again there, training resumes.
        guard: make a guard of the head, in `out/guard`; `guardtrain export` makes others.
    """

    mixture: MixtureSettings = field(default_factory=MixtureSettings)
    guard: bool = True


@dataclass
class TuneConfig(TuneSettings, TrainConfig):
    """`guardtrain tune`: hyper-parameters of `train` searched for, and the best run trained."""


@dataclass
class FinetuneConfig(TrainConfig):
    """`guardtrain finetune`: an encoder tuned on the images of one mixture, and a head and guard on it."""

    lora: LoraSettings = field(default_factory=LoraSettings)


@dataclass
class CurveConfig(_TrainingConfig):
    """`guardtrain curve`: the grid of runs, its results, statistics and figure.

    Args:
        out: folder of results, scores and figure; started again there, only missing runs are run.
    """

    grid: GridSettings = field(default_factory=GridSettings)
    plot: PlotSettings = field(default_factory=PlotSettings)


@dataclass
class PlotConfig:
    """`guardtrain plot`: figures, summary, tables and report of results that are there.

    Args:
        results: a curve's folder (or its results.parquet).
        out: where the files go; default: the same folder.
        all_runs: show every run in the table, not those of the last curve alone.
    """

    results: str = MISSING
    out: str | None = None
    all_runs: bool = False
    plot: PlotSettings = field(default_factory=PlotSettings)


@dataclass
class ScenesConfig:
    """`guardtrain scenes`: the embedded testbed as image files.

    Args:
        pool: `real`, `pairs` or `test`.
        n: number of images; even where they come in pairs.
        seed: of the scenes.
        out: folder of the images, `records.csv` and a contact sheet.
        masks: write the ground-truth mask of each image, too.
    """

    pool: str = "test"
    n: int = 64
    seed: int = 0
    out: str = MISSING
    masks: bool = False
    size: int = 64


@dataclass
class AuditConfig(AuditSettings):
    """`guardtrain audit`: what tells the label unseen, doubted labels, and what embeddings give away besides.

    Args:
        data_dir, cache_dir: as for `train` and `curve`.
        out: folder of `audit.json`, `audit.csv` and `suspects.csv`.
    """

    data: DataSettings = field(default_factory=DataSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    out: str = MISSING
    data_dir: str = MISSING
    cache_dir: str = MISSING


@dataclass
class AttackConfig(AttackSettings):
    """`guardtrain attack`: how much of its accuracy a guard keeps when images are changed, by malice and by chance."""

    data: DataSettings = field(default_factory=DataSettings)


@dataclass
class ServeConfig(ServeSettings):
    """`guardtrain serve`: a guard as a web service."""


@dataclass
class ExportConfig(GuardSettings):
    """`guardtrain export`: a finished run, or the best row of a curve → a guard.

    Args:
        run: a folder of `guardtrain train` or `guardtrain curve`.
        pick: for a curve: which run; it is trained again, for a curve keeps no heads.
        out: the guard's folder; default: `guard` in the run's.
        data_dir: where the run's data configs look for files; null for where they did.
        cache_dir: where embeddings are kept; null for where they were.
    """

    run: str = MISSING
    pick: PickSettings = field(default_factory=PickSettings)
    out: str | None = None
    data_dir: str | None = None
    cache_dir: str | None = None


@dataclass
class ImportGuardConfig:
    """`guardtrain import-guard`: a guard that others published, from its own files → a guard's directory.

    Args:
        kind: which guard; its own settings are in `conf/kind/`. The first word after the command.
        file: what its authors published, or a folder for kinds of several files; the second word. Null for the one that
            comes with a package (nudenet).
        encoder: whose embeddings it reads, where that is not OpenAI's CLIP of its dimension, or where the weights lie
            in a file; whether they are scaled to unit norm is the guard's own.
        out: the guard's folder; null for `guards/NAME`.
        name: what the guard is called; null for the kind's name.
        onnx: write `head.onnx`; null where the packages are installed.
    """

    kind: Any = None
    file: str | None = None
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    out: str | None = None
    name: str | None = None
    onnx: bool | None = None


@dataclass
class PushConfig:
    """`guardtrain push`: a guard → a repository on the Hugging Face hub.

    Args:
        guard: the guard's folder.
        repo: `org/name`; made if it is not there.
        private: whether a repository that is made is private.
        revision: branch to push to; null for main.
        message: of the commit.
        weights: whether the encoder's weights are pushed, too, where they are a file of yours (tuned, or a local
            checkpoint); null refuses such a guard unless it holds guard.onnx. Published weights never are.
        checkpoint: where these weights lie; null for where they lay when the guard was made.
    """

    guard: str = MISSING
    repo: str = MISSING
    private: bool = True
    revision: str | None = None
    message: str | None = None
    weights: bool | None = None
    checkpoint: str | None = None


SCHEMAS: dict[str, type] = {
    "curve": CurveConfig,
    "train": TrainConfig,
    "tune": TuneConfig,
    "finetune": FinetuneConfig,
    "embed": EmbedConfig,
    "store": StoreConfig,
    "plot": PlotConfig,
    "results": CollectSettings,
    "plan": PlanSettings,
    "audit": AuditConfig,
    "attack": AttackConfig,
    "predict": PredictConfig,
    "serve": ServeConfig,
    "scenes": ScenesConfig,
    "export": ExportConfig,
    "import-guard": ImportGuardConfig,
    "calibrate": CalibrateSettings,
    "push": PushConfig,
    "benchmark": BenchmarkSettings,
}


@cache
def register_schemas() -> None:
    """Make each command's schema known to Hydra as `COMMAND_schema`, which `conf/COMMAND.yaml` starts from.

    So every setting of the schema can be overridden, whether or not a YAML file mentions it.
    """
    for command, schema in SCHEMAS.items():
        store_schema(command, schema)
