"""A curve as one HTML page to send to a colleague: what was run, what it shows, figures, tables, method."""

from __future__ import annotations

import base64
import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.curves.comparisons import Comparison
from guardtrain.curves.display_base import Display
from guardtrain.curves.findings import Finding
from guardtrain.curves.statistics import seeds_text, share_text, whole_slices
from guardtrain.curves.tables import Table

if TYPE_CHECKING:
    import pandas as pd

REPORT_FILE = "report.html"
_TEMPLATE = "report.html.jinja"
_PLACES = ("out", "data_dir", "cache_dir")  # folders of the machine: no part of the experiment
_HEADINGS = {
    "curve": "Data-efficiency curve",
    "decomposition": "Where the gain comes from",
    "ratio_map": "Which share of pairs is best",
    "multiplier": "Data multiplier",
    "categories": "By category and source",
    "reliability": "Reliability",
    "roc": "ROC curves",
}
_SOFTWARE = ("guardtrain", "torch", "numpy", "scipy", "pandas", "matplotlib")


@dataclass(frozen=True)
class KeptConfig:
    """The command that made a curve, as its folder keeps it: config as YAML, the overrides that were typed, name."""

    yaml: str
    overrides: tuple[str, ...]
    command: str = "curve"


def kept_config(folder: Path) -> KeptConfig | None:
    """The config that Hydra left in `folder`, without the machine's own folders; None where there is none."""
    file = folder / ".hydra" / "config.yaml"
    if not file.is_file():
        return None
    from omegaconf import DictConfig, OmegaConf

    config = OmegaConf.load(file)
    assert isinstance(config, DictConfig)
    text = OmegaConf.to_yaml(OmegaConf.create({str(k): v for k, v in config.items_ex(False) if k not in _PLACES}))
    typed = folder / ".hydra" / "overrides.yaml"
    given = [str(item) for item in OmegaConf.load(typed)] if typed.is_file() else []
    about = folder / ".hydra" / "hydra.yaml"
    name = OmegaConf.select(OmegaConf.load(about), "hydra.job.name") if about.is_file() else None
    kept = tuple(item for item in given if item.partition("=")[0].lstrip("+~") not in _PLACES)
    return KeptConfig(text, kept, str(name or "curve"))


def report_html(
    frame: pd.DataFrame,
    figures: Sequence[Display],
    tables: Sequence[Table],
    found: Sequence[Finding],
    compared: Sequence[Comparison] = (),
    *,
    resampled: bool = False,
    seeds_alone: Sequence[str] = (),
    config: KeptConfig | None = None,
    title: str | None = None,
    notes: Sequence[str] = (),
    today: datetime.date | None = None,
) -> str:
    """The page as text: it loads nothing from anywhere, and needs no script.

    Args:
        frame: the results shown.
        figures: displays; they are drawn where they are not yet.
        tables: see `guardtrain.curves.tables`.
        found, compared: see `guardtrain.curves.findings`.
        resampled: whether the findings' intervals are bootstrapped over seeds and test groups, not t over seeds.
        seeds_alone: test sets without scores, whose intervals are t over seeds all the same.
        config: of the command that made the results.
        title: of the page; None names the data.
        notes: what was left out, and why.
        today: date on the page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("guardtrain.curves", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = ", ".join(dict.fromkeys(frame["data"]))
    shown = [
        {
            "name": figure.name,
            "heading": _HEADINGS[figure.name],
            "source": _data_uri(figure.svg()),
            "alt": figure.alt(),
            "caption": figure.caption(),
            "width": round(124 * figure.figure_.get_figwidth()) if figure.figure_ is not None else 868,
        }
        for figure in figures
    ]
    return environment.get_template(_TEMPLATE).render(
        title=title or f"Data-efficiency curve: {data}",
        today=(today or datetime.date.today()).isoformat(),
        run=run_facts(frame),
        software=[(name, metadata.version(name)) for name in _SOFTWARE] + [("Python", platform.python_version())],
        found=found,
        n_compared=len(compared),
        n_claimed=sum(c.better is not None for c in compared),
        resampled=resampled,
        seeds_alone=seeds_alone,
        several=len(set(frame["head"])) > 1,
        figures=shown,
        multiplier=any(figure.name == "multiplier" for figure in figures),
        points=any(figure.name in ("reliability", "roc") for figure in figures),
        tables=tables,
        config=config,
        notes=notes,
    )


def run_facts(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what was run, as (name, value), read off the results table."""
    whole = whole_slices(frame)
    runs = whole.drop_duplicates("run")

    def listed(column: str, write: Any = str) -> str:
        return ", ".join(write(value) for value in sorted(runs[column].unique()))

    counts = whole.groupby(["head", "arm", "control", "ratio", "budget"])["seed"].nunique()
    tests = []
    for test in dict.fromkeys(whole["test"]):
        sizes = whole[whole["test"] == test].iloc[0]
        pairs = f", {sizes['n_pairs']:,} pairs" if sizes["n_pairs"] else ""
        tests.append(f"'{test}': {sizes['n_test']:,} images, {sizes['n_unsafe']:,} unsafe{pairs}")
    mixed = runs[runs["control"] != "none"]  # real data alone is the same in both arms
    controls = [control for control in dict.fromkeys(runs["control"]) if control not in ("none", "paired")]
    return [
        ("Data", listed("data")),
        ("Test sets", "; ".join(tests)),
        ("Encoder (fingerprint)", listed("encoder")),
        ("Head", ", ".join(dict.fromkeys(runs["head"]))),
        ("Budgets n (labelled images)", listed("budget", lambda n: f"{n:,}")),
        ("Shares of pair images ρ", listed("ratio", share_text)),
        ("Arms", ", ".join(sorted(mixed["arm"].unique())) or "none"),
        ("Controls", ", ".join(controls) or "none"),
        ("Seeds of a point", seeds_text(counts.to_numpy())),
        ("L2 strength", listed("l2", lambda v: f"{v:g}") if runs["l2"].nunique() <= 8 else "chosen in each run"),
        ("Runs", f"{runs['run'].nunique():,}, trained in {runs['seconds'].sum():,.0f} s"),
    ]


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
