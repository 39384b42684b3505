"""The audit of pools: what tells the label without looking, which labels are doubted, what embeddings give away."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from guardtrain.api.settings import checked

if TYPE_CHECKING:
    from guardtrain.curves.audit.measure import Audit
    from guardtrain.training.pools import Pools

log = logging.getLogger(__name__)


def run_audit(pools: Pools, **settings: Any) -> Audit:
    """Audit pools and test sets as `guardtrain audit` does, but for what only files tell; `audit_text` has it in words.

    Args:
        pools: of `make_pools`.
        settings: of `guardtrain.curves.audit.settings.AuditSettings`.

    Raises:
        ConfigError: a setting that it does not have.
        DataError: too few images.
    """
    from guardtrain.curves.audit.measure import audit_pools
    from guardtrain.curves.audit.settings import AuditSettings

    return audit_pools(pools, checked(AuditSettings, settings, "run_audit"), log.info)
