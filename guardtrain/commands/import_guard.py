"""`guardtrain import-guard`: a guard that others published, from its own files → a guard's directory."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from guardtrain.commands.arguments import placed_apart
from guardtrain.config import ImportGuardConfig, conf_dir
from guardtrain.config_checks import build, typed
from guardtrain.errors import ConfigError, GuardError
from guardtrain.grammar import quoted, setting

log = logging.getLogger(__name__)


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """KIND and FILE, where they are given by their place, as the settings `kind` and `file`.

    >>> as_overrides(["q16", "prompts_ViT-B-32.p", "out=guards/q16"])
    ['out=guards/q16', 'kind=q16', "file='prompts_ViT-B-32.p'"]
    """
    others, placed = placed_apart(arguments)
    said = {argument.partition("=")[0] for argument in others}
    names = [name for name in ("kind", "file") if name not in said]
    if len(placed) > len(names):
        return [*others, *placed]  # too many: Hydra says which it cannot read
    values = [value if name == "kind" else quoted(value) for name, value in zip(names, placed, strict=False)]
    return [*others, *(f"{name}={value}" for name, value in zip(names, values, strict=False))]


def run(config: DictConfig) -> None:
    """Import what `config` (see `ImportGuardConfig`) names."""
    settings = typed(config, ImportGuardConfig)
    if settings.kind is None:
        kinds = ", ".join(path.stem for path in sorted((conf_dir() / "kind").glob("*.yaml")))
        raise ConfigError(f"Say what is imported: `guardtrain import-guard KIND FILE`; KIND is one of {kinds}.")
    kind = build(settings.kind, "kind")
    file = settings.file or getattr(kind, "default_file", None)
    if file is None:
        from hydra.core.hydra_config import HydraConfig

        from guardtrain.commands.help import first_comment

        name = HydraConfig.get().runtime.choices.get("kind") if HydraConfig.initialized() else None
        about = f" {first_comment(conf_dir() / 'kind' / f'{name}.yaml')}." if name else ""
        raise ConfigError(f"Say which file is imported: `guardtrain import-guard {name or 'KIND'} FILE`.{about}")

    from guardtrain.benchmarks.importing import read_published, save_published
    from guardtrain.benchmarks.unsaid import Unsaid
    from guardtrain.guards.head_file import is_known

    try:
        published = read_published(kind, file, encoder=settings.encoder)
    except Unsaid as error:
        raise GuardError(error.text(lambda said: _command(file, said))) from error
    out = Path(settings.out or f"guards/{settings.name or published.name}").expanduser()
    imported = save_published(out, published, name=settings.name, onnx=settings.onnx, say=log.info)
    spec, guard = published.spec, imported.guard
    norm = "unit norm" if spec.normalize else "not of unit norm"
    log.info("guard       %s: %s", guard.name, published.origin.judges)
    log.info("encoder     %s, %d numbers, %s (fingerprint %s)", spec.label, guard.dim, norm, spec.fingerprint[:12])
    log.info("licence     %s", published.origin.licence or "none stated: ask its authors before you pass it on")
    log.info("classes     %s", published.classes)
    for assumed in published.assumed:
        log.info("assumed     %s", assumed)
    log.info("agreement   %s", imported.agreement)
    for note in published.origin.notes:
        log.info("note        %s", note)
    log.info("point       published, the threshold of its authors; neither that nor its probabilities were validated")
    if not is_known(str(guard.about["head"]["_target_"])):
        log.info("note        its head is none of guardtrain.heads: load it with trusted_heads, see its card")
    log.info("written     %s", out)


def _command(file: str, said: str) -> str:
    """The command of this run with one more setting, as a shell takes it."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return said
    name = said.partition("=")[0]
    kind = HydraConfig.get().runtime.choices.get("kind")
    given = [one for one in HydraConfig.get().overrides.task if one.partition("=")[0] not in ("kind", "file", name)]
    plain = not placed_apart([file])[0]  # a name with = in it would be taken for a setting
    return shlex.join(["guardtrain", "import-guard", str(kind), file if plain else setting("file", file), *given, said])
