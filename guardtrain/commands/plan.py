"""`guardtrain plan`: a pilot curve → the seeds and budgets that show a difference."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from guardtrain.commands.terminal import show
from guardtrain.config_checks import typed
from guardtrain.curves.planning_settings import PlanSettings
from guardtrain.errors import DataError

_REPLICATES = 500


def run(config: DictConfig) -> None:
    """Plan what `config` (see `PlanSettings`) asks for."""
    settings = typed(config, PlanSettings)

    from guardtrain.curves.planning import embedded_pilots, pilots, plan_text

    if settings.results is None:
        found, seeds = embedded_pilots()
        what = f"pilot: the embedded scenes, linear head, {seeds} seeds"
        show(plan_text(found, settings.difference, settings.power, "counterfactual", "auroc", 5, what))
        return
    from guardtrain.curves.bootstrap import BOOTSTRAP_METRICS, bootstrap_points
    from guardtrain.curves.folder import RESULTS_FILE, SCORES_FOLDER, of_last_curve
    from guardtrain.curves.results import ResultsTable
    from guardtrain.curves.scores import ScoresFolder
    from guardtrain.curves.statistics import whole_slices

    folder = Path(settings.results)
    if not (folder / RESULTS_FILE).is_file():
        raise DataError(f"There are no results at {folder}. Give a curve's folder: results=outputs/curve/scenes.")
    if settings.metric not in BOOTSTRAP_METRICS:
        raise DataError(f"metric is '{settings.metric}'; a plan needs one of {', '.join(BOOTSTRAP_METRICS)}.")
    frame = of_last_curve(ResultsTable(folder / RESULTS_FILE).read(), folder)
    whole = whole_slices(frame)
    paired = whole[whole["n_pairs"] > 0]
    test = settings.test or str((whole if paired.empty else paired)["test"].iloc[0])
    boot = bootstrap_points(frame, folder / SCORES_FOLDER, test, settings.metric, _REPLICATES)
    groups = len(set(ScoresFolder(folder / SCORES_FOLDER).read(test)[2].groups.tolist()))
    seeds = int(boot.points["n_seeds"].min())
    found = pilots(boot, groups)
    if not found:
        raise DataError(
            f"{folder} has nothing to plan from: it needs real data alone (0 in grid.ratios), pairs, and two seeds or "
            f"more. It has {int(boot.points['n_seeds'].max())} seeds."
        )
    what = f"pilot: {folder}, {seeds} seeds"
    show(plan_text(found, settings.difference, settings.power, test, settings.metric, seeds, what))
