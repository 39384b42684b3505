"""The HTML report: valid, whole in one file, and saying what the results say."""

from __future__ import annotations

import base64
import datetime
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from guardtrain.curves.comparisons import comparisons
from guardtrain.curves.display import CurveDisplay
from guardtrain.curves.findings import findings
from guardtrain.curves.report import KeptConfig, kept_config, report_html, run_facts
from guardtrain.curves.tables import summary_tables
from tests.curves.scored_curve import scored_curve

VOID = {"meta", "img", "br", "link", "input", "hr"}
ATTRIBUTES_OF_LINKS = {"src", "href", "srcset", "data", "poster", "action", "background", "cite"}


class Strict(HTMLParser):
    """Fails on what a browser would have to repair: unclosed or crossed elements, doubled ids or attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        ids = [attributes["id"] for _, attributes in self.found if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"{tag} has an attribute twice"
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return scored_curve(tmp_path_factory.mktemp("curve"), seeds=3, budgets=(16, 64))[0]


@pytest.fixture(scope="module")
def page(frame: pd.DataFrame) -> str:
    return report_html(
        frame,
        [CurveDisplay.from_results(frame)],
        summary_tables(frame),
        findings(frame),
        comparisons(frame),
        config=KeptConfig("head: <linear>\n", ("head=linear", "grid.seeds=3")),
        title="Guard <A> & co",
        notes=["Left out: roc."],
        today=datetime.date(2025, 1, 2),
    )


def test_it_is_valid_and_whole_in_one_file(page: str) -> None:
    parsed = Strict(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    for _, attributes in parsed.found:
        for name in ATTRIBUTES_OF_LINKS & set(attributes):
            assert str(attributes[name]).startswith(("data:", "#")), attributes[name]
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in parsed.found}
    style = re.search("<style>(.*?)</style>", page, flags=re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]
    targets = {f"#{a['id']}" for _, a in parsed.found if "id" in a}
    assert {a["href"] for a in parsed.all("a")} <= targets


def test_figures_are_svg_with_the_values_in_words(page: str, frame: pd.DataFrame) -> None:
    (image,) = Strict(page).all("img")
    kind, _, code = str(image["src"]).partition(",")
    assert kind == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(code))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "AUROC on test set 'pairs'" in str(image["alt"])
    own = frame[
        (frame["test"] == "pairs") & (frame["slice_kind"] == "all") & (frame["control"] == "none")
        & (frame["budget"] == 64)
    ]  # fmt: skip
    assert f"real only {own['auroc'].mean():.3f}".replace("0.", ".") in str(image["alt"])


def test_tables_have_headers_and_their_numbers(page: str, frame: pd.DataFrame) -> None:
    parsed = Strict(page)
    tables = summary_tables(frame)
    assert len(parsed.all("caption")) == len(tables)
    scopes = [a.get("scope") for a in parsed.all("th")]
    assert None not in scopes
    assert scopes.count("col") == sum(len(t.columns) for t in tables)
    written = [text for tag, text in parsed.texts if tag == "td"]
    for table in tables:
        for _, cells in table.rows:
            assert all(cell.main in written for cell in cells)


def test_it_says_what_was_run(page: str, frame: pd.DataFrame) -> None:
    facts = dict(run_facts(frame))
    assert facts["Data"] == "toy_data & more"
    assert facts["Encoder (fingerprint)"] == "f00d" * 16
    assert facts["Budgets n (labelled images)"] == "16, 64"
    assert facts["Shares of pair images ρ"] == "0, ½, 1"
    assert facts["Controls"] == "unpaired"
    assert facts["Seeds of a point"] == "3 seeds"
    assert facts["Runs"] == f"{frame['run'].nunique()}, trained in {frame['run'].nunique() * 0.25:.0f} s"
    texts = [text for _, text in Strict(page).texts]
    for value in (*facts.values(), "Guard <A> & co", "head: <linear>", "guardtrain curve head=linear grid.seeds=3"):
        assert value in texts, "names are escaped, not read as HTML"
    assert "Left out: roc." in texts
    assert any("report of 2025-01-02" in text for text in texts)


def test_findings_are_told_with_their_number(page: str, frame: pd.DataFrame) -> None:
    texts = " ".join(text for _, text in Strict(page).texts)
    for finding in findings(frame):
        assert finding.subject in texts
        for sentence in finding.sentences:
            assert sentence in texts
    compared = comparisons(frame)
    claimed = sum(c.better is not None for c in compared)
    assert f"{claimed} of {len(compared)} comparisons" in texts


def test_one_kind_of_data_has_no_findings(frame: pd.DataFrame) -> None:
    real = frame[(frame["control"] == "none") & (frame["test"] == "pairs")]
    text = report_html(real, [], summary_tables(real), findings(real))
    assert "no pairs to compare with: these results hold real data alone" in " ".join(text.split())
    Strict(text)


def test_the_config_is_kept_without_the_machines_folders(tmp_path: Path) -> None:
    assert kept_config(tmp_path) is None
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(
        "out: /home/me/x\ndata_dir: ${oc.env:HOME}\nhead: {l2: '${seed}'}\nseed: 1\n"
    )
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- out=/home/me/x\n- +cache_dir=/home/me\n- head=linear\n")
    kept = kept_config(tmp_path)
    assert kept is not None
    assert "/home/me" not in kept.yaml
    assert "data_dir" not in kept.yaml
    assert "${seed}" in kept.yaml
    assert kept.overrides == ("head=linear",)
