"""Zero-shot vision-language models as guards: images are asked about, answers kept, the cost shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.vision_language_answers import Answer, Answers, answer_key, image_digest
from guardtrain.benchmarks.vision_language_client import Client, EndpointError, Stopped, Unanswered, shrunk
from guardtrain.benchmarks.vision_language_prompt import answer_words, prompt_text
from guardtrain.benchmarks.vision_language_reading import read_answer
from guardtrain.benchmarks.vision_language_settings import VisionLanguageSettings
from guardtrain.benchmarks.vision_language_tokens import probability
from guardtrain.benchmarks.vision_language_words import Words
from guardtrain.embeddings.progress import reported
from guardtrain.errors import GuardtrainError
from guardtrain.sources.base import EncodedImageSource, ImageSource
from guardtrain.sources.frames import by_first_frame, first_frame

_CHARACTERS = 4  # a token, about
_TOLD = 10  # times on the way that the cost so far is told
_LINE = 60  # characters of an answer that are shown
_HOPELESS = 8  # images in a row without an answer, and none with one: the endpoint, not the images


@dataclass
class Judged:
    """A vision-language model's answers about images.

    Args:
        outcomes: (N,) int8, see `Outcome`.
        unsafe: (N,) bool, its verdict where it has answered.
        probabilities: (N,) of being unsafe; NaN where it has not answered, or no probability came with the answer.
        answers: (N,) its words, or those of its refusal; None without an answer.
        problems: why an image has no answer, by its place among the N.
        disagreeing: the places of those undecided whose words say one thing and whose probability another.
        cut_off: how many are undecided that ended at the most tokens an answer may have.
        asked: how many were asked now; the others had been answered before.
        input_tokens, output_tokens: of those.
        cost: of those, by the given prices; None without prices.
    """

    outcomes: np.ndarray
    unsafe: np.ndarray
    probabilities: np.ndarray
    answers: list[str | None]
    problems: dict[int, str] = field(default_factory=dict)
    disagreeing: set[int] = field(default_factory=set)
    cut_off: int = 0
    asked: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    @classmethod
    def nothing(cls, count: int) -> Judged:
        """Make answers of images that nothing is known of yet."""
        outcomes = np.full(count, Outcome.NO_ANSWER, dtype=np.int8)
        return cls(outcomes, np.zeros(count, dtype=bool), np.full(count, np.nan), [None] * count)

    @property
    def summary(self) -> str:
        """In a line: what was asked, what could not be understood, what it took."""
        words = [f"{self.asked:,} of {len(self.answers):,} images asked now"]
        undecided = np.flatnonzero(self.outcomes == Outcome.UNDECIDED)
        if len(undecided):
            unclear = [place for place in undecided.tolist() if place not in self.disagreeing]
            why = [f"the first: {_shown(self.answers[unclear[0]])}"] if unclear else []
            why += [f"{len(self.disagreeing):,} whose probability says otherwise"] if self.disagreeing else []
            why += [f"{self.cut_off:,} cut off, which a larger vlm.max_tokens lets end"] if self.cut_off else []
            words.append(f"{len(undecided):,} undecided ({'; '.join(why)})")
        if refused := int((self.outcomes == Outcome.REFUSED).sum()):
            words.append(f"{refused:,} refused")
        if self.problems:
            words.append(f"{len(self.problems):,} without an answer ({next(iter(self.problems.values()))})")
        if self.asked:
            words.append(f"{self.input_tokens:,} tokens in, {self.output_tokens:,} out")
            words.append(f"cost {self.cost:.4g}" if self.cost is not None else "cost unknown without prices")
        return "; ".join(words)


def score_images(
    settings: VisionLanguageSettings,
    source: ImageSource,
    rows: Sequence[int],
    folder: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: bool | None = None,
) -> Judged:
    """Ask a vision-language model about images; what it answered before is read from `folder` and not asked again.

    Killed or stopped, it goes on where it was. An answer is kept once it is there, whatever it says; a fault is not,
    and is asked again the next time.

    Args:
        settings: the model, the question and the prices.
        source: of the images.
        rows: (N,) its records that are asked about.
        folder: of the answers, which one file of models and questions of all kinds may share.
        say: tells the user what will be asked and what it may cost, and what it took.
        progress: a bar; None shows one on a terminal.

    Raises:
        ConfigError: settings or a prompt that cannot be used.
        EndpointError: the endpoint refuses the address, model or key, or answers no image at all.
        DataError: answers that cannot be read, or another process that asks.
    """
    settings.check()
    prompt = prompt_text(settings)
    out = Judged.nothing(len(rows))
    with Answers.opened(folder) as answers, Client(settings, prompt) as client:
        work = _Work(settings, prompt, answer_words(settings), source, rows, answers, client)
        todo = [place for place in range(len(rows)) if not work.known(place, out)]
        if todo:
            say(_estimate(settings, prompt, answers, len(todo), len(rows)))
            verbs = ("Asking", "Asked")
            with reported(progress, len(rows), len(rows) - len(todo), settings.label, verbs=verbs) as done:
                _ask_all(work, todo, out, done, say)
    out.cost = settings.cost(out.input_tokens, out.output_tokens)
    say(f"{settings.label}: {out.summary}")
    if work.animations:
        ids = source.records().ids
        say(by_first_frame(settings.label, "asked about", [str(ids[rows[place]]) for place in work.animations]))
    return out


@dataclass(eq=False)
class _Work:
    """One image at a time: read, reduce, look up, ask, keep."""

    settings: VisionLanguageSettings
    prompt: str
    words: Words
    source: ImageSource
    rows: Sequence[int]
    answers: Answers
    client: Client
    keys: dict[int, str] = field(default_factory=dict)
    animations: list[int] = field(default_factory=list)

    def known(self, place: int, out: Judged) -> bool:
        """Whether nothing is left to ask about an image: it was answered before, or cannot be read."""
        try:
            image, moves = self._image(place)
        except OSError as error:
            out.problems[place] = f"the image cannot be read: {error}"
            out.outcomes[place] = Outcome.UNREADABLE
            return True
        if moves:
            self.animations.append(place)
        key = self.keys[place] = answer_key(self.settings, self.prompt, image_digest(image))
        found = self.answers.get(key)
        if found is not None:
            self.take(found, place, out)
        return found is not None

    def ask(self, place: int) -> Answer:
        """Ask and keep; the same image twice is asked once where the first answer is there by then."""
        key = self.keys[place]
        if (found := self.answers.get(key)) is not None:
            return found
        image, _ = self._image(place)
        reply = self.client.ask(image)
        answer = Answer(key, self.settings.model, **asdict(reply))
        self.answers.add(answer)
        return answer

    def _image(self, place: int) -> tuple[Image.Image, bool]:
        """The image as it is sent, and whether it is the first frame of an animation."""
        row = self.rows[place]
        if isinstance(self.source, EncodedImageSource):
            picture, moves = first_frame(self.source.encoded(row))
        else:
            picture, moves = self.source.image(row), False
        return shrunk(picture, self.settings.max_side), moves

    def take(self, answer: Answer, place: int, out: Judged) -> None:
        """Read an answer, for the image at a place."""
        out.answers[place] = answer.text or answer.refusal or ""
        if answer.refusal is not None:
            out.outcomes[place] = Outcome.REFUSED
            return
        reading = read_answer(answer.text, self.words)
        out.outcomes[place] = reading.outcome
        if reading.mention is None:
            out.cut_off += reading.outcome == Outcome.UNDECIDED and answer.finish == "length"
            return
        out.unsafe[place] = reading.mention.unsafe
        p = probability(answer.places, answer.text, reading.mention)
        if p is None:
            return
        if p != 0.5 and (p > 0.5) != reading.mention.unsafe:
            out.outcomes[place] = Outcome.UNDECIDED
            out.disagreeing.add(place)
        else:
            out.probabilities[place] = p


def _ask_all(
    work: _Work, todo: Sequence[int], out: Judged, done: Callable[[int], None], say: Callable[[str], None]
) -> None:
    """Ask about all of `todo`, a few at once; of equal images one is asked, the others take its answer."""
    first: dict[str, int] = {}
    twins: dict[int, list[int]] = {}
    for place in todo:
        twins.setdefault(first.setdefault(work.keys[place], place), []).append(place)
    waiting, running = iter(twins), dict[Future[Answer], int]()
    in_a_row, told = 0, 0
    with ThreadPoolExecutor(work.settings.concurrency) as pool:
        try:
            while True:
                for place in islice(waiting, 2 * work.settings.concurrency - len(running)):
                    running[pool.submit(work.ask, place)] = place
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    place = running.pop(future)
                    try:
                        answer = future.result()
                    except (Unanswered, OSError) as error:
                        in_a_row += 1
                        for twin in twins[place]:
                            out.problems[twin] = str(error)
                        if in_a_row >= _HOPELESS and not out.asked:
                            raise EndpointError(
                                f"No image got an answer from vlm.base_url={work.settings.base_url}: {error}. What was "
                                "answered before is kept; the same command asks about the rest."
                            ) from error
                    else:
                        in_a_row = 0
                        out.asked += 1
                        out.input_tokens += answer.input_tokens
                        out.output_tokens += answer.output_tokens
                        for twin in twins[place]:
                            work.take(answer, twin, out)
                    done(len(twins[place]))
                _stop_at(work.settings, out)
                if out.asked >= told + max(1, len(twins) // _TOLD) and running:
                    told = out.asked
                    say(f"{work.settings.label}: {told:,} of {len(twins):,} asked, {_spent(work.settings, out)}")
        except BaseException:
            work.client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _spent(settings: VisionLanguageSettings, out: Judged) -> str:
    cost = settings.cost(out.input_tokens, out.output_tokens)
    tokens = f"{out.input_tokens:,} tokens in, {out.output_tokens:,} out"
    return f"{tokens}, cost {cost:.4g}" if cost is not None else f"{tokens}, cost unknown without prices"


class CostReached(GuardtrainError):
    """Asking stopped at `max_cost`; what was answered is kept."""


def _stop_at(settings: VisionLanguageSettings, out: Judged) -> None:
    cost = settings.cost(out.input_tokens, out.output_tokens)
    if settings.max_cost is not None and cost is not None and cost >= settings.max_cost:
        raise CostReached(
            f"vlm.max_cost={settings.max_cost:g} is reached after {out.asked:,} answers, which are kept. Raise it to "
            "go on."
        )


def _shown(text: str | None) -> str:
    """The beginning of an answer, in a line and in quotes."""
    line = " ".join(str(text or "").split())
    return repr(line if len(line) <= _LINE else f"{line[:_LINE]}…")


def _estimate(settings: VisionLanguageSettings, prompt: str, answers: Answers, todo: int, total: int) -> str:
    """Estimate what asking will take: by the mean of the model's answers so far, else by the settings."""
    mean = answers.tokens_of(settings.model)
    guess = (len(prompt) / _CHARACTERS + settings.image_tokens, float(settings.max_tokens))
    tokens_in, tokens_out = mean or guess
    cost = settings.cost(todo * tokens_in, todo * tokens_out)
    price = f"about {cost:.4g}" if cost is not None else "unknown: set vlm.price_input and vlm.price_output"
    basis = "as its answers so far" if mean else "guessed"
    return (
        f"{settings.label}: {todo:,} of {total:,} images to ask; about {todo * tokens_in:,.0f} tokens in and "
        f"{todo * tokens_out:,.0f} out ({basis}); cost {price}"
    )


__all__ = ["CostReached", "Judged", "Stopped", "score_images"]
