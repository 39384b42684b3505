"""Folders of runs read into one tidy table: results, the settings they were made with, what is wrong with others."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from guardtrain.curves.folder import RESULTS_FILE, kept_keys
from guardtrain.curves.results import ROW_KEY, ResultsTable
from guardtrain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TRAIN, CURVE, FINETUNE, TUNE = "train", "curve", "finetune", "tune"
NULL = "null"  # a setting that is null; what is missing is not known
VALIDATION_TEST = "validation"  # what the table calls the images that judge trials
TRIALS_FILE, HEAD_FILE, JOB_FILE, SWEEP_FILE = "trials.parquet", "head.json", "job.json", "multirun.yaml"
_CONFIG = Path(".hydra") / "config.yaml"
_COMMAND = Path(".hydra") / "hydra.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast, where libyaml is there
# Folders inside a run's that hold no runs of their own.
_INSIDE = {"scores", "validation", "checkpoints", "logs", "wandb", "guard", "img_emb", "text_emb", "metadata"}
# Settings that change no result, or that the results table has columns for.
_LEFT_OUT = ("out", "data_dir", "cache_dir", "memory_gb", "trainer", "logger", "guard", "mixture", "grid", "plot")
_LEFT_OUT_OF_TUNE = ("space", "sampler", "sampler_seed", "trials", "batch", "timeout", "jobs", "worker", "show")
_REFERENCE = re.compile(r"\$\{([\w.-]+)\}")
_ENTRY = re.compile(r"^\[[^\]\n]*\]\[[^\]\n]*\]\[([A-Z]+)\] (.*)$", re.MULTILINE)  # of a run's log
_LOG_END = 8192  # bytes of a log in which its last entry is looked for
_DATA_DIR, _NOTHING, _DEEPEST = "${data_dir}", object(), 10
_TRIAL_COLUMNS = ("trial", "metric", "on", "score", "half_width", "n", "seconds", "failed", "by_seed")

_Settled = tuple[Collection[Any], Mapping[str, Any]]  # runs, and the settings that they have


@dataclass(frozen=True)
class Collected:
    """The runs that were found.

    Args:
        rows: a row a run × test set × slice: `folder`, `kind`, the columns of the results table, `holds_head` (whether
            the folder has the head of this run), and a column a setting.
        settings: the names of these last columns.
        folders: how many folders had runs.
        passed_over: folders without, and why.
    """

    rows: pd.DataFrame
    settings: tuple[str, ...]
    folders: int
    passed_over: tuple[tuple[Path, str], ...]


def collect(places: Sequence[str | Path]) -> Collected:
    """Read every run in `places` and below; what cannot be read is passed over with a reason.

    A run that is in several folders is counted once.

    Raises:
        DataError: a place that is not there.
    """
    import pandas as pd

    frames: list[pd.DataFrame] = []
    passed_over: list[tuple[Path, str]] = []
    settings: dict[str, None] = {}
    for place in places:
        if not Path(place).is_dir():
            raise DataError(f"There is no folder {place}. Give folders of runs, such as `guardtrain results outputs`.")
        for folder in _folders(Path(place)):
            try:
                frame = _read(folder)
            except DataError as error:
                passed_over.append((folder, str(error)))
                continue
            if frame is None:
                continue
            settings |= dict.fromkeys(frame.attrs["settings"])
            frame.attrs = {}
            frames.append(frame)
    if not frames:
        return Collected(pd.DataFrame(), (), 0, tuple(passed_over))
    rows = pd.concat(frames, ignore_index=True)
    # where the head is kept first: a run that is in a curve, too, can then be exported as it is
    rows = rows.sort_values("holds_head", ascending=False, kind="stable").drop_duplicates([*ROW_KEY, "seed"])
    return Collected(rows.sort_index(ignore_index=True), tuple(settings), len(frames), tuple(passed_over))


def _folders(place: Path) -> Iterator[Path]:
    """Folders that may hold runs, in order."""
    for path, below, _ in os.walk(place):
        below[:] = sorted(name for name in below if name not in _INSIDE and not name.startswith("."))
        yield Path(path)


def _read(folder: Path) -> pd.DataFrame | None:
    """The rows of one folder; None where it is none of a run.

    Raises:
        DataError: it is one, and holds nothing that can be read; the reason, in a line.
    """
    if (folder / RESULTS_FILE).is_file():
        return _results(folder)
    if (folder / TRIALS_FILE).is_file():
        return _trials(folder)
    if not (folder / _CONFIG).is_file() or (folder / SWEEP_FILE).is_file():
        return None  # of a sweep the jobs are looked at, whatever a single run left in its folder before
    job = _json(folder / JOB_FILE)
    if job.get("status") == "failed":
        raise DataError(f"failed: {(str(job.get('error') or '').splitlines() or ['no reason is known'])[0]}")
    if job.get("status") == "done":
        return None  # of a sweep that shares one table, which lies above
    command = _mapping(_yaml(folder / _COMMAND), "hydra", "job").get("name", "")
    if command not in (TRAIN, CURVE, FINETUNE, TUNE):
        return None
    if reason := _last_error(folder / f"{command}.log"):
        raise DataError(f"failed: {reason}")
    raise DataError(f"no results yet: `guardtrain {command}` has not ended here; the same command goes on")


def _last_error(log: Path) -> str:
    """The first line of the error that a run's log ends with; empty where it ends otherwise."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_END))
            entries = _ENTRY.findall(file.read().decode("utf-8", "replace"))
    except OSError:
        return ""
    level, text = entries[-1] if entries else ("", "")
    return str(text) if level == "ERROR" else ""


def _results(folder: Path) -> pd.DataFrame:
    frame = ResultsTable(folder / RESULTS_FILE).read()
    if frame.empty:
        raise DataError("its results table is empty")
    jobs: list[_Settled] = _jobs(folder) if (folder / SWEEP_FILE).is_file() else []
    run = None if jobs else _json(folder / HEAD_FILE).get("run")
    kind = CURVE
    if not jobs:
        config = _yaml(folder / _CONFIG)
        if run is not None or "mixture" in config:
            kind = FINETUNE if (folder / "encoder").is_dir() else TRAIN
        # the config is that of the last command; rows of earlier ones had others, which nobody knows
        jobs = [((kept_keys(folder) or set()) if kind == CURVE else {run}, _flat(config, _LEFT_OUT))]
    frame.insert(0, "folder", str(folder))
    frame.insert(1, "kind", kind)
    frame["holds_head"] = (frame["run"] == run) & (folder / "head.safetensors").is_file()
    return _with_settings(frame, jobs)


def _jobs(folder: Path) -> list[_Settled]:
    """The runs and the settings of each job of a sweep whose jobs share the table in `folder`."""
    found: list[_Settled] = []
    for job in sorted(path.parent for path in folder.glob(f"*/{JOB_FILE}")):
        if keys := kept_keys(job):
            found.append((keys, _flat(_yaml(job / _CONFIG), _LEFT_OUT)))
    return found


def _trials(folder: Path) -> pd.DataFrame:
    """Trials as rows on validation images, a row a seed."""
    import pandas as pd
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / TRIALS_FILE)
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        raise DataError(f"{TRIALS_FILE} cannot be read: {str(error).splitlines()[0]}") from None
    if not set(_TRIAL_COLUMNS) <= set(table.column_names):
        raise DataError(f"{TRIALS_FILE} is not a table of `guardtrain tune`")
    config = _yaml(folder / _CONFIG)
    flat = _flat(config, (*_LEFT_OUT, *_LEFT_OUT_OF_TUNE))
    mixture = _mapping(config, "mixture")
    rows: list[dict[str, Any]] = []
    for trial in table.to_pylist():
        given = {name: value for name, value in trial.items() if name not in _TRIAL_COLUMNS and value is not None}
        own = {**mixture, **{n.removeprefix("mixture."): v for n, v in given.items() if n.startswith("mixture.")}}
        head = given.get("head") or _mapping(config, "head").get("name")
        head = head or str(_mapping(config, "head").get("_target_", "")).rpartition(".")[2].removesuffix("Head").lower()
        for number, value in enumerate(trial["by_seed"]):
            row = {
                "run": f"trial {trial['trial']} of {folder}",
                "test": VALIDATION_TEST,
                "slice_kind": "all",
                "slice": "all",
                "head": head,
                "seed": int(own.get("seed", 0)) + number,
                "seconds": trial["seconds"],
                trial["metric"]: value,
                **{name: own[name] for name in ("arm", "control", "budget", "ratio") if name in own},
                "data": str(_mapping(config, "data").get("name", "")),
            }
            rows.append(row | flat | {n: v for n, v in given.items() if not n.startswith("mixture.") and n != "head"})
    if not rows:
        raise DataError("it has no trial with a score")
    frame = pd.DataFrame(rows)
    frame.insert(0, "folder", str(folder))
    frame.insert(1, "kind", TUNE)
    frame["holds_head"] = False
    searched = [name for name in table.column_names if name not in _TRIAL_COLUMNS and "." in name]
    names = dict.fromkeys([*flat, *(name for name in searched if not name.startswith("mixture."))])
    frame.attrs["settings"] = [name for name in names if name in frame]
    return frame


def _with_settings(frame: pd.DataFrame, jobs: Sequence[_Settled]) -> pd.DataFrame:
    """Put beside the rows the settings of the job that their run is of; a run of two jobs has those of the last."""
    import pandas as pd

    columns = {name: np.full(len(frame), np.nan, dtype=object) for _, flat in jobs for name in flat}
    for runs, flat in jobs:
        known = frame["run"].isin(runs).to_numpy()
        for name, column in columns.items():
            column[known] = flat.get(name, np.nan)
    whole = pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1) if columns else frame
    whole.attrs["settings"] = list(columns)
    return whole


def _flat(config: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Settings by their full names, references resolved; lists and null as text, for a missing value is not known."""
    found: dict[str, Any] = {}
    folder = config.get("data_dir")

    def add(prefix: str, node: Any) -> None:
        node = _resolved(node, config)
        if isinstance(node, Mapping):
            for key, value in node.items():
                add(f"{prefix}.{key}" if prefix else str(key), value)
        elif node is None or isinstance(node, list):
            found[prefix] = NULL if node is None else json.dumps(node)
        elif isinstance(node, str) and isinstance(folder, str) and node.startswith(f"{folder}/"):
            found[prefix] = _DATA_DIR + node.removeprefix(folder)  # where the data lies changes no result
        else:
            found[prefix] = node

    for name, node in config.items():
        if name not in left_out:
            add(str(name), {k: v for k, v in node.items() if k != "about"} if name == "data" else node)
    return found


def _resolved(node: Any, config: Mapping[str, Any], depth: int = 0) -> Any:
    """A value with its references to other settings resolved, as far as the config holds them.

    A run keeps its config as it was composed, or resolved: both are the same settings. Of OmegaConf's interpolations
    these are the ones that results can depend on, and reading a config with it takes twenty times as long.
    """
    if not isinstance(node, str) or "${" not in node or depth > _DEEPEST:
        return node
    if whole := _REFERENCE.fullmatch(node):
        found = _looked_up(config, whole[1])
        return node if found is _NOTHING else _resolved(found, config, depth + 1)
    texts = {m[0]: _looked_up(config, m[1]) for m in _REFERENCE.finditer(node)}
    for reference, found in texts.items():
        if isinstance(found, (str, int, float)):
            node = node.replace(reference, str(_resolved(found, config, depth + 1)))
    return node


def _looked_up(config: Mapping[str, Any], name: str) -> Any:
    """The setting of this full name; `_NOTHING` where there is none, or it is where data lies."""
    found: Any = _NOTHING if name == "data_dir" else config
    for part in name.split("."):
        found = found.get(part, _NOTHING) if isinstance(found, Mapping) else _NOTHING
    return found


def _yaml(path: Path) -> dict[str, Any]:
    """A config; empty where there is none that can be read: results are worth more than their settings."""
    try:
        with path.open(encoding="utf-8") as file:
            found = yaml.load(file, Loader=_LOADER)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _mapping(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A mapping inside a mapping; empty where there is none."""
    found: Any = node
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}
