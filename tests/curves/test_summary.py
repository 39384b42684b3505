"""The summary in the terminal: right numbers, never wider than asked, plain where it must be."""

from __future__ import annotations

import io
import re
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from guardtrain.curves.comparisons import comparisons
from guardtrain.curves.statistics import number_text, summarise
from guardtrain.curves.summary import print_summary, run_text, slices_text, summary_text
from guardtrain.errors import DataError

EIGHT = (16, 32, 64, 128, 256, 512, 1024, 2048)


def block(text: str, title: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(title))


def test_cells_are_the_summary(frames: Any) -> None:
    frame = frames()
    lines = block(summary_text(frame), "AUROC on 'pairs'").splitlines()
    assert lines[0] == "AUROC on 'pairs' · linear head · 200 images, 100 pairs · 4 seeds"
    assert lines[1].split() == ["budget", "n", "(images)", "16", "64", "256"]
    names = ["real only", "pairs ½ (replace)", "  unpaired control", "pairs only", "  unpaired control"]
    assert [line[2:20].rstrip() for line in lines[3:8]] == names
    points = summarise(frame[frame["test"] == "pairs"], "auroc").sort_values(["ratio", "control", "budget"])
    cells = re.findall(r"\S+±\S+", "\n".join(lines[3:8]))
    expected = [
        f"{number_text(p['mean'])}±{number_text(p['half_width'])}"
        for ratio in (0, 0.5, 1)
        for p in points[points["ratio"] == ratio].to_dict("records")
    ]
    assert cells == expected


def test_pairs_stand_against_their_control_along_the_curve(frames: Any) -> None:
    frame = frames()
    frame = frame[(frame["control"] != "unpaired") | (frame["budget"] < 256)]
    text = block(summary_text(frame), "AUROC on 'pairs'")
    one = next(c for c in comparisons(frame, [("pairs", "auroc")]) if c.kind == "unpaired")
    assert one.budgets == (16, 64), "those that both have"
    assert "matched by seed, at every n" in text
    assert f"pairs ½ (replace) − unpaired ½ (control) {one.told()}" in " ".join(text.split())


def test_verdicts_follow_the_interval_and_the_metric(frames: Any) -> None:
    frame = frames(controls=("paired", "real"), arms=("add",))
    assert "better at every n, most +" in block(summary_text(frame, [("pairs", "auroc")]), "AUROC")
    assert "better at every n, most −" in block(summary_text(frame, [("pairs", "brier")]), "Brier"), (
        "a lower Brier score is better"
    )
    assert "no difference shown" in block(summary_text(frame, [("contexts", "auroc")]), "AUROC")
    assert "(no interval)" in summary_text(frames(seeds=1))


def test_shortcut_line(frames: Any) -> None:
    text = block(summary_text(frames()), "Shortcut check")
    assert re.search(
        r"Real only at n = 256 has AUROC .970±.000 on 'contexts', and gets both\s+sides right of \.3", text
    )
    assert "Shortcut" not in summary_text(frames(tests=("pairs",)))
    two = frames(tests=("pairs", "wild"))
    assert "Shortcut" not in summary_text(two), "which test set shares the contexts cannot be guessed"
    assert "on 'wild'" in block(summary_text(two, in_domain="wild"), "Shortcut check")


def test_a_shortcut_line_that_rests_on_a_guess_says_so(frames: Any) -> None:
    guessed = block(summary_text(frames()), "Shortcut check")
    assert "If 'contexts' is not of the real pool's kind" in guessed and "plot.in_domain=''" in guessed
    for frame, settings in (
        (frames(), {"in_domain": "contexts"}),
        (frames().replace({"test": {"contexts": "in_domain"}}), {}),
    ):
        told = block(summary_text(frame, **settings), "Shortcut check")
        assert "has AUROC .970±.000" in told and "plot.in_domain" not in told
    assert "Shortcut" not in summary_text(frames(), in_domain="")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_line_is_wider_than_asked(frames: Any, width: int) -> None:
    frame = frames(budgets=EIGHT, arms=("replace", "add"), controls=("paired", "unpaired", "real"))
    lines = summary_text(frame, width=width).splitlines()
    assert max(map(len, lines)) <= width
    header = next(line for line in lines if line.startswith("  budget n (images)"))
    assert header.split()[-1] == "2,048"


def test_columns_that_do_not_fit_are_named(frames: Any) -> None:
    frame = frames(budgets=EIGHT)
    assert "not shown" not in summary_text(frame, width=100), "the standard grid fits a log of 100 columns"
    text = block(summary_text(frame, width=70), "AUROC on 'pairs'")
    shown = next(line for line in text.splitlines() if "budget n (images)" in line).split()[3:]
    hidden = re.search(r"not shown: ([\d, ]+)\.", text)
    assert hidden is not None
    assert shown[0] == "16"
    assert sorted(int(t.replace(",", "")) for t in shown + hidden[1].split()) == list(EIGHT)


def test_one_budget_is_a_table_over_added_images(frames: Any) -> None:
    frame = frames(budgets=(400,), ratios=(0.0, 0.05, 0.2), arms=("add",), tests=("pairs",))
    lines = block(summary_text(frame), "AUROC").splitlines()
    assert lines[1].split() == ["images", "added", "0", "20", "80"]
    assert len(re.findall("±", lines[3])) == 1, "real alone stands at 0"
    assert len(re.findall("±", lines[4])) == 2
    assert any(line.strip().startswith("20 images: pairs (add) − unpaired (control)") for line in lines)


def test_ascii_only_where_asked(frames: Any) -> None:
    frame = frames(budgets=EIGHT, ratios=(0.0, 0.125, 0.25, 1 / 3))
    assert summary_text(frame, width=60, plain=True).isascii()


def test_print_to_a_log_and_to_ascii(frames: Any) -> None:
    frame = frames(budgets=EIGHT)
    log = io.StringIO()
    print_summary(frame, console=Console(file=log, width=80))
    assert log.getvalue() == summary_text(frame, width=100), "a log gets 100 columns and no escape codes"
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_summary(frame, console=Console(file=stream))
    stream.flush()
    assert b"1/2" in raw.getvalue()


def test_brackets_in_names_are_not_markup(frames: Any) -> None:
    frame = frames(tests=("[bold]pairs",))
    log = io.StringIO()
    print_summary(frame, console=Console(file=log))
    assert "'[bold]pairs'" in log.getvalue()


def test_undefined_and_unknown_panels(frames: Any) -> None:
    frame = frames()
    text = summary_text(frame, [("contexts", "pair_both_right"), ("pairs", "auroc")])
    assert "on 'contexts': no values." in text
    assert "no complete pairs" in text
    with pytest.raises(DataError, match="Unknown test set 'wild'; the results have: contexts, pairs"):
        summary_text(frame, [("wild", "auroc")])
    with pytest.raises(DataError, match="Unknown metric"):
        summary_text(frame, [("pairs", "auc")])
    with pytest.raises(DataError, match="empty"):
        summary_text(frame.iloc[:0])


def test_a_single_run(frames: Any) -> None:
    frame = frames()
    one = frame[frame["run"] == frame["run"].iloc[0]]
    lines = run_text(one).splitlines()
    assert lines[0].split() == ["test", "set", "contexts", "pairs"]
    row = next(line for line in lines if "both sides right" in line)
    assert row.split()[-2:] == ["–", number_text(one.query("test == 'pairs'")["pair_both_right"].iloc[0])]
    with pytest.raises(DataError, match="one run"):
        run_text(frame)


def test_slices_of_a_run_are_its_rows(frames: Any) -> None:
    frame = frames()
    one = frame[frame["run"] == frame["run"].iloc[0]]
    assert slices_text(one[one["slice_kind"] == "all"]) == ""
    parts = [
        one[one["slice_kind"] == "all"].assign(slice_kind="category", slice=name, auroc=value)
        for name, value in (("weapons", 0.5), ("smoke", 0.75))
    ]
    lines = slices_text(pd.concat([one, *parts])).splitlines()
    assert lines[0].split()[:3] == ["AUROC", "by", "category"]
    assert lines[2].split() == ["weapons", ".500", ".500"]
    assert lines[3].split() == ["smoke", ".750", ".750"]


def test_several_heads_stand_below_each_other_in_one_table(frames: Any) -> None:
    frame = frames(heads=("mlp", "linear"), controls=("paired", "unpaired"), ratios=(0.0, 0.5))
    text = summary_text(frame)
    lines = block(text, "AUROC on 'pairs'").splitlines()
    assert lines[0] == "AUROC on 'pairs' · 2 heads · 200 images, 100 pairs · 4 seeds"
    own = ["  real only", "  pairs ½ (replace)"]  # controls are told below, and in the decomposition
    assert [line[2:22].rstrip() for line in lines[3:9]] == ["mlp", *own, "linear", *own], "in the table's order"
    for head, row in (("mlp", lines[5]), ("linear", lines[8])):
        of_head = frame[(frame["head"] == head) & (frame["test"] == "pairs") & (frame["control"] == "paired")]
        means = summarise(of_head, "auroc").sort_values("budget")["mean"]
        assert re.findall(r"(\S+)±", row) == [number_text(mean) for mean in means]
    assert lines[10].strip() == "mlp"
    assert "pairs ½ (replace) − best real-only head" in lines[11]
    assert "Best real-only head: " in text
    shortcut = block(text, "Shortcut check · 2 heads")
    assert "  mlp: real only at n = 256" in shortcut
    assert "  linear: real only at n = 256" in shortcut


def test_heads_with_real_data_alone_are_a_row_each(frames: Any) -> None:
    frame = frames(heads=("mlp", "linear", "knn"), ratios=(0.0,))
    lines = block(summary_text(frame), "AUROC on 'pairs' · 3 heads").splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["mlp", "linear", "knn"]
    assert "real only" not in "\n".join(lines)
