"""TensorBoard, through Lightning's logger: event files in the work's own folder."""

from __future__ import annotations

import json
from collections.abc import Callable

from lightning.pytorch.loggers import TensorBoardLogger

from guardtrain.tracking.settings import LoggerSettings
from guardtrain.tracking.tracker import Outcome, ServiceTracker, TrackedWork

FOLDER = "tensorboard"
_ROWS = 200  # of a table that is shown as text


class TensorBoardTracker(ServiceTracker):
    """Event files under `tensorboard/`, with figures, and tables as text."""

    title = "TensorBoard"

    def __init__(self, settings: LoggerSettings, work: TrackedWork, say: Callable[[str], None]) -> None:
        super().__init__(settings, work, say)
        self.logger = TensorBoardLogger(str(work.folder), name=FOLDER, version=work.key[:8])
        if work.losses:
            self.loggers.append(self.logger)
        self._text("config", work.config)

    def _text(self, name: str, content: object) -> None:
        text = json.dumps(content, indent=1, default=str)
        self.logger.experiment.add_text(name, "    " + text.replace("\n", "\n    "))  # Markdown's code

    def _log(self, outcome: Outcome) -> None:
        import numpy as np
        from PIL import Image

        writer = self.logger.experiment
        self._text("lineage", outcome.lineage())
        for name, frame in outcome.tables.items():
            rows = [list(map(str, frame.columns)), ["---"] * len(frame.columns)]
            rows += [list(map(str, row)) for row in frame.head(_ROWS).itertuples(index=False)]
            writer.add_text(name, "\n".join(f"| {' | '.join(row)} |" for row in rows))
        for path in outcome.figures:
            with Image.open(path) as image:
                writer.add_image(path.stem, np.asarray(image.convert("RGB")), dataformats="HWC")
        for name, value in outcome.summary.items():
            if isinstance(value, int | float):
                writer.add_scalar(name, value)

    def close(self, *, failed: bool = False) -> None:
        self.logger.experiment.flush()
        self.logger.finalize("failed" if failed else "success")
        self.say(f"TensorBoard   tensorboard --logdir {self.work.folder / FOLDER}")
