"""Train image-safety guards on frozen embeddings and measure how many labels they need.

`import guardtrain as gt` takes no time: each name is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door
from guardtrain.version import __version__ as __version__

if TYPE_CHECKING:
    from guardtrain.curves.bootstrap import bootstrap_difference, bootstrap_points
    from guardtrain.curves.display import CurveDisplay
    from guardtrain.curves.display_multiplier import MultiplierDisplay
    from guardtrain.curves.results import ResultsTable
    from guardtrain.guards.guard import Guard
    from guardtrain.guards.predictions import Predictions
    from guardtrain.heads.bank import HeadBank
    from guardtrain.scenes.sheet import contact_sheet
    from guardtrain.scenes.source import SceneSource

__all__ = [
    "CurveDisplay",
    "Guard",
    "HeadBank",
    "MultiplierDisplay",
    "Predictions",
    "ResultsTable",
    "SceneSource",
    "bootstrap_difference",
    "bootstrap_points",
    "contact_sheet",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "CurveDisplay": "curves.display",
        "Guard": "guards.guard",
        "HeadBank": "heads.bank",
        "MultiplierDisplay": "curves.display_multiplier",
        "Predictions": "guards.predictions",
        "ResultsTable": "curves.results",
        "SceneSource": "scenes.source",
        "bootstrap_difference": "curves.bootstrap",
        "bootstrap_points": "curves.bootstrap",
        "contact_sheet": "scenes.sheet",
    },
)
