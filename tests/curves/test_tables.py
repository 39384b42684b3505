"""Tables: the statistics' numbers, rounded by their uncertainty, in markup that parsers read back."""

from __future__ import annotations

import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy import stats

from guardtrain.curves.bootstrap import bootstrap_points
from guardtrain.curves.efficiency import Estimate, LineReplicates, area_difference, data_multiplier
from guardtrain.curves.efficiency_summary import measure_efficiency
from guardtrain.curves.statistics import Line
from guardtrain.curves.tables import (
    Cell,
    Table,
    efficiency_tables,
    escape_latex,
    escape_markdown,
    estimate_cell,
    latex,
    markdown,
    mean_cell,
    summary_tables,
    uncertainty_digits,
)
from tests.curves.scored_curve import scored_curve

INFINITY = float("inf")
names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    return scored_curve(tmp_path_factory.mktemp("curve"))


@pytest.fixture(scope="module")
def tables(curve: tuple[pd.DataFrame, Path]) -> list[Table]:
    boot = bootstrap_points(*curve, "pairs", "auroc", 100)
    return [*summary_tables(curve[0]), *efficiency_tables(measure_efficiency(curve[0], boot))]


def read_markdown(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text as rows of cells, by a CommonMark parser with GitHub's tables."""
    found: list[list[list[str]]] = []
    inside = False
    for token in MarkdownIt("commonmark", {"html": False}).enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            inside = True
        elif token.type in ("th_close", "td_close"):
            inside = False
        elif token.type == "inline" and inside:
            children = token.children or []
            assert {child.type for child in children} <= {"text", "text_special"}, "a cell has markup in it"
            found[-1][-1].append("".join(child.content for child in children))
    return found


def read_latex(text: str) -> list[tuple[str, list[list[str]]]]:
    """Column specification and rows of cells of each tabular; a row that is not as wide fails."""
    found = []
    for spec, body in re.findall(r"\\begin\{tabular\}\{@\{\}(l[r]+)@\{\}\}\n(.*?)\\end\{tabular\}", text, flags=re.S):
        rows = []
        for line in map(str.strip, body.strip().splitlines()):
            if line.startswith((r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule")):
                continue
            assert line.endswith(r" \\"), line
            cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
            width = sum(int(m[1]) if (m := re.match(r"\s*\\multicolumn\{(\d+)\}", c)) else 1 for c in cells)
            assert width == len(spec), line
            rows.append([cell.strip() for cell in cells])
        found.append((spec, rows))
    return found


@given(st.floats(1e-4, 9e3))
def test_uncertainty_keeps_one_or_two_digits_as_the_particle_data_group_does(value: float) -> None:
    digits = uncertainty_digits(value, most=9)
    leading = Decimal(repr(value)).scaleb(2 - Decimal(repr(value)).adjusted())  # three digits before the point
    shown = Decimal(f"{value:.{digits}f}")
    if leading.quantize(Decimal(1)) < 355:
        expected = 2
    elif leading.quantize(Decimal(1)) < 950:
        expected = 1
    else:
        expected = 2  # of the rounded 1000
    exponent = Decimal(repr(value)).adjusted() + (leading.quantize(Decimal(1)) >= 950)
    assert digits == max(0, expected - 1 - exponent)
    assert abs(shown - Decimal(repr(value))) <= Decimal("0.15") * Decimal(repr(value)) + Decimal("0.5") * (digits == 0)


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.827, 0.119, "0.83 ± 0.12"),
        (0.827, 0.367, "0.8 ± 0.4"),
        (0.827, 0.0998, "0.83 ± 0.10"),
        (0.827, 0.0, "0.8270 ± 0.0000"),
    ],
)
def test_the_rules_own_examples(mean: float, half: float, text: str) -> None:
    assert str(mean_cell(mean, half)) == text


@given(st.floats(-1, 1), st.floats(1e-5, 0.5))
def test_mean_and_half_width_have_the_same_digits(mean: float, half: float) -> None:
    cell = mean_cell(mean, half)
    shown, spread = (text.partition(".")[2] for text in (cell.main, cell.beside))
    assert len(shown) == len(spread) == uncertainty_digits(half)
    value = float(cell.main.replace("−", "-"))
    assert abs(value - mean) <= 0.5 * 10.0 ** -len(shown) + 1e-12
    assert cell.main.strip("−0.") or "−" not in cell.main, "no minus zero"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(2.94, 2.1, INFINITY, 0.1, 16.0), "2.9 [2.1, ≥ 16]"),
        (Estimate(INFINITY, 2.4, INFINITY, 0.1, 4.0), "≥ 4 [2.4, ≥ 4]"),
        (Estimate(INFINITY, INFINITY, INFINITY, 0.1, 4.0), "≥ 4"),
        (Estimate(0.7, -INFINITY, 1.2, 0.0078125, 128.0), "0.7 [≤ 0.00782, 1.2]"),
        (Estimate(-INFINITY, -INFINITY, 2.0, 1 / 3, 33.3), "≤ 0.334 [≤ 0.334, 2.0]"),
        (Estimate(0.0689, 0.0611, 0.0770), "0.069 [0.061, 0.077]"),
        (Estimate(-0.0689, -0.0811, 0.0070), "−0.069 [−0.081, 0.007]"),
        (Estimate(np.nan, np.nan, np.nan), "–"),
    ],
)
def test_estimates_are_rounded_by_their_interval_and_bounds_outwards(estimate: Estimate, text: str) -> None:
    assert str(estimate_cell(estimate)) == text


def test_a_multiplier_has_a_decimal_below_100() -> None:
    assert str(estimate_cell(Estimate(6.41, 1.42, 36.2, 0.1, 64), least=1)) == "6.4 [1.4, 36.2]"
    assert str(estimate_cell(Estimate(17.2, 5.1, 122.4, 0.1, 256), least=1)) == "17.2 [5.1, 122]"


@given(st.floats(1e-3, 1e4))
def test_a_bound_never_says_more_than_was_measured(bound: float) -> None:
    above = estimate_cell(Estimate(INFINITY, INFINITY, INFINITY, 0, bound)).main
    below = estimate_cell(Estimate(-INFINITY, -INFINITY, -INFINITY, bound, INFINITY)).main
    number = [Decimal(text[2:].replace(",", "")) for text in (above, below)]
    exact = Decimal(repr(bound))
    assert number[0] <= exact <= number[1]
    assert number[1] - number[0] <= exact * Decimal("0.011") + Decimal("1e-12")


def test_cells_are_the_means_and_intervals_of_pandas_and_scipy(
    curve: tuple[pd.DataFrame, Path], tables: list[Table]
) -> None:
    frame = curve[0]
    table = next(t for t in tables if t.caption.startswith("AUROC on 'pairs'"))
    assert table.columns == ("16", "32", "64", "128", "256")
    assert [name for name, _ in table.rows] == [
        "real only", "pairs ½ (replace)", "  unpaired control", "pairs only", "  unpaired control",
    ]  # fmt: skip
    for name, control, ratio in (("real only", "none", 0.0), ("pairs ½ (replace)", "paired", 0.5)):
        cells = dict(table.rows)[name]
        for cell, budget in zip(cells, (16, 32, 64, 128, 256), strict=True):
            own = frame[
                (frame["test"] == "pairs") & (frame["slice_kind"] == "all") & (frame["control"] == control)
                & (frame["ratio"] == ratio) & (frame["budget"] == budget)
            ]["auroc"]  # fmt: skip
            low, high = stats.t.interval(0.95, len(own) - 1, loc=own.mean(), scale=stats.sem(own))
            digits = len(cell.main.partition(".")[2])
            assert cell == Cell(f"{own.mean():.{digits}f}", f"± {(high - low) / 2:.{digits}f}")
    told = "(120 images, 60 pairs), linear head, data 'toy_data & more': means over 4 seeds"
    assert told in table.caption
    assert "95 % Student t interval over seeds" in table.caption


def test_efficiency_cells_are_the_estimates(curve: tuple[pd.DataFrame, Path], tables: list[Table]) -> None:
    boot = bootstrap_points(*curve, "pairs", "auroc", 100)
    real, pairs = (
        LineReplicates.of(boot, line) for line in (Line("replace", "none", 0.0), Line("replace", "paired", 0.5))
    )
    cells = dict(tables[-1].rows)["pairs ½ (replace)"]
    area, *multipliers = cells
    assert area == estimate_cell(area_difference(pairs, real))
    shown = [int(name.replace(",", "")) for name in tables[-1].columns[1:]]
    estimates = dict(zip(pairs.budgets, data_multiplier(real, pairs), strict=True))
    assert [str(cell) for cell in multipliers] == [str(estimate_cell(estimates[n], least=1)) for n in shown]
    left_out = {16, 32, 64, 128, 256} - set(shown)
    assert all(np.isinf(estimates[n].value) for n in left_out)
    assert ("Left out" in tables[-1].caption) == bool(left_out)
    assert "100 bootstrap replicates over 4 seeds and test groups" in tables[-1].caption


def test_markdown_is_read_back(tables: list[Table]) -> None:
    read = read_markdown(markdown(tables))
    assert len(read) == len(tables)
    for table, (header, *rows) in zip(tables, read, strict=True):
        assert header[1:] == [f"{table.each if i >= table.first_over else ''}{c}" for i, c in enumerate(table.columns)]
        assert [[row[0].strip("\xa0"), *row[1:]] for row in rows] == [
            [name.strip(), *map(str, cells)] for name, cells in table.rows
        ]


def test_decimals_stand_below_each_other() -> None:
    columns = ["0.812", "0.81", "–", "≥ 16", "2.94"]
    rows = tuple((f"row {i}", (Cell(text, "± 0.0130" if i else "± 0.02"),)) for i, text in enumerate(columns))
    text = latex([Table("c", "tab:c", "over", ("n",), rows)])
    mains = ["0.812", r"0.81\phantom{0}", "--", r"$\geq$\,16\phantom{.000}", r"2.94\phantom{0}"]
    for main in mains:
        assert f"& {main} \\\\" in text
    assert r"{\scriptsize $\pm$\,0.02\phantom{00}}" in text


def test_latex_is_read_back(tables: list[Table]) -> None:
    text = latex(tables)
    read = read_latex(text)
    assert len(read) == len(tables) == text.count(r"\bottomrule") == text.count(r"\end{table}")
    plain = str.maketrans({"{": "", "}": "", "$": ""})
    for table, (_, rows) in zip(tables, read, strict=True):
        main = [row for row in rows if row[0] and not row[0].startswith(r"\multicolumn")]
        assert len(main) == len(table.rows)
        for row, (_, cells) in zip(main, table.rows, strict=True):
            shown = [re.sub(r"\\phantom\{.*?\}", "", cell) for cell in row[1:]]
            texts = [cell.replace(r"$\geq$\,", "≥ ").replace(r"$\leq$\,", "≤ ").translate(plain) for cell in shown]
            assert texts == [cell.main for cell in cells]
        for i in range(1, 1 + len(table.columns)):  # behind its point each number of a column takes the same room
            seen = [re.sub(r"\\phantom\{(.*?)\}", r"\1", row[i]) for row in main]
            assert len({len(cell.rpartition(".")[2]) for cell in seen if cell[-1:].isdigit()}) <= 1
    assert r"data 'toy\_data \& more'" in text
    assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == len(tables)
    assert text.count("{") == text.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(tables: list[Table], tmp_path: Path) -> None:
    odd = Table("100 % of $a_b^c {x}~\\#", "tab:odd", "n", ("½ <|>", '≥ ± "'), (("  − × …", (Cell("1"), Cell("–"))),))
    (tmp_path / "tables.tex").write_text(latex([*tables, odd]))
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{tables}\end{document}"
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout


@given(st.lists(names, min_size=2, max_size=2), names)
@settings(max_examples=200)
def test_any_name_survives_markdown(headings: list[str], name: str) -> None:
    table = Table("c", "l", "", tuple(headings), ((name.strip() or "x", (Cell("1"), Cell("2"))),))
    ((header, row),) = read_markdown(markdown([table]))
    assert header[1:] == [" ".join(text.split()) for text in headings]
    assert row[0] == " ".join((name.strip() or "x").split())


@pytest.mark.parametrize("name", [r"a\!b \( \\", "a|b", "&amp;", "<b>", "~~x~~", "[a](b)", "_a_ *b*", "`c`"])
def test_markup_in_names_is_text(name: str) -> None:
    ((_, row),) = read_markdown(markdown([Table("c", "l", "", ("h",), ((name, (Cell("1"),)),))]))
    assert row[0] == name
    assert escape_markdown("$x$") == r"\$x\$", "GitHub would set it as math"


@given(names)
@settings(max_examples=200)
def test_any_name_is_escaped_for_latex(name: str) -> None:
    commands = {r"\textbackslash{}": "\\", r"\&": "&", r"\%": "%", r"\$": "$", r"\#": "#", r"\_": "_", r"\{": "{"}
    commands |= {r"\}": "}", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<"}
    commands |= {r"\textgreater{}": ">", r"\textbar{}": "|"}
    text, back = escape_latex(name), ""
    while text:  # read it back with a table of what LaTeX prints for each command
        command = next((c for c in commands if text.startswith(c)), None)
        assert command or text[0] not in "\\&%#_{}~^", f"{text[0]} would be read as a command"
        if command is None and text[0] == "$":  # one of our own symbols, as math
            text = text[text.index("$", 1) + 1 :]
            back += "?"
            continue
        back += commands[command] if command else text[0]
        text = text[len(command) if command else 1 :]
    name = name.replace('"', "''")
    ours = str.maketrans(dict.fromkeys("±−×·≥≤ρ½⅓⅔¼¾⅛⅜⅝⅞", "?") | {"–": "--"})
    assert back.replace(r"\ldots{}", "…") == " ".join(name.split()).translate(ours) or "…" in name


def test_one_budget_is_a_table_over_added_images(frames: Any) -> None:
    frame = frames(budgets=(400,), ratios=(0.0, 0.05, 0.2), arms=("add",), tests=("pairs",))
    table = summary_tables(frame, [("pairs", "auroc")])[0]
    assert (table.over, table.columns) == ("images added", ("0", "20", "80"))
    assert [bool(str(cell)) for cell in table.rows[0][1]] == [True, False, False]
    assert "at n = 400" in table.caption


def test_escaping_keeps_one_line() -> None:
    assert escape_markdown("a\nb|c") == r"a b\|c"
    assert escape_latex("a\nb") == "a b"


def test_several_heads_stand_in_one_table(frames: Any) -> None:
    frame = frames(heads=("mlp", "linear"), ratios=(0.0, 0.5))
    (table,) = summary_tables(frame, [("pairs", "auroc")])
    own = ["  real only", "  pairs ½ (replace)", "    unpaired control"]
    assert [name for name, _ in table.rows] == ["mlp", *own, "linear", *own]
    assert all(str(cell) == "" for name, cells in table.rows if name in ("mlp", "linear") for cell in cells)
    assert "2 heads" in table.caption
    assert "\\quad \\quad unpaired control" in latex([table])
    assert "&nbsp;&nbsp;&nbsp;&nbsp;unpaired control" in markdown([table])
    (alone,) = summary_tables(frame[frame["control"] == "none"], [("pairs", "auroc")])
    assert [name for name, _ in alone.rows] == ["mlp", "linear"]
