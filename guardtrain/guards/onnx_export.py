"""ONNX and torch.export programs of a guard, each compared with the guard itself at batches of 1, 2 and 17."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from guardtrain.errors import GuardError
from guardtrain.installing import install_line

if TYPE_CHECKING:
    from guardtrain.guards.calibration import Calibrator

BATCHES = (1, 2, 17)
HEAD_TOLERANCE, CATEGORY_TOLERANCE, WHOLE_TOLERANCE = 1e-5, 1e-4, 1e-4  # of probabilities
LOGIT_TOLERANCE = 1e-4  # of the largest logit, and of 1: rounding is a tenth of it, another program a hundred times it
LARGEST_FILE = 1_800_000_000  # bytes; protobuf ends at 2 GiB, and then the weights lie in a file beside
OUTPUTS = ("logit", "probability", "categories")  # the third where a guard names them, and pixels come in
_TRACED = 3  # images of the example: 1 (and sometimes 2) would be taken for constants


class OnnxDisagrees(GuardError):
    """The exported program gives other probabilities than the guard."""


@dataclass(frozen=True)
class Agreement:
    """How an exported program agrees with the guard.

    Args:
        file: of the program.
        difference: the largest of probabilities, of categories, too, over all batches. It is above the tolerance where
            a calibration is so steep that the rounding of a logit does it.
        logit_difference: the largest of logits.
        tolerance: of probabilities, beside what the calibration makes of logits that agree.
        batches: sizes tried.
        rows: inputs compared.
        opset: of ONNX; None for a torch.export program.
    """

    file: str
    difference: float
    logit_difference: float
    tolerance: float
    batches: tuple[int, ...]
    rows: int
    opset: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "batches": list(self.batches)}


# inputs (N, ...) to logits and probabilities, each of N rows
Judge = Callable[[np.ndarray], tuple[np.ndarray, ...]]


def require_onnx() -> None:
    """Raises GuardError where the packages of the extra `onnx` are missing."""
    from importlib.util import find_spec

    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]:
        raise GuardError(f"ONNX needs {', '.join(missing)}: {install_line('onnx')}; or export without it (onnx=false).")


def onnx_wanted(setting: bool | None, say: Callable[[str], None]) -> bool:
    """Whether a guard gets `head.onnx`: as the setting says, and where it says nothing if the packages are there.

    Raises:
        GuardError: it is wanted, and packages are missing.
    """
    if setting is False:
        return False
    try:
        require_onnx()
    except GuardError as error:
        if setting:
            raise
        say(f"no head.onnx in the guard: {error}")
        return False
    return True


def traced(module: nn.Module, example: np.ndarray) -> Any:
    """`module` as a torch.export program with any number of rows.

    Args:
        module: in eval mode.
        example: (n, ...) float32 inputs; its rows are repeated.
    """
    rows = torch.from_numpy(np.resize(example, (_TRACED, *example.shape[1:])))
    with torch.no_grad(), _quiet():
        # strict: `len(x)` stays a variable
        return torch.export.export(
            module.eval(), (rows,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=True
        )


def write_onnx(program: Any, path: Path, name: str, outputs: Sequence[str] = OUTPUTS[:2]) -> int:
    """Write a torch.export program as ONNX, without the traces of this machine; returns its opset.

    Args:
        name: of the input.
        outputs: their names.
    """
    with _quiet():
        exported = torch.onnx.export(program, dynamo=True, input_names=[name], output_names=outputs, verbose=False)
    model: Any = exported.model_proto
    for holder in (model, model.graph, *model.functions):
        _forget(holder)
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        _forget(part)
    for value in model.graph.value_info:
        _forget(value)
    model.producer_name, model.doc_string = "guardtrain", ""
    return save_onnx(model, path)


def save_onnx(model: Any, path: Path) -> int:
    """Save an ONNX model, its weights in a file beside it where one file cannot hold them; returns its opset."""
    import onnx

    large = model.ByteSize() > LARGEST_FILE
    onnx.save(model, str(path), save_as_external_data=large, location=f"{path.name}.data" if large else None)
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def write_program(program: Any, path: Path) -> None:
    """Write a torch.export program (`.pt2`), without its example inputs."""
    with _quiet():
        program._example_inputs = None  # they would be pickled
        for node in program.graph.nodes:
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack"):  # where code lay on this machine
                node.meta.pop(key, None)
        torch.export.save(program, path)


def onnx_judge(path: Path) -> Judge:
    """An ONNX program as a function, run by onnxruntime on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def judge(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(session.run(None, {name: rows}))

    return judge


def program_judge(program: Any) -> Judge:
    """A torch.export program as a function."""
    module = program.module()

    def judge(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(output.numpy() for output in module(torch.from_numpy(rows)))

    return judge


def remembered(judge: Judge) -> Judge:
    """Wrap a judge to answer what it was asked before without working it out again: encoders take their time."""
    answers: dict[bytes, tuple[np.ndarray, ...]] = {}

    def again(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        key = hashlib.sha256(rows.tobytes()).digest()
        if key not in answers:
            answers[key] = judge(rows)
        return answers[key]

    return again


def agreement(
    file: str,
    found: Judge,
    wanted: Judge,
    rows: np.ndarray,
    tolerance: float,
    opset: int | None = None,
    calibrator: Calibrator | None = None,
) -> Agreement:
    """Compare two programs on rows in batches of 1, 2 and 17.

    Two processors already round a logit in two ways, and an isotonic calibration may have a step between two images
    that are hardly apart. So a probability is right that the calibration gives for a logit that agrees.

    Args:
        file: what is compared.
        found: the exported program.
        wanted: the guard.
        rows: (n, ...) float32 inputs.
        tolerance: of probabilities.
        calibrator: from the first output of the guard to the second; None where probabilities stand for themselves.

    Raises:
        OnnxDisagrees: a difference above the tolerance, or a result that is not finite or of another shape.
    """
    answers = []
    for size in BATCHES:
        for batch in _cut(rows, size):
            said, right = found(batch), wanted(batch)
            if (shapes := [one.shape for one in said]) != (wished := [one.shape for one in right]):
                raise OnnxDisagrees(f"{file} gives {shapes}, not {wished}, for a batch of {len(batch)}.")
            answers.append([*said, *right])
    outputs = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
    logits, *said_p = outputs[: len(outputs) // 2]
    right_logits, *right_p = outputs[len(outputs) // 2 :]
    off, most = _largest(logits, right_logits), LOGIT_TOLERANCE * max(1.0, float(np.abs(right_logits).max()))
    differences = [_largest(*both) for both in zip(said_p, right_p, strict=True)]
    beyond = differences
    if calibrator is not None:
        low, high = (calibrator.probabilities(right_logits + step) for step in (-most, most))
        beyond = [_largest(said_p[0], said_p[0].clip(low, high)), *differences[1:]]
    if not (off <= most and max(beyond) <= tolerance):
        raise OnnxDisagrees(
            f"{file} differs from the guard by {max(differences):.1e} in probability (allowed: {tolerance:.0e}) and by "
            f"{off:.1e} in logits (allowed: {most:.0e}): it is not written. Perhaps this onnxruntime computes an "
            "operator otherwise; another version may not, and onnx=false exports without it."
        )
    return Agreement(file, max(differences), off, tolerance, BATCHES, len(logits), opset)


def _cut(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Batches of one size, at least one; rows come again where there are fewer."""
    whole = np.resize(rows, (max(size, len(rows) // size * size), *rows.shape[1:]))
    for start in range(0, len(whole), size):
        yield np.ascontiguousarray(whole[start : start + size])


def _largest(found: np.ndarray, wanted: np.ndarray) -> float:
    difference = np.abs(found.astype(np.float64) - wanted)
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _forget(part: Any) -> None:
    """Drop what an exporter notes of where code lay."""
    if hasattr(part, "metadata_props"):
        del part.metadata_props[:]
    if hasattr(part, "doc_string"):
        part.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters report their progress and their own plans; errors still come through."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
