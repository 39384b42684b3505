"""Train image-safety guards on frozen embeddings and measure how many labels they need.

`import guardtrain as gt` takes no time: each name is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardtrain.doors import door
from guardtrain.version import __version__ as __version__

if TYPE_CHECKING:
    from guardtrain.api.audit import run_audit
    from guardtrain.api.curves import Curve, run_curve
    from guardtrain.api.data import (
        create_encoder,
        embed,
        from_arrays,
        hold_out,
        list_encoders,
        make_pools,
        read_records,
    )
    from guardtrain.api.guards import export_guard
    from guardtrain.api.training import TrainedHead, create_head, list_heads, train_head
    from guardtrain.curves.audit.report import audit_text
    from guardtrain.curves.bootstrap import bootstrap_difference, bootstrap_points
    from guardtrain.curves.display import CurveDisplay
    from guardtrain.curves.display_multiplier import MultiplierDisplay
    from guardtrain.curves.display_points import ReliabilityDisplay, RocDisplay
    from guardtrain.curves.results import ResultsTable
    from guardtrain.embeddings.store import Embeddings
    from guardtrain.errors import GuardtrainError
    from guardtrain.guards.guard import Guard
    from guardtrain.guards.predictions import Predictions
    from guardtrain.guards.thresholds_rules import Rule
    from guardtrain.heads.bank import HeadBank
    from guardtrain.mixtures.mixing import Mixer
    from guardtrain.records import Records
    from guardtrain.scenes.sheet import contact_sheet
    from guardtrain.scenes.source import SceneSource
    from guardtrain.training.pools import Pools

__all__ = [
    "Curve",
    "CurveDisplay",
    "Embeddings",
    "Guard",
    "GuardtrainError",
    "HeadBank",
    "Mixer",
    "MultiplierDisplay",
    "Pools",
    "Predictions",
    "Records",
    "ReliabilityDisplay",
    "ResultsTable",
    "RocDisplay",
    "Rule",
    "SceneSource",
    "TrainedHead",
    "audit_text",
    "bootstrap_difference",
    "bootstrap_points",
    "contact_sheet",
    "create_encoder",
    "create_head",
    "embed",
    "export_guard",
    "from_arrays",
    "hold_out",
    "list_encoders",
    "list_heads",
    "make_pools",
    "read_records",
    "run_audit",
    "run_curve",
    "train_head",
]

__getattr__, __dir__ = door(
    __name__,
    {
        "Curve": "api.curves",
        "CurveDisplay": "curves.display",
        "Embeddings": "embeddings.store",
        "Guard": "guards.guard",
        "GuardtrainError": "errors",
        "HeadBank": "heads.bank",
        "Mixer": "mixtures.mixing",
        "MultiplierDisplay": "curves.display_multiplier",
        "Pools": "training.pools",
        "Predictions": "guards.predictions",
        "Records": "records",
        "ReliabilityDisplay": "curves.display_points",
        "ResultsTable": "curves.results",
        "RocDisplay": "curves.display_points",
        "Rule": "guards.thresholds_rules",
        "SceneSource": "scenes.source",
        "TrainedHead": "api.training",
        "audit_text": "curves.audit.report",
        "bootstrap_difference": "curves.bootstrap",
        "bootstrap_points": "curves.bootstrap",
        "contact_sheet": "scenes.sheet",
        "create_encoder": "api.data",
        "create_head": "api.training",
        "embed": "api.data",
        "export_guard": "api.guards",
        "from_arrays": "api.data",
        "hold_out": "api.data",
        "list_encoders": "api.data",
        "list_heads": "api.training",
        "make_pools": "api.data",
        "read_records": "api.data",
        "run_audit": "api.audit",
        "run_curve": "api.curves",
        "train_head": "api.training",
    },
)
