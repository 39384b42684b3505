"""A small detector in an ONNX file of NudeNet's form: four boxes of three classes, on images of 64 × 64 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE, STRIDE = 64, 32
CLASSES = ("FACE", "ANUS_EXPOSED", "BUTTOCKS_EXPOSED")
# centre, width and height; the first two overlap by more than .45 of their union
BOXES = np.array([[20, 20, 30, 30], [24, 20, 30, 30], [45, 45, 20, 20], [50, 15, 10, 10]], dtype=np.float32)


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(C, 3) on the mean colours of a cell, and (C,)."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(len(CLASSES), 3)) * 6
    return matrix, rng.normal(size=len(CLASSES)) - matrix.sum(axis=1) / 2  # of grey, no class is much surer


def write_detector(path: Path, seed: int = 0, names: tuple[str, ...] = CLASSES) -> Path:
    """`images` (B, 3, 64, 64), blue first, to `output0` (B, 4 + C, 4): boxes, and scores from a cell's mean colour."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    matrix, bias = weights(seed)
    count = len(CLASSES)
    kernel = np.zeros((4 + count, 3, STRIDE, STRIDE), dtype=np.float32)
    kernel[4:] = matrix[:, ::-1, None, None] / STRIDE**2  # ours are for red, green, blue
    constants = {
        "kernel": kernel,
        "bias": np.concatenate([np.zeros(4), bias]).astype(np.float32),
        "shape": np.array([0, 4 + count, -1]),
        "parts": np.array([4, count]),
        "boxes": BOXES.T[None],
    }
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "bias"], ["cells"], strides=[STRIDE, STRIDE]),
        helper.make_node("Reshape", ["cells", "shape"], ["rows"]),
        helper.make_node("Split", ["rows", "parts"], ["nothing", "logits"], axis=1),
        helper.make_node("Add", ["nothing", "boxes"], ["placed"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["placed", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 4 + count, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": str(dict(enumerate(names))), "imgsz": f"[{SIDE}, {SIDE}]"})
    onnx.save(model, str(path))
    return path


def wanted_scores(image: np.ndarray, seed: int = 0) -> np.ndarray:
    """(C,) each class's surest box of a (64, 64, 3) uint8 image, by loops over boxes; 0 without one."""
    matrix, bias = weights(seed)
    cells = image.reshape(2, STRIDE, 2, STRIDE, 3).mean(axis=(1, 3)).reshape(4, 3) / 255
    scores = 1 / (1 + np.exp(-(cells @ matrix.T + bias)))
    best, kept = np.zeros(len(CLASSES)), list[int]()
    for box in np.argsort(-scores.max(axis=1)):
        if all(_overlap(BOXES[box], BOXES[other]) <= 0.45 for other in kept):
            kept.append(int(box))
            label = scores[box].argmax()
            best[label] = max(best[label], scores[box, label])
    return best


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    inside = float(np.prod(np.maximum(0, high - low)))
    return inside / float(a[2] * a[3] + b[2] * b[3] - inside)
