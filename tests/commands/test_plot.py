"""`guardtrain plot`: every figure in every format, tables and report, and what it refuses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from PIL import Image

from guardtrain.cli import main
from guardtrain.curves.display_base import FIGURES
from guardtrain.curves.results import ResultsTable
from guardtrain.files import DRAWN_FILE
from guardtrain.sources.walk import Walk
from tests.curves.scored_curve import scored_curve

pytestmark = pytest.mark.apart
Run = Callable[..., str]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    scored_curve(folder, seeds=3, budgets=(16, 64, 256), ratios=(0.0, 0.25, 0.5, 1.0))
    return folder


@pytest.fixture(scope="module")
def everything(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert main(["plot", f"results={results}", f"out={out}", "plot.formats=[png,svg,pdf]"]) == 0
    return out


def test_everything_is_written_by_default(everything: Path) -> None:
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg", "pdf")}
    tables = {f"{name}.{kind}" for name in ("summary", "efficiency") for kind in ("md", "tex")}
    assert {p.name for p in everything.iterdir()} == figures | tables | {"report.html", DRAWN_FILE}
    assert list(Walk().files([str(everything)])) == []  # they are no images to judge


def test_figures_are_valid_files(everything: Path) -> None:
    for name in FIGURES:
        with Image.open(everything / f"{name}.png") as image:
            image.load()
            assert image.width >= 880
        root = ElementTree.parse(everything / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert any(element.tag.endswith("}text") for element in root.iter()), "text stays text"
        pdf = (everything / f"{name}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF-")
        assert pdf.rstrip().endswith(b"%%EOF")
        assert b"/FontFile2" in pdf, "TrueType fonts are embedded"
        assert b"/Type3" not in pdf
        assert b"/CreationDate" not in pdf


def test_the_report_has_all_of_it(everything: Path) -> None:
    page = (everything / "report.html").read_text()
    assert page.count("<img ") == len(FIGURES)
    assert page.count("<caption>") == 3 + 2
    assert "data multiplier at budget n =" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_only_what_is_asked_for(run: Run, results: Path) -> None:
    text = run(
        "plot", f"results={results}", "out=a", "plot=default", "plot.figures=[roc]", "plot.formats=[pdf]",
        "plot.width=3.3", "plot.point={budget: 64, ratio: .5, arm: replace, control: paired}",
        "plot.panels=[{test: pairs, metric: auroc}]",
    )  # fmt: skip
    assert [p.name for p in Path("a").iterdir()] == ["roc.pdf"]
    width = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", Path("a/roc.pdf").read_bytes())
    assert width is not None
    assert float(width[1]) == pytest.approx(3.3 * 72, abs=0.01)
    assert "figure    a/roc.pdf" in text
    assert "on 'in_domain'" not in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "plot.figures=[pie]",
            "plot.figures has 'pie'; allowed: curve, decomposition, ratio_map, multiplier, categories, reliability",
        ),
        ("plot.formats=[gif]", "plot.formats has 'gif'; allowed: png, svg, pdf"),
        ("plot.tables=[csv]", "plot.tables has 'csv'; allowed: md, tex"),
        ("plot.width=0", "plot.width is 0 inches; allowed: 2 to 40"),
        ("plot.point.arm=adds", "plot.point.arm is 'adds'; allowed: replace, add"),
        ("plot.point.budget=100", "no point with budget 100; they have 16, 64, 256"),
        ("plot.point.size=1", "There is no setting 'plot.point.size'"),
        ("plot.panels=[{test: pairs, metric: auc}]", "Unknown metric 'auc'"),
        ("plot.categories.test=wild", "Unknown test set 'wild'; the results have: pairs, contexts"),
        ("plot.categories.metric=auc", "Unknown metric 'auc'"),
        ("plot.in_domain=wild", "Unknown test set 'wild'"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(run: Run, results: Path, setting: str, message: str) -> None:
    text = run("plot", f"results={results}", "out=a", setting, code=2)
    assert message in " ".join(text.split())
    assert "Traceback" not in text
    assert not Path("a").exists()


def test_without_scores_the_figures_that_need_them_are_left_out_or_refused(run: Run, results: Path) -> None:
    Path("bare").mkdir()
    shutil.copy(results / "results.parquet", "bare")
    text = run("plot", "results=bare", "plot.formats=[png]")
    assert {p.stem for p in Path("bare").glob("*.png")} == {"curve", "decomposition", "ratio_map", "categories"}
    assert "left out  multiplier, reliability, roc, efficiency table: There are no test scores at bare/scores" in text
    assert text.count("There are no test scores") == 1, "one reason, told once"
    assert "Left out: multiplier, reliability, roc, efficiency table" in Path("bare/report.html").read_text()
    refused = run("plot", "results=bare", "plot.figures=[curve,roc,multiplier]", code=2)
    assert "There are no test scores at bare/scores, which roc, multiplier cannot do without (curve and" in refused


def test_a_test_set_without_scores_is_left_out_of_what_needs_them(run: Run, results: Path) -> None:
    shutil.copytree(results, "part")
    (Path("part/scores") / "test-contexts.parquet").unlink()
    text = run("plot", "results=part", "plot.formats=[svg]", "plot.figures=[multiplier,roc]")
    assert {p.stem for p in Path("part").glob("*.svg")} == {"multiplier", "roc"}
    assert "left out  what needs test scores on 'contexts': The scores folder does not have those of every run" in text
    assert "'contexts'" not in Path("part/roc.svg").read_text()
    page = " ".join(Path("part/report.html").read_text().split())
    assert "those on &#39;contexts&#39; are over seeds alone, for want of test scores" in page
    assert "Data efficiency, AUROC on 'pairs'" in text


def test_several_heads_stand_in_one_table(run: Run, tmp_path: Path) -> None:
    scored_curve(tmp_path / "two", seeds=2, budgets=(16, 64, 256), ratios=(0.0, 0.5), heads=("mlp", "linear"))
    text = run("plot", "results=two", "plot.formats=[png]", "plot.figures=[curve]")
    assert text.count("AUROC on 'pairs' · 2 heads · 120 images, 60 pairs · 2 seeds") == 1
    efficiency = text.partition("Data efficiency")[2]
    assert efficiency.startswith(", AUROC on 'pairs' · 2 heads · against real only of the same head")
    assert efficiency.index("  mlp") < efficiency.index("  linear"), "in the order of the table, not by name"
    assert "Extrapolated, not measured\n  Real only (mlp, linear) is not extrapolated: 3 budgets, and 5" in text
    page = Path("two/report.html").read_text()
    assert page.count("<caption>") == 3 + 2
    assert "Extrapolated, not measured: AUROC on &#39;pairs&#39;" in page
    assert "Extrapolated" not in run(
        "plot", "results=two", "plot=default", "plot.panels=[{test: pairs, metric: auroc}]"
    )


def test_one_budget_has_no_multiplier(run: Run, results: Path) -> None:
    table = ResultsTable("one/results.parquet")
    frame = ResultsTable(results / "results.parquet").read()
    table.append(frame[frame["budget"] == 64])
    shutil.copytree(results / "scores", "one/scores")
    text = run("plot", "results=one", "plot.formats=[svg]", "plot.tables=[]", "plot.report=false")
    assert "left out  multiplier: The data multiplier compares" in text
    drawn = {"curve", "decomposition", "ratio_map", "categories", "reliability", "roc"}
    assert {p.stem for p in Path("one").glob("*.svg")} == drawn
    assert "at two budgets or more" in run("plot", "results=one", "plot.figures=[multiplier]", code=2)


def test_the_best_ratio_is_told_where_its_figure_is_drawn(run: Run, results: Path) -> None:
    asked = run("plot", f"results={results}", "out=a", "plot=default", "plot.figures=[ratio_map]")
    assert [p.stem for p in Path("a").glob("*.png")] == ["ratio_map"]
    assert asked.count("Best share of pairs ρ at each budget n, AUROC on") == 2, "of each test set, by one metric"
    assert "Best share" not in run("plot", f"results={results}", "out=b", "plot=default", "plot.formats=[svg]")


def test_of_three_ratios_there_is_no_map(run: Run, tmp_path: Path) -> None:
    scored_curve(tmp_path / "few", seeds=2, budgets=(16, 64))
    text = run("plot", "results=few", "plot.formats=[svg]", "plot.tables=[]", "plot.report=false")
    assert "left out  ratio_map: A map of the best ratio needs 4 ratios or more" in text and "Best share" not in text
    assert not Path("few/ratio_map.svg").exists()
    refused = run("plot", "results=few", "plot.figures=[ratio_map]", code=2)
    assert "the results have 3. Run the curve with more, such as grid.ratios=[0,0.25,0.5,0.75,1]" in refused
    assert "AUROC on" not in refused, "nothing is printed before it is refused"


def test_no_results_say_where_they_were_looked_for(run: Run) -> None:
    assert "There are no results at nowhere/results.parquet" in run("plot", "results=nowhere", code=2)


def test_results_that_ingest_left_are_refused(run: Run, results: Path, tmp_path: Path) -> None:
    """Their folds would pass for seeds."""
    old = tmp_path / "old"
    shutil.copytree(results, old)
    frame = pd.read_parquet(old / "results.parquet").assign(encoder="published:smid")
    frame.to_parquet(old / "results.parquet")
    assert "guardtrain benchmark 'guards=[GUARD,{scores: FILE}]'" in run("plot", f"results={old}", code=2)
