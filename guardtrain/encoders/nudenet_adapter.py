"""NudeNet's detector as an encoder: an image's embedding is how surely each class of body part is seen in it.

So a whole-image model has a spec and a fingerprint like any encoder, and its decision is a head on its scores.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from guardtrain.encoders.encoder import Encoder
from guardtrain.encoders.resolved import Resolved, local_path, versions
from guardtrain.encoders.spec import EncoderSettings, EncoderSpec
from guardtrain.errors import EncoderError
from guardtrain.files import file_sha256
from guardtrain.installing import install_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE_FILE = "pkg://nudenet/320n.onnx"
OVERLAP = 0.45  # of boxes that count as one, intersection over union: the package's
FLOOR = 1e-4  # the lowest score that is told from none; its log-odds are -9.2
_FIXED = {"resize_mode": "longest", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "dtype": "float32", "crops": 1}
_BOX = 4  # the first rows of the output: centre, width and height


@dataclass(frozen=True)
class _Program:
    """A detector's ONNX program, and what its file says of itself."""

    session: Any
    classes: tuple[str, ...]
    side: int


def resolve_nudenet(settings: EncoderSettings) -> Resolved:
    """The spec of the detector in `settings.checkpoint`; default: the file that the package nudenet brings.

    Raises:
        EncoderError: neither the file nor the package is there, or it is no such detector.
    """
    location = settings.checkpoint or PACKAGE_FILE
    for key, value in _FIXED.items():
        if getattr(settings, key) not in (None, value, "auto"):
            raise EncoderError(f"NudeNet's detector has encoder.{key}={value}, and no other; leave it out.")
    try:
        path = local_path(location)
    except EncoderError as error:
        raise EncoderError(f"{error} Install it: {install_line('nudenet')}.") from error
    if not path.is_file():
        raise EncoderError(f"encoder.checkpoint={location}: there is no file {path}.")
    program = _opened(path)
    side = settings.image_size or program.side
    spec = EncoderSpec(
        family="nudenet",
        model=settings.model or path.stem,
        weights_sha256=file_sha256(path),
        image_size=(side, side),
        resize_mode="longest",
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        fill_color=0,
        normalize=settings.normalize,
        dtype="float32",
        model_config={"classes": list(program.classes), "overlap": OVERLAP, "floor": FLOOR},
        name=settings.name or f"nudenet-{path.stem}",
        location=location,
        dim=len(program.classes),
        versions=versions("guardtrain", "nudenet", "onnxruntime", "torch", "torchvision", "pillow"),
    )
    return Resolved(spec, None, path)


def load_nudenet(settings: EncoderSettings, resolved: Resolved) -> Encoder:
    """The detector of `resolved`, ready to embed, on the CPU whatever the device; D is the number of its classes."""
    assert resolved.weights is not None
    model = Detector(_opened(resolved.weights)).eval()
    return Encoder(resolved.spec, model, model, None, torch.device("cpu"), settings.batch_size)


class Detector(torch.nn.Module):
    """(B, 3, H, W) float32 in 0..1, RGB → (B, D) log-odds of each class's surest box.

    Boxes are taken as the package takes them: a box is of its surest class alone, and of boxes that overlap the surest
    stays, whatever the classes. Below the package's own threshold, which is not applied here, boxes are treated in the
    same way; classes without a box have the log-odds of `FLOOR`.
    """

    def __init__(self, program: _Program) -> None:
        super().__init__()
        self._session = program.session
        self._input = program.session.get_inputs()[0].name
        self._classes = len(program.classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # The package swaps red and blue once too often; what it was measured with is what is computed here.
        swapped: NDArray[Any] = pixels.flip(1).contiguous().numpy()
        found = torch.from_numpy(self._session.run(None, {self._input: swapped})[0])
        scores = torch.stack([self._surest(boxes) for boxes in found])
        return torch.logit(scores.clamp(FLOOR, 1 - FLOOR))

    def _surest(self, boxes: torch.Tensor) -> torch.Tensor:
        """(D,) the highest score of each class's boxes, 0 without one.

        Args:
            boxes: (4 + D, N) of one image.
        """
        from torchvision.ops import box_convert, nms

        score, label = boxes[_BOX:].max(dim=0)
        likely = score > FLOOR
        corners = box_convert(boxes[:_BOX, likely].T, "cxcywh", "xyxy")
        kept = nms(corners, score[likely], OVERLAP)
        best = torch.zeros(self._classes)
        return best.scatter_reduce(0, label[likely][kept], score[likely][kept], "amax")


def _opened(path: Path) -> _Program:
    """The file's program; raises EncoderError where it is no detector of Ultralytics' form."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderError(f"NudeNet's detector needs onnxruntime: {install_line('nudenet')}.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, one for each thing that can be wrong
        raise EncoderError(f"{path} is no ONNX program: {str(error).splitlines()[0][:200]}") from error
    said = session.get_modelmeta().custom_metadata_map
    try:
        names, sides = ast.literal_eval(said["names"]), ast.literal_eval(said["imgsz"])
        classes = tuple(str(names[place]) for place in range(len(names)))
        side = int(max(sides))
        rows = session.get_outputs()[0].shape[1]
    except (KeyError, ValueError, TypeError, SyntaxError, IndexError) as error:
        raise EncoderError(f"{path} does not say which classes it finds: it is no detector like NudeNet's.") from error
    if not classes or rows != _BOX + len(classes):
        raise EncoderError(f"{path} gives {rows} numbers a box; {len(classes)} classes need {_BOX + len(classes)}.")
    return _Program(session, classes, side)
