"""Answers that were paid for: kept one a line, appended as they come, never asked for twice."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

from guardtrain.benchmarks.vision_language_settings import VisionLanguageSettings
from guardtrain.benchmarks.vision_language_tokens import Place
from guardtrain.errors import DataError

FILE = "answers.jsonl"


@dataclass(frozen=True)
class Answer:
    """A model's answer about an image.

    Args:
        key: of model, question, sampling and image; see `answer_key`.
        model: as the endpoint calls it.
        text: the words, as they came: what they mean is read anew each time.
        input_tokens, output_tokens: as the endpoint counts them; 0 where it does not say.
        finish: why the endpoint says that it ended: `stop`, `length`, `content_filter`.
        refusal: what the endpoint says where it, or a filter before it, would not answer; None where it did.
        places: of the text's tokens, where log-probabilities were asked for.
    """

    key: str
    model: str
    text: str
    input_tokens: int
    output_tokens: int
    finish: str | None = None
    refusal: str | None = None
    places: tuple[Place, ...] = ()


def image_digest(image: Image.Image) -> str:
    """Hex sha256 of an RGB image's size and pixels."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def answer_key(settings: VisionLanguageSettings, prompt: str, digest: str) -> str:
    """Hex sha256 of all that decides an answer: model, question, how it samples, and the image as it is sent.

    The endpoint's address is not among it: a model that moved to another port need not be asked again. Nor are the
    words that mean unsafe and safe: they are not sent.
    """
    deciding = {
        "model": settings.model,
        "prompt": prompt,
        "image": digest,
        "sent": [settings.max_side, settings.quality],
        "sampling": [settings.temperature, settings.max_tokens, settings.logprobs, settings.extra],
    }
    if settings.logprobs:
        deciding["kept"] = "places"  # versions before kept a probability alone, of whatever token came first
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


class Answers:
    """The answers in a folder; open it with `opened`."""

    def __init__(self, path: Path, found: dict[str, Answer], file: IO[bytes]) -> None:
        self.path = path
        self._found = found
        self._file = file
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Answers]:
        """Read what is there and append to it; one process at a time.

        A last line without an end, of a process that was killed while it wrote, is cut off.

        Raises:
            DataError: another process is asking, or a line that is no answer.
        """
        from filelock import FileLock, Timeout

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        try:
            with FileLock(str(folder / f".{FILE}.lock"), timeout=0), path.open("ab+") as file:
                file.seek(0)
                content = file.read()
                whole = content.rfind(b"\n") + 1
                file.truncate(whole)
                yield cls(path, _parsed(content[:whole], path), file)
        except Timeout as error:
            raise DataError(
                f"Another process asks and writes {path} now; wait for it, or give another folder."
            ) from error

    def get(self, key: str) -> Answer | None:
        """The answer of that key; None where it was not given yet."""
        return self._found.get(key)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, answer: Answer) -> None:
        """Keep an answer; it is in the file when this returns. Safe to call from several threads."""
        line = json.dumps(asdict(answer), ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            self._found[answer.key] = answer

    def tokens_of(self, model: str) -> tuple[float, float] | None:
        """Mean input and output tokens of a model's answers; None before the first that counts them."""
        own = [a for a in self._found.values() if a.model == model and a.input_tokens]
        if not own:
            return None
        return sum(a.input_tokens for a in own) / len(own), sum(a.output_tokens for a in own) / len(own)


def _parsed(content: bytes, path: Path) -> dict[str, Answer]:
    out: dict[str, Answer] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            fields: dict[str, Any] = json.loads(line)
            if "probability" in fields:  # of a version before, which kept no more of an answer without words
                del fields["probability"]
                if not str(fields["text"]).strip():
                    continue  # whether it was refused is not known: it is asked again
            places = tuple((at, token, lp, tuple(map(tuple, top))) for at, token, lp, top in fields.pop("places", ()))
            answer = Answer(**fields, places=places)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number}, is no answer ({error}). Remove that line, or move the file away to ask anew."
            ) from error
        out[answer.key] = answer
    return out
