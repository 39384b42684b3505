"""`guardtrain COMMAND --help`: config groups from the files under conf/, settings from the schema's docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import MISSING, DictConfig, OmegaConf

from guardtrain.cli import ACTIONS
from guardtrain.commands.options import options_of
from guardtrain.config import SCHEMAS, conf_dir, register_schemas

EXAMPLES = {
    "curve": [
        "guardtrain curve                                        # the embedded scenes, a minute on a laptop",
        "guardtrain curve head=mlp grid.seeds=10",
        "guardtrain curve experiment=masks data_dir=PATH         # real features, real counterfactual pairs",
        "guardtrain curve data=manifest data.real.path=real.csv data.pairs.path=pairs.csv encoder=openai_vit_b32",
    ],
    "train": [
        "guardtrain train mixture.budget=512 mixture.ratio=0.5",
        "guardtrain train head=mlp selection=cross_validation logger=wandb",
    ],
    "tune": [
        "guardtrain tune mixture.budget=512                      # loss.l2, by cross-validation inside the budget",
        "guardtrain tune head=mlp 'space={head.hidden: [[64],[256,64]]}' trials=128 batch=32",
        "guardtrain tune 'space={mixture.ratio: [0,0.25,0.5]}' metric=pair_both_right jobs=2",
        "guardtrain tune 'space={head: [linear,mlp], head.dropout: {low: 0, high: 0.5, when: {head: mlp}}}'",
    ],
    "finetune": [
        "guardtrain finetune mixture.budget=512 mixture.ratio=0.5",
        "guardtrain finetune -m experiment=perspectivevision_lora mixture.seed=0,1,2",
        "guardtrain finetune data=unsafebench encoder=openai_vit_b32 lora=clip_lora mixture.ratio=0",
    ],
    "export": [
        "guardtrain export run=outputs/train/scenes",
        "guardtrain export run=outputs/train/scenes '+points.high={kind: recall, target: 0.95}'",
        "guardtrain export run=outputs/train/scenes review.enabled=true neighbours=true whole=true",
        "guardtrain export run=outputs/curve/scenes pick.metric=auroc pick.best=setting out=guards/scenes",
    ],
    "import-guard": [
        "guardtrain import-guard q16 prompts_ViT-B-32.p                       # → guards/q16",
        "guardtrain import-guard multiheaded checkpoints/multi-headed out=guards/multiheaded",
        "guardtrain import-guard laion_nsfw clip_ViT-B-32_openai_binary_nsfw_head.pth",
        "guardtrain import-guard nudenet                                      # its file comes with the package",
        "guardtrain import-guard state_dict head.pth encoder=openai_vit_l14 'kind.layers=[{linear: fc}]'",
        "guardtrain import-guard sklearn head.skops kind.unsafe=nsfw          # where the classes' names do not say it",
    ],
    "calibrate": [
        "guardtrain calibrate guard=guards/q16 data=photos.csv                 # → guards/q16-calibrated",
        "guardtrain calibrate guard=org/name data=photos out=mine '+points.high={kind: recall, target: 0.95}'",
    ],
    "push": [
        "guardtrain push guard=outputs/train/scenes/guard repo=org/name",
        "guardtrain push guard=outputs/finetune/scenes/guard repo=org/name weights=true   # with the tuned encoder",
    ],
    "attack": [
        "guardtrain attack guards=[outputs/train/scenes/guard] samples=100",
        "guardtrain attack guards=[mine,theirs] data=manifest data.real.path=a.csv data.pairs.path=b.csv",
        "guardtrain attack guards=[mine] attacks=[jpeg,resize,crop] jpeg=[90,50] point=strict",
    ],
    "benchmark": [
        "guardtrain benchmark guards=[outputs/guard,guards/q16,guards/laion-nsfw] data=mine.csv",
        "guardtrain benchmark guards=[outputs/guard,org/name] data=[unsafebench,photos] compare_with=mine",
        "guardtrain benchmark guards=[mine] data=photos vlm=openai_compatible vlm.model=NAME vlm.base_url=URL",
        "guardtrain benchmark guards=[outputs/guard] 'data={theirs: {path: other.csv, columns: {label: unsafe}}}'",
    ],
    "embed": [
        "guardtrain embed source=image_folder source.root=photos out=stores/photos encoder=openai_vit_b32",
        "guardtrain embed source=manifest source.path=records.csv out=stores/mine",
    ],
    "store": [
        "guardtrain store info path=stores/photos",
        "guardtrain store verify path=stores/photos             # exit code 2 if anything is wrong",
        "guardtrain store append path=stores/photos source=manifest source.path=more.csv",
        "guardtrain store merge 'paths=[stores/a,stores/b]' out=stores/ab",
        "guardtrain store filter path=stores/ab 'where={category: fire}' halves=complete out=stores/fire",
        "guardtrain store filter path=stores/ab split=test out=test.parquet   # a record table, no new store",
        "guardtrain store dedup path=stores/ab out=stores/distinct",
    ],
    "plot": [
        "guardtrain plot results=outputs/curve/scenes",
        "guardtrain plot results=outputs/curve/scenes 'plot.panels=[{test: counterfactual, metric: auroc}]'",
        "guardtrain plot results=outputs/curve/scenes plot=paper plot.width=3.3",
    ],
    "results": [
        "guardtrain results                                      # all that is under outputs",
        "guardtrain results outputs/train metric=pair_both_right 'where={head: mlp}'",
        "guardtrain results sweeps outputs/curve test=in_domain out=table.md",
        "guardtrain results outputs/tune test=validation metric=log_loss out=trials.csv",
    ],
    "audit": [
        "guardtrain audit                                        # the embedded scenes",
        "guardtrain audit data=masks encoder=precomputed data_dir=PATH",
    ],
    "predict": [
        "guardtrain predict guard=outputs/guard photos                       # → predictions.parquet",
        "guardtrain predict guard=outputs/guard point=strict out=- 'photos/*.jpg' | jq .decision",
        "guardtrain predict guard=outputs/guard inputs=[records.csv] explain=3 out=predictions.jsonl",
    ],
    "serve": [
        "guardtrain serve guard=outputs/guard                    # and open the address it tells",
        "guardtrain serve guard=org/name host=0.0.0.0 port=8080 max_batch=64 device=cuda",
        "curl -F image=@photo.jpg 'http://127.0.0.1:8000/v1/predict?point=strict'",
    ],
    "ingest": [
        "guardtrain ingest data_dir=PATH                         # the published SMID scores",
        "guardtrain ingest published=table published.path=scores.csv published.name=theirs",
    ],
    "scenes": ["guardtrain scenes out=scenes pool=test n=200"],
}

WIDTH = 100
_RESOLVED = ("out", "data_dir", "cache_dir")  # the explanation says what they default to


def command_help(command: str, summary: str) -> str:
    """The help text of `command`."""
    action = f"{{{'|'.join(ACTIONS[command])}}} " if command in ACTIONS else ""
    lines = [
        f"guardtrain {command}: {summary}",
        "",
        f"usage: guardtrain {command} {action}[GROUP=OPTION] [SETTING=VALUE] ...",
        "",
    ]
    groups = config_groups(command)
    if groups:
        lines.append("config groups (GROUP=OPTION; * is the default):")
        for group, default in groups.items():
            lines.append(f"  {group}")
            for path in options_of(command, group):
                mark = "*" if path.stem == default else " "
                lines += _entry(f"   {mark} {path.stem}", first_comment(path), 28)
        lines.append("")
    lines.append("settings (SETTING=VALUE):")
    composed = _composed(command)
    own = _settings(SCHEMAS[command])
    for name, text in sorted(own, key=lambda one: one[0] not in _required(SCHEMAS[command])):
        value = "" if name in _RESOLVED else OmegaConf.select(composed, name, throw_on_missing=False, default="")
        # a mapping (a source) is in its group's file, too long to repeat here
        shown = "" if value == "" or isinstance(value, DictConfig) else f"[{_short(value)}] "
        lines += _entry(f"  {name}", shown + text, 30)
    lines += ["", "examples:", *[f"  {example}" for example in EXAMPLES[command]], ""]
    lines.append(f"guardtrain {command} --cfg job shows the composed config; -m A=1,2 runs one job for each value.")
    return "\n".join(lines)


def config_groups(command: str) -> dict[str, str | None]:
    """The groups in the command's defaults list, with what each defaults to."""
    primary: dict[str, Any] = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text()) or {}
    groups: dict[str, str | None] = {}
    for entry in primary.get("defaults", []):
        if isinstance(entry, dict):
            ((key, value),) = entry.items()
            name = key.removeprefix("optional ").removeprefix("override ").removeprefix("/")
            if not name.startswith(("hydra/", "local")) and (conf_dir() / name).is_dir():
                groups[name] = value
    return groups


def first_comment(path: Path) -> str:
    """What the YAML file says of itself in its first comment (after a `@package` line)."""
    for line in path.read_text().splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
        if line.strip() and not line.startswith("#"):
            break
    return ""


def _composed(command: str) -> DictConfig:
    """The command's config as it is without overrides."""
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command)


def _settings(schema: type, prefix: str = "") -> list[tuple[str, str]]:
    """(full name, explanation) of every setting of a schema, nested ones after it."""
    found = []
    texts = _argument_texts(schema)
    instance = schema()
    for field in dataclasses.fields(schema):
        value = getattr(instance, field.name)
        full = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found += _settings(type(value), f"{full}.")
        elif texts.get(field.name):
            found.append((full, texts[field.name]))
    return found


def _required(schema: type) -> list[str]:
    """The command's own settings that have no default: what its user gives, told first."""
    instance = schema()
    names = [field.name for field in dataclasses.fields(schema)]
    return [name for name in names if getattr(instance, name) == MISSING and name not in _RESOLVED]


def _argument_texts(schema: type) -> dict[str, str]:
    """The `Args:` sections of a dataclass and its bases, by argument."""
    texts: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        section = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
        for match in re.finditer(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section, flags=re.M):
            for name in match[1].split(", "):
                texts[name] = re.sub(r"\s+", " ", match[2]).strip()
    return texts


def _short(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")


def _entry(head: str, text: str, column: int) -> list[str]:
    wrapped = textwrap.wrap(text, WIDTH - column) or [""]
    first = f"{head:<{column}}{wrapped[0]}" if len(head) < column else head
    rest = wrapped[1:] if len(head) < column else wrapped
    return [first.rstrip(), *[" " * column + line for line in rest]]
