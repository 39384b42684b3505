"""The page in a real browser, without a screen; skipped where there is none."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardtrain.guards.guard import Guard
from guardtrain.guards.serving.page import page

WAIT_MS = 60_000
# Where somebody wants to look at it: a folder for screenshots.
SHOTS = os.environ.get("GUARDTRAIN_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=own, args=["--no-sandbox", "--disable-gpu"])
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


def test_an_image_is_judged_and_another_after_it(tab: Any, guard: Guard, files: list[bytes]) -> None:
    shot(tab, "empty")
    for i, name in ((5, "photo five.jpg"), (0, "0.png")):
        tab.locator("#file").set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": files[i]})
        expected = guard.predict(files[i : i + 1], explain=5)
        tab.locator("#caption", has_text=name).wait_for()
        word = {"safe": "Safe", "unsafe": "Unsafe", "review": "For review"}[str(expected.decision[0])]
        assert tab.locator("#word").inner_text() == word
        assert f"{100 * expected.probabilities[0]:.1f} %" in tab.locator("#probability").inner_text()
        rows = tab.locator("#points tbody tr").all_inner_texts()
        for row, point in zip(rows, guard.points, strict=True):
            decision = guard.predict(files[i : i + 1], point=point).decision[0]
            assert row.startswith(point)
            assert {"safe": "Safe", "unsafe": "Unsafe", "review": "For review"}[str(decision)] in row
        assert expected.category is not None
        likely = tab.locator("#kinds tbody th").all_inner_texts()
        assert likely[:1] == ([expected.category[0]] if expected.category[0] else [])
        assert len(likely) == (3 if expected.category[0] else 0)
        assert expected.neighbours is not None
        near = tab.locator("#near tbody tr").all_inner_texts()
        assert [row.split("\t")[0] for row in near] == [one.id for one in expected.neighbours[0]]
        shown = tab.locator("#shown").evaluate("image => image.decode().then(() => image.naturalWidth)")
        assert shown > 0
        shot(tab, f"answer-{word.lower().replace(' ', '-')}")


def test_images_are_pasted_and_dropped(tab: Any, files: list[bytes]) -> None:
    hand_over = """([kind, name, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
        const event = kind === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data })
            : new DragEvent("drop", { dataTransfer: data, cancelable: true });
        document.body.dispatchEvent(new event.constructor(event.type, {
            clipboardData: data, dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    for kind, name in (("paste", "pasted.png"), ("drop", "dropped.png")):
        tab.evaluate(hand_over, [kind, name, list(files[0])])
        tab.locator("#caption", has_text=name).wait_for()
        assert tab.locator("#answer").is_visible()


def test_what_is_no_image_is_told_in_words(tab: Any, files: list[bytes]) -> None:
    tab.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": files[0]})
    tab.locator("#caption", has_text="a.png").wait_for()
    tab.locator("#file").set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"hello"})
    tab.locator("#error", has_text="not an image of a known format").wait_for()
    assert not tab.locator("#answer").is_visible()
    shot(tab, "error")
    tab.locator("#file").set_input_files({"name": "large.png", "mimeType": "image/png", "buffer": bytes(2_000_000)})
    tab.locator("#error", has_text="at most 1 MB are taken").wait_for()


def test_it_can_be_used_without_a_mouse_and_on_a_telephone(tab: Any, files: list[bytes]) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "file"
    outline = tab.locator("#drop").evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    for selector in ("#busy[role=status]", "#error[role=alert]", "label[for=file]", "html[lang=en]"):
        assert tab.locator(selector).count() == 1, selector
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": files[0]})
    tab.locator("#caption", has_text="a.png").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.locator("#shown").get_attribute("alt") == "The image that was judged: a.png"
    shot(tab, "narrow")


def test_text_can_be_read_on_its_ground(tab: Any, files: list[bytes]) -> None:
    """WCAG 2.2 AA: a contrast of 4.5 : 1 for every text that is shown."""
    tab.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": files[0]})
    tab.locator("#caption", has_text="a.png").wait_for()
    tab.locator("#about summary").click()
    contrasts = tab.evaluate("""() => {
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
        return [...document.querySelectorAll("main *")]
            .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
            .map((e) => {
                const pair = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
                return [e.textContent.slice(0, 40), (pair[0] + 0.05) / (pair[1] + 0.05)];
            });
    }""")
    assert len(contrasts) > 25
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
