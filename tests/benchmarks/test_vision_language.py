"""Vision-language models against a real server on this machine: answers, faults, resuming, cost, and the key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guardtrain.benchmarks.outcomes import Outcome
from guardtrain.benchmarks.scores import DataSet, require_readable
from guardtrain.benchmarks.vision_language import CostReached, Judged, score_images
from guardtrain.benchmarks.vision_language_answers import FILE, Answers, answer_key, image_digest
from guardtrain.benchmarks.vision_language_client import EndpointError
from guardtrain.benchmarks.vision_language_contender import asked_contender
from guardtrain.benchmarks.vision_language_prompt import UNSAFEBENCH, answer_words, prompt_text
from guardtrain.benchmarks.vision_language_settings import VisionLanguageSettings
from guardtrain.errors import ConfigError, DataError
from guardtrain.sources import ArraysSource, ImageFolderSource
from tests.benchmarks.chat_endpoint import BLUE, GREEN, RED, Endpoint, Scripted, numbered, saying, serving
from tests.benchmarks.tokenised import tokenised
from tests.sources.animations import animation

KEY = "sk-very-secret"


class Pictures:
    """A source of images of one colour each, a little different from one another."""

    def __init__(self, colours: list[Any], size: tuple[int, int] = (40, 30)) -> None:
        self.colours, self.size = colours, size

    def image(self, i: int) -> Image.Image:
        if self.colours[i] is None:
            raise OSError("damaged")
        image = Image.new("RGB", self.size, self.colours[i])
        image.putpixel((0, 0), (i, i, i))
        return image


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    with serving(Endpoint()) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(server: Endpoint) -> Endpoint:
    """The server as new."""
    fresh = Endpoint()
    for name in ("script", "faults", "key", "logprobs", "delay", "requests", "colours", "most_under_way"):
        setattr(server, name, getattr(fresh, name))
    return server


def settings(endpoint: Endpoint, **changes: Any) -> VisionLanguageSettings:
    given: dict[str, Any] = {"model": "toy", "base_url": endpoint.address, "backoff": 0.001, "concurrency": 3}
    return VisionLanguageSettings(**given | changes)


def verdicts(judged: Judged) -> list[str]:
    """What it says of each image, or why it says nothing."""
    return [
        ("safe", "unsafe")[int(unsafe)] if outcome == Outcome.ANSWERED else Outcome(outcome).word
        for unsafe, outcome in zip(judged.unsafe, judged.outcomes, strict=True)
    ]


def ask(endpoint: Endpoint, colours: list[Any], folder: Path, **changes: Any) -> Any:
    told: list[str] = []
    pictures = Pictures(colours)
    given = settings(endpoint, **changes)
    judged = score_images(given, pictures, range(len(colours)), folder, say=told.append, progress=False)  # type: ignore[arg-type]
    return judged, told


def test_answers_become_probabilities_and_are_asked_for_once(endpoint: Endpoint, tmp_path: Path) -> None:
    colours = [RED, GREEN, BLUE, None, RED, GREEN]
    judged, told = ask(endpoint, colours, tmp_path, price_input=2.0, price_output=10.0)
    assert verdicts(judged) == ["unsafe", "safe", "undecided", "unreadable", "unsafe", "safe"]
    assert np.isnan(judged.probabilities).all(), "words alone have none"
    assert judged.problems == {3: "the image cannot be read: damaged"}
    assert judged.cost == pytest.approx(5 * (1000 * 2 + 2 * 10) / 1e6)
    assert "5 of 6 images to ask" in told[0]
    assert "cost about" in told[0]
    for words in (
        "5 of 6 images asked now",
        "1 undecided (the first: 'I would rather not say.')",
        "5,000 tokens in, 10 out",
        "cost 0.0101",
    ):
        assert words in told[-1]
    assert sum(endpoint.colours.values()) == 5
    assert endpoint.most_under_way <= 3
    sent = endpoint.requests[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["size"]) == ("toy", 0.0, 64, (40, 30))
    assert all(name in sent["messages"] for name in UNSAFEBENCH)

    endpoint.delay = 1e9  # nobody may ask again
    again, told = ask(endpoint, colours, tmp_path)
    assert verdicts(again) == verdicts(judged)
    assert (again.asked, len(told)) == (0, 1)
    endpoint.delay = 0.0
    for change in ({"model": "other"}, {"temperature": 0.5}, {"categories": {"Fire": "flames"}}):
        assert ask(endpoint, [RED], tmp_path, **change)[0].asked == 1
    larger, told = ask(endpoint, [*colours, RED, RED], tmp_path, price_input=1.0, price_output=1.0)
    assert larger.asked == 2
    assert "about 2,000 tokens in and 4 out (as its answers so far); cost about 0.002004" in told[0]


def test_faults_are_tried_again_and_what_stays_faulty_is_left_for_the_next_time(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.faults = [429, 500, "garbage", 503]
    judged, _ = ask(endpoint, [RED, GREEN], tmp_path, retries=4, concurrency=1)
    assert (verdicts(judged), judged.problems) == (["unsafe", "safe"], {})

    endpoint.faults = [500, 500, 400]
    judged, told = ask(endpoint, [BLUE, RED, GREEN, RED], tmp_path, retries=1, concurrency=1)
    assert "after 2 tries; the last: status 500" in judged.problems[0]
    assert "2 without an answer" in told[-1]
    assert "answered with status 400" in judged.problems[1]
    assert verdicts(judged) == ["no answer", "no answer", "safe", "unsafe"]
    judged, _ = ask(endpoint, [BLUE, RED, GREEN, RED], tmp_path)
    assert (judged.asked, judged.problems) == (2, {})

    endpoint.faults = [500] * 100
    with pytest.raises(EndpointError, match=r"answer from vlm\.base_url=http://.*: no answer after 1 tries"):
        ask(endpoint, [RED] * 30, tmp_path / "b", retries=0)
    with pytest.raises(EndpointError, match=r"No image got an answer.*Connect"):
        ask(endpoint, [RED] * 30, tmp_path / "c", retries=0, base_url="http://127.0.0.1:9/v1")


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.key = KEY
    with pytest.raises(EndpointError, match=r"401.*TOY_KEY, which is not set"):
        ask(endpoint, [RED], tmp_path, api_key_env="TOY_KEY")
    monkeypatch.setenv("TOY_KEY", KEY)
    endpoint.faults = [500, 500]  # the server repeats the key in what it says
    judged, told = ask(endpoint, [RED, GREEN], tmp_path, api_key_env="TOY_KEY", retries=0, concurrency=1)
    assert "fault of Bearer ***" in judged.problems[0]
    assert ask(endpoint, [RED, GREEN], tmp_path, api_key_env="TOY_KEY")[0].unsafe.tolist() == [True, False]
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in written + "".join(told) + str(judged.problems)


def test_a_killed_writer_costs_its_last_line_and_no_more(endpoint: Endpoint, tmp_path: Path) -> None:
    ask(endpoint, [RED, GREEN, BLUE], tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-20])
    judged, _ = ask(endpoint, [RED, GREEN, BLUE], tmp_path)
    assert judged.asked == 1
    assert len((tmp_path / FILE).read_bytes().splitlines()) == 3
    with Answers.opened(tmp_path), pytest.raises(DataError, match="Another process asks"):
        ask(endpoint, [RED], tmp_path)
    (tmp_path / FILE).write_bytes(whole + b'{"key": 1}\n')
    with pytest.raises(DataError, match="line 4, is no answer"):
        ask(endpoint, [RED], tmp_path)


def test_asking_stops_at_the_most_it_may_cost(endpoint: Endpoint, tmp_path: Path) -> None:
    prices = {"price_input": 1000.0, "price_output": 0.0}  # an answer is 1
    with pytest.raises(CostReached, match=r"max_cost=2 is reached after 2 answers"):
        ask(endpoint, [RED] * 9, tmp_path, concurrency=1, max_cost=2, **prices)
    kept = len((tmp_path / FILE).read_bytes().splitlines())
    assert 2 <= kept <= 4  # those under way are kept, too
    assert ask(endpoint, [RED] * 9, tmp_path)[0].asked == 9 - kept


def test_probabilities_of_the_words_and_the_size_of_images(endpoint: Endpoint, tmp_path: Path) -> None:
    pictures = Pictures([RED, BLUE], (400, 100))
    given = settings(endpoint, logprobs=True, max_side=100, extra={"seed": 1, "max_tokens": None})
    judged = score_images(given, pictures, [0, 1], tmp_path, progress=False)  # type: ignore[arg-type]
    assert judged.probabilities == pytest.approx([0.75, np.nan], nan_ok=True, abs=1e-4)
    assert verdicts(judged) == ["unsafe", "undecided"], "odds beside words that say nothing are none"
    sent = endpoint.requests[0]
    assert (sent["size"], sent["seed"], sent["top_logprobs"]) == ((100, 25), 1, 10)
    assert "max_tokens" not in sent
    endpoint.logprobs = False
    other = replace(given, model="plain")
    judged = score_images(other, pictures, [0, 1], tmp_path, progress=False)  # type: ignore[arg-type]
    assert verdicts(judged) == ["unsafe", "undecided"]
    assert np.isnan(judged.probabilities).all()


def test_equal_images_are_asked_about_once(endpoint: Endpoint, tmp_path: Path) -> None:
    pictures = Pictures([RED, GREEN])
    judged = score_images(settings(endpoint), pictures, [0, 1, 0, 0], tmp_path, progress=False)  # type: ignore[arg-type]
    assert verdicts(judged) == ["unsafe", "safe", "unsafe", "unsafe"]
    assert judged.asked == 2
    assert [json.loads(line)["text"] for line in (tmp_path / FILE).read_text().splitlines()].count("Yes.") == 1


REFUSALS: tuple[Scripted, ...] = (
    Scripted({"error": {"code": "content_filter", "message": "filtered by Azure's content management policy"}}, 400),
    Scripted({"error": {"message": "flagged by moderation", "code": 403}}, 403),
    Scripted({"error": {"code": "data_inspection_failed", "message": "may hold inappropriate content"}}, 400),
    Scripted(saying("", "content_filter", content_filter_results={}), 400),
    Scripted({"error": {"code": 403, "message": "Your chosen model requires moderation"}}),
    Scripted(saying(None, "content_filter")),
    Scripted(saying("", "content_filter")),
    Scripted(saying("The image sh", "content_filter")),
    Scripted(saying("No", "SAFETY")),
    Scripted(saying(None)),
    Scripted(saying(None, refusal="I can't look at this.")),
    Scripted(saying("No", refusal="I can't look at this.")),
    Scripted(saying([{"type": "refusal", "refusal": "I can't look at this."}])),  # type: ignore[arg-type]
    Scripted(saying("I'm sorry, but I can't assist with unsafe content.")),
)


def scripted(endpoint: Endpoint, said: Sequence[Scripted], folder: Path, **changes: Any) -> tuple[Judged, list[str]]:
    endpoint.script = dict(enumerate(said))
    told: list[str] = []

    class Numbered:
        def image(self, i: int) -> Image.Image:
            return numbered(i)

    judged = score_images(settings(endpoint, **changes), Numbered(), range(len(said)), folder, say=told.append)  # type: ignore[arg-type]
    return judged, told


def test_filters_of_every_make_are_refusals_paid_for_once(endpoint: Endpoint, tmp_path: Path) -> None:
    judged, told = scripted(endpoint, REFUSALS, tmp_path, retries=0)
    assert verdicts(judged) == ["refused"] * len(REFUSALS)
    assert (judged.problems, judged.asked) == ({}, len(REFUSALS))
    assert f"{len(REFUSALS)} refused" in told[-1]
    assert scripted(endpoint, REFUSALS, tmp_path)[0].asked == 0


def test_what_was_cut_off_or_thought_to_the_end_is_no_refusal_and_no_verdict(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    said = (
        saying(None, "length"),
        saying("<think>The image is unsafe", "length"),
        saying(None, reasoning_content="It is safe."),
        saying(""),
        saying([{"type": "text", "text": "Yes"}]),  # type: ignore[arg-type]
    )
    judged, told = scripted(endpoint, [Scripted(body) for body in said], tmp_path)
    assert verdicts(judged) == [*["undecided"] * 4, "unsafe"]
    assert "2 cut off, which a larger vlm.max_tokens lets end" in told[-1]


def test_words_and_odds_that_disagree_are_undecided_and_counted(endpoint: Endpoint, tmp_path: Path) -> None:
    def said(odds: float) -> Scripted:
        return Scripted(saying("The answer is: Yes"), tokens=tokenised("The answer is: Yes", 15, "Yes", odds=odds)[0])

    judged, told = scripted(endpoint, [said(0.8), said(0.3), said(0.05)], tmp_path, logprobs=True)
    assert verdicts(judged) == ["unsafe", "undecided", "undecided"]
    assert judged.disagreeing == {1, 2}
    assert "2 whose probability says otherwise" in told[-1]
    assert scripted(endpoint, [said(0.3)], tmp_path)[0].disagreeing == set(), "nobody asked for odds"


def test_answers_of_a_version_before_are_read_anew_and_its_odds_are_not_believed(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """It kept words and a probability; of what came without words nothing is known, and that is asked again."""
    given = settings(endpoint)
    lines = []
    for number, (text, p) in enumerate((("There's nothing unsafe here", None), ("", None), ('{"unsafe": false}', 1.0))):
        key = answer_key(given, prompt_text(given), image_digest(numbered(number)))
        line = {"key": key, "model": "toy", "text": text, "probability": p, "input_tokens": 9, "output_tokens": 1}
        lines.append(json.dumps(line))
    (tmp_path / FILE).write_text("".join(f"{line}\n" for line in lines))
    again = [Scripted(saying("asked again, which costs")), Scripted(saying(None, "content_filter"))]
    judged, _ = scripted(endpoint, [again[0], again[1], again[0]], tmp_path)
    assert verdicts(judged) == ["safe", "refused", "safe"]
    assert judged.asked == 1
    assert scripted(endpoint, again[1:], tmp_path, logprobs=True)[0].asked == 1, "odds of that version are not taken"
    assert len((tmp_path / FILE).read_text().splitlines()) == 5


def test_other_words_read_the_same_answers_the_other_way_round(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Is this image safe?")
    said = [Scripted(saying(text)) for text in ("Yes", "No", "It is safe")]
    own = {"prompt": str(tmp_path / "p.txt")}
    judged, _ = scripted(endpoint, said, tmp_path, unsafe=["no"], safe=["yes"], **own)
    assert verdicts(judged) == ["safe", "unsafe", "safe"]
    judged, _ = scripted(endpoint, said, tmp_path, unsafe=["yes"], safe=["no"], **own)
    assert (verdicts(judged), judged.asked) == (["unsafe", "safe", "safe"], 0)


def test_prompts_of_ones_own_and_settings_outside_the_allowed(tmp_path: Path) -> None:
    base = VisionLanguageSettings(model="m")
    (tmp_path / "p.txt").write_text("Unsafe is: {categories}. Yes or no?\n")
    own = replace(base, prompt=str(tmp_path / "p.txt"), unsafe=["no"], safe=["yes"])
    own.check()
    assert answer_words(own).meaning == {"no": True, "yes": False, "unsafe": True, "safe": False}
    assert prompt_text(replace(own, categories={"Fire": "flames"})) == "Unsafe is: - Fire: flames. Yes or no?"
    (tmp_path / "p.txt").write_text("Fire?")
    assert prompt_text(own) == "Fire?"
    for wrong, words in (
        (replace(own, categories={"Fire": "flames"}), "no {categories}"),
        (replace(base, prompt=str(tmp_path / "none")), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            prompt_text(wrong)
    for change, words in (
        ({"model": ""}, "model is empty"),
        ({"base_url": "localhost"}, "http://"),
        ({"concurrency": 0}, "1 to 256"),
        ({"max_cost": 1.0}, "needs vlm.price_input"),
        ({"price_input": -1.0}, "0 or more"),
        ({"prompt": "p.txt"}, r"vlm.unsafe has no words.*'vlm.unsafe=\[yes\]' 'vlm.safe=\[no\]'"),
        ({"prompt": "p.txt", "unsafe": ["yes"]}, "vlm.safe has no words"),
        ({"prompt": "p.txt", "unsafe": ["…"], "safe": ["no"]}, "vlm.unsafe has no words"),
        ({"prompt": "p.txt", "unsafe": ["Yes"], "safe": ["yes "]}, "'yes' stands in vlm.unsafe and in vlm.safe"),
        ({"unsafe": ["no"], "safe": ["yes"]}, "built-in one asks for yes or no"),
    ):
        with pytest.raises(ConfigError, match=words):
            replace(base, **change).check()


def test_in_a_benchmark_what_has_no_verdict_says_why_and_a_fault_is_asked_again(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    for name, colour in {"safe/a": GREEN, "safe/b": BLUE, "unsafe/c": RED, "unsafe/d": RED}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (8, 8 + len(list(tmp_path.rglob("*.png")))), colour).save(tmp_path / f"{name}.png")
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    (tmp_path / "unsafe" / "moving.gif").write_bytes(animation("GIF", frames))
    data = DataSet("photos", ImageFolderSource(str(tmp_path)))
    contender = asked_contender(settings(endpoint, retries=0, concurrency=1), tmp_path / "cache")
    endpoint.faults = [500]
    told: list[str] = []
    first = contender.asked(data, told.append)
    assert sorted(first.without.values()) == [Outcome.UNDECIDED, Outcome.NO_ANSWER]
    assert first.computed
    scores = contender.asked(data, told.append)
    table = scores.table.to_pydict()
    found = dict(zip((Path(name).stem for name in table["id"]), table["decision"], strict=True))
    assert found == {"a": "safe", "c": "unsafe", "d": "unsafe", "moving": "unsafe"}
    frame = "toy: 1 animation is asked about by the first frame, of which a label is taken to be: unsafe/moving.gif"
    assert told.count(frame) == 2, "once each time"
    assert {Path(name).stem: outcome for name, outcome in scores.without.items()} == {"b": Outcome.UNDECIDED}
    assert {Path(name).stem: words for name, words in scores.words.items()}["b"] == "I would rather not say."
    assert table["probability"] == [None] * 4
    assert np.isfinite(table["logit"]).all()
    assert not contender.asked(data, told.append).computed
    assert contender.entrant.categories == ()
    own = asked_contender(settings(endpoint, categories={"Fire": "flames"}), tmp_path)
    assert own.entrant.categories == ("Fire",)
    np.savez(tmp_path / "e.npz", x=np.ones((2, 3), np.float32), y=np.array([0, 1]))
    arrays = DataSet("rows", ArraysSource(str(tmp_path / "e.npz"), features="x", label="y"))
    with pytest.raises(DataError, match=r"'rows' brings embeddings, and toy is asked"):
        require_readable([contender], [data, arrays])
