"""A trained head shipped: calibrated, with thresholds for a target, as one directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardtrain.api.settings import checked
from guardtrain.config import PRECOMPUTED
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.guards.settings import GuardSettings, PointSettings

if TYPE_CHECKING:
    import pandas as pd

    from guardtrain.api.training import TrainedHead
    from guardtrain.encoders.encoder import Encoder
    from guardtrain.guards.export import Exported
    from guardtrain.guards.guard import Guard
    from guardtrain.guards.thresholds_rules import Rule


def export_guard(
    trained: TrainedHead,
    out: str | Path,
    *,
    points: Mapping[str, Rule] | None = None,
    **settings: Any,
) -> Guard:
    """Calibrate a head, set its thresholds, and write it as a guard, as `guardtrain export` does.

    Args:
        trained: of `train_head` or `Curve.best`.
        out: the guard's directory; a guard that is there is replaced, anything else is not.
        points: operating points by name, such as `{"strict": gt.Rule("fpr", 0.01)}`; None for `strict`, `balanced` and
            `permissive`.
        settings: of `guardtrain.guards.settings.GuardSettings`, such as `validation="val"`, `prior=0.02`, `onnx=True`,
            `name="…"`, `licence="mit"`.

    Returns:
        The guard, loaded from there.

    Raises:
        ConfigError: a rule or setting that is none.
        DataError: no images left to calibrate on.
        GuardError: something else lies at `out`, or a program does not agree with the guard.
    """
    wanted = checked(GuardSettings, settings, "export_guard")
    if points is not None:
        wanted = replace(wanted, points={name: PointSettings(**asdict(rule)) for name, rule in points.items()})
    return write_guard(trained, Path(out), wanted.with_packages(lambda _: None)).guard


def write_guard(
    trained: TrainedHead,
    out: Path,
    settings: GuardSettings,
    *,
    results: pd.DataFrame | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write the guard of a head; its encoder is loaded only where a program needs it.

    Args:
        trained: the head.
        out: the guard's directory.
        settings: what decides.
        results: a table that has the head's rows; None for its own.
        say: tells the user what takes its time.
    """
    from guardtrain.guards.export import export_guard as export
    from guardtrain.guards.validation import find_others, find_validation

    pools, mixture = trained.pools, trained.run.mixture
    asked = trained.about[0].encoder

    def encoder() -> Encoder:
        from guardtrain.encoders.load import load_encoder

        # where programs are traced and compared
        return load_encoder(asked if isinstance(asked, EncoderSpec) else replace(asked, device="cpu"))

    return export(
        out,
        trained.described(results, neighbours=settings.neighbours),
        find_validation(settings, pools, mixture),
        settings,
        others=find_others(settings, pools, mixture),
        encoder=None if asked.family == PRECOMPUTED else encoder,
        say=say,
    )
