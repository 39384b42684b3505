"""The page in a real browser, without a screen; skipped where there is none."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guardtrain import __version__
from guardtrain.guards.guard import Guard
from guardtrain.guards.operating_points import ThreeWay
from guardtrain.guards.serving.page import page
from guardtrain.guards.serving.service import GuardService
from tests.sources.animations import animation

WAIT_MS = 60_000
# No screen, no sandbox for a browser that sees this machine alone, and nothing that it would ask of its makers.
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]
# Where somebody wants to look at it: a folder for screenshots.
SHOTS = os.environ.get("GUARDTRAIN_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=own, args=QUIET)
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(params=["light", "dark"])
def tab(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, open; at the end nothing went wrong in it and it loaded nothing from elsewhere."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1080, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(WAIT_MS)
    faults: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "console",
        lambda message: (
            faults.append(message.text)
            if message.type in ("error", "warning") and "status of 4" not in message.text
            else None
        ),
    )
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.goto(address)
    opened.locator("#encoder", has_text="demo").wait_for()
    opened.scheme = request.param
    yield opened
    assert faults == []
    assert all(url.startswith((f"{address}/", "blob:", "data:")) for url in asked), asked
    context.close()


def shot(tab: Any, name: str) -> None:
    if SHOTS:
        tab.wait_for_timeout(500)
        tab.screenshot(path=Path(SHOTS) / f"{name}-{tab.scheme}.png", full_page=True)


WORDS = {"safe": "Not flagged", "unsafe": "Flagged as unsafe", "review": "For review"}
SHORT = {"safe": "not flagged", "unsafe": "flagged", "review": "for review"}


def give(tab: Any, *named: tuple[str, bytes]) -> None:
    """Choose these files."""
    tab.locator("#file").set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in named]
    )


def percent(p: float) -> str:
    return f"{100 * p:.1f}\u00a0%"


def close(p: float, thresholds: np.ndarray) -> bool:
    """Within twice or half the odds of a threshold."""
    odds = p / (1 - p) / (thresholds / (1 - thresholds))
    return bool(((odds >= 0.5) & (odds <= 2)).any())


def thresholds_of(guard: Guard, name: str) -> np.ndarray:
    point = guard.points[name]
    logits = [point.lower, point.upper] if isinstance(point, ThreeWay) else [point.threshold]
    return guard.calibrator.probabilities(np.array(logits))


def test_an_image_is_judged_and_another_after_it(tab: Any, guard: Guard, files: list[bytes]) -> None:
    shot(tab, "empty")
    (threshold,) = thresholds_of(guard, guard.default_point)
    for i, name in ((5, "photo five.jpg"), (0, "0.png")):
        give(tab, (name, files[i]))
        expected = guard.predict(files[i : i + 1], explain=5)
        tab.locator("#caption", has_text=name).wait_for()
        decision, probability = str(expected.decision[0]), expected.probabilities[0]
        assert tab.locator("#word").inner_text() == WORDS[decision]
        side = "above" if decision == "unsafe" else "below"
        assert tab.locator("#probability").inner_text() == (
            f"{percent(probability)} likely to be unsafe: {side} this guard's {percent(threshold)} "
            f"for “{guard.default_point}”"
        )
        assert tab.locator("#close").is_visible() == close(probability, np.array([threshold]))
        assert WORDS[decision] in tab.locator("#busy").text_content()  # the status that is read aloud
        rows = tab.locator("#points tbody tr").all_inner_texts()
        for row, point in zip(rows, guard.points, strict=True):
            said = guard.predict(files[i : i + 1], point=point).decision[0]
            assert row.startswith(point)
            assert f"\t{SHORT[str(said)]}" in row
            assert ("close" in row) == close(probability, thresholds_of(guard, point))
        assert expected.category is not None
        likely = tab.locator("#kinds tbody th").all_inner_texts()
        assert likely[:1] == ([expected.category[0]] if expected.category[0] else [])
        assert len(likely) == (3 if expected.category[0] else 0)
        near = tab.locator("#near tbody tr").all_inner_texts()
        assert expected.neighbours is not None
        assert [row.split("\t")[0] for row in near] == [one.id for one in expected.neighbours[0]]
        shown = tab.locator("#shown").evaluate("image => image.decode().then(() => image.naturalWidth)")
        assert shown > 0
        shot(tab, f"answer-{SHORT[decision].replace(' ', '-')}")
    for never in ("Safe", "safe images"):
        assert never not in tab.locator(".verdict").inner_text()


def test_the_text_of_a_threshold_stands_at_its_tick(tab: Any, files: list[bytes]) -> None:
    give(tab, ("a.png", files[0]))
    tab.locator("#caption", has_text="a.png").wait_for()
    for thresholds in ([0.742], [0.01], [0.999], [0.2, 0.9], [0.5, 0.51]):
        tab.evaluate("([result, point]) => drawScale(result, point)", [
            {"probability": 0.5, "decision": "safe"}, {"name": "balanced", "thresholds": thresholds}])  # fmt: skip
        track = tab.locator("#track").bounding_box()
        texts = tab.locator("#ticks span").all()
        for threshold, tick, text in zip(thresholds, tab.locator("#track s").all(), texts, strict=True):
            at = tick.bounding_box()
            where = text.bounding_box()
            assert at["x"] + at["width"] / 2 == pytest.approx(track["x"] + threshold * track["width"], abs=1)
            assert where["x"] - 1 <= at["x"] <= where["x"] + where["width"] + 1
            assert track["x"] - 1 <= where["x"]
            assert where["x"] + where["width"] <= track["x"] + track["width"] + 1
            assert f"from {percent(threshold)}" in text.inner_text()
        boxes = [text.bounding_box() for text in texts]
        assert all(one["y"] + one["height"] <= other["y"] + 1 for one, other in pairwise(boxes))


def test_several_images_are_all_judged(tab: Any, guard: Guard, files: list[bytes], service: GuardService) -> None:
    given = [(f"{i}.png", content) for i, content in enumerate(files)] + [("none.png", b"hello")]
    give(tab, *given)
    tab.locator("#busy", has_text="13 images in").wait_for()
    expected = guard.predict(files)
    order = np.argsort(-expected.probabilities, kind="stable")
    names = tab.locator("#list .name").all_inner_texts()
    assert names == [f"{i}.png" for i in order] + ["none.png"]
    assert tab.locator("#list .number").all_inner_texts() == [percent(expected.probabilities[i]) for i in order] + ["–"]
    near = thresholds_of(guard, guard.default_point)
    assert tab.locator("#list .words").all_inner_texts() == [
        *(SHORT[str(expected.decision[i])] + " close" * close(expected.probabilities[i], near) for i in order),
        "not judged",
    ]
    counts = tab.locator("#busy").inner_text()
    for decision, count in zip(*np.unique(expected.decision, return_counts=True), strict=True):
        assert f"{count} {SHORT[str(decision)]}" in counts
    assert "1 not judged" in counts
    assert "not an image of a known format" in tab.locator("#list .why").inner_text()
    # the first is shown; another is chosen with the keyboard
    assert names[0] in tab.locator("#caption").inner_text()
    tab.locator("#list button").first.focus()
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.locator("#caption", has_text=names[1]).wait_for()
    assert tab.locator("#list [aria-current=true] .name").inner_text() == names[1]
    shot(tab, "several")
    many = [(f"{i}.png", files[i % len(files)]) for i in range(service.settings.max_images + 3)]
    give(tab, *many)
    tab.locator("#busy", has_text="The other 3 were left out: at most 32 are judged at a time").wait_for()
    assert tab.locator("#list li").count() == service.settings.max_images


def test_an_animation_says_by_which_frame_it_was_judged(tab: Any, guard: Guard, files: list[bytes]) -> None:
    scenes = [Image.open(io.BytesIO(content)).convert("RGB").resize((64, 64)) for content in files]
    moving = animation("GIF", scenes)
    give(tab, ("moving.gif", moving))
    tab.locator("#caption", has_text="moving.gif").wait_for()
    expected = guard.predict(moving)
    frame = expected.seen[0]["frame"]
    assert frame is not None
    told = f"judged by frame {frame + 1} of 12, the likeliest of 8"
    assert told in tab.locator("#caption").inner_text()
    assert told in tab.locator("#busy").text_content()


def test_what_it_says_of_itself(tab: Any, guard: Guard, service: GuardService) -> None:
    assert "Up to 32 images of 1 MB and 4 megapixels each" in tab.locator("#limits").inner_text()
    tab.locator("#about summary").click()
    terms = tab.locator("#about dt").all_inner_texts()
    assert terms.count("guardtrain") == 1
    assert {"format", "name"}.isdisjoint(terms)
    assert tab.locator("#about dd").all_inner_texts().count(__version__) == 1
    shot(tab, "about")


def test_images_are_pasted_and_dropped(tab: Any, files: list[bytes]) -> None:
    hand_over = """([kind, names, bytes]) => {
        const data = new DataTransfer();
        for (const name of names) data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
        const event = kind === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data })
            : new DragEvent("drop", { dataTransfer: data, cancelable: true });
        document.body.dispatchEvent(new event.constructor(event.type, {
            clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    for kind, name in (("paste", "pasted.png"), ("drop", "dropped.png")):
        tab.evaluate(hand_over, [kind, [name], list(files[0])])
        tab.locator("#caption", has_text=name).wait_for()
        assert tab.locator("#answer").is_visible()
        assert not tab.locator("#list").is_visible()
    tab.evaluate(hand_over, ["drop", ["one.png", "two.png", "three.png"], list(files[1])])
    tab.locator("#busy", has_text="3 images in").wait_for()
    assert sorted(tab.locator("#list .name").all_inner_texts()) == ["one.png", "three.png", "two.png"]


def test_what_is_no_image_is_told_in_words(tab: Any, files: list[bytes]) -> None:
    give(tab, ("a.png", files[0]))
    tab.locator("#caption", has_text="a.png").wait_for()
    give(tab, ("no.png", b"hello"))
    tab.locator("#error", has_text="not an image of a known format").wait_for()
    assert "hello" not in tab.locator("#error").inner_text()
    assert not tab.locator("#answer").is_visible()
    shot(tab, "error")
    give(tab, ("large.png", bytes(2_000_000)))
    tab.locator("#error", has_text="at most 1 MB are taken").wait_for()


def test_a_busy_service_is_asked_again(tab: Any, files: list[bytes]) -> None:
    asked = []

    def busy(route: Any) -> None:
        asked.append(1)
        if len(asked) < 3:
            told = {"status": 429, "title": "Too Many Requests", "detail": "Full."}
            route.fulfill(status=429, headers={"Retry-After": "0.05"}, json=told)
        else:
            route.continue_()

    tab.route("**/v1/predict", busy)
    give(tab, ("a.png", files[0]))
    tab.locator("#caption", has_text="a.png").wait_for()
    assert len(asked) == 3


def test_it_can_be_used_without_a_mouse_and_on_a_telephone(tab: Any, files: list[bytes]) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "file"
    outline = tab.locator("#drop").evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    for selector in ("#busy[role=status]", "#error[role=alert]", "label[for=file]", "html[lang=en]"):
        assert tab.locator(selector).count() == 1, selector
    tab.set_viewport_size({"width": 360, "height": 740})
    give(tab, ("a.png", files[0]))
    tab.locator("#caption", has_text="a.png").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.locator("#shown").get_attribute("alt") == "The image that was judged: a.png"
    shot(tab, "narrow")
    give(tab, *((f"{i} of a long name without an end {'x' * 60}.png", content) for i, content in enumerate(files[:5])))
    tab.locator("#busy", has_text="5 images in").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    shot(tab, "narrow-several")


CONTRASTS = """(wanted) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgb = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const colour = rgb(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
    };
    const contrast = (a, b) => {
        const pair = [light(a), light(b)].sort((x, y) => y - x);
        return (pair[0] + 0.05) / (pair[1] + 0.05);
    };
    const style = (query) => getComputedStyle(document.querySelector(query));
    if (wanted === "parts") return {
        border: contrast(rgb(style("#drop").borderTopColor), ground(document.querySelector("#drop"))),
        "border to the page": contrast(rgb(style("#drop").borderTopColor), ground(document.body)),
        bar: contrast(rgb(style(".track i").backgroundColor), ground(document.querySelector(".says"))),
        tick: contrast(rgb(style(".track s").backgroundColor), ground(document.querySelector(".track"))),
        "chosen image": contrast(
            rgb(style("#list [aria-current]").borderLeftColor), ground(document.querySelector("#list"))),
    };
    return [...document.querySelectorAll("main *")]
        .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
        .map((e) => [e.textContent.slice(0, 40), contrast(rgb(getComputedStyle(e).color), ground(e))]);
}"""


def test_what_is_shown_can_be_seen_on_its_ground(tab: Any, guard: Guard, files: list[bytes]) -> None:
    """WCAG 2.2 AA: a contrast of 4.5 : 1 for every text, and of 3 : 1 for what has a meaning or is used."""
    give(tab, *((f"{i}.png", content) for i, content in enumerate(files)), ("no.png", b"?"))
    tab.locator("#busy", has_text="13 images in").wait_for()
    tab.locator("#about summary").click()
    parts = tab.evaluate(CONTRASTS, "parts")
    assert {name: contrast for name, contrast in parts.items() if contrast < 3} == {}
    for number in (0, len(files) - 1):  # one that is flagged, and one that is not
        tab.locator("#list button").nth(number).click()
        contrasts = tab.evaluate(CONTRASTS, "texts")
        assert len(contrasts) > 60
        assert [pair for pair in contrasts if pair[1] < 4.5] == []


def test_the_name_of_a_guard_is_text_and_the_policy_fits_the_page() -> None:
    text, headers = page("<script>alert(1)</script>")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert len(re.findall("'sha256-", policy)) == 2
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
