from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from guardtrain.guards.export import export_guard
from guardtrain.guards.guard import Guard
from guardtrain.guards.operating_points import OperatingPoint, ThreeWay
from guardtrain.guards.settings import CategorySettings, ReviewSettings
from tests.guards.toys import toy_guard, toy_run, toy_settings, toy_validation


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return toy_guard(
        tmp_path_factory.mktemp("card") / "guard",
        licence="apache-2.0",
        taxonomy="llavaguard",
        review=ReviewSettings(enabled=True),
        category_points=CategorySettings(enabled=True),
    ).guard


def test_the_hub_reads_its_front_matter(guard: Guard) -> None:
    card = ModelCard.load(guard.path / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "guardtrain"
    assert data["pipeline_tag"] == "image-classification"
    assert "image-safety" in data["tags"]
    assert "roc_auc" in data["metrics"]
    assert toy_settings().licence is None


def test_no_licence_is_other(tmp_path: Path) -> None:
    assert ModelCard.load(toy_guard(tmp_path / "guard").guard.path / "README.md").data.license == "other"


def test_all_that_decides_is_said(guard: Guard) -> None:
    text = (guard.path / "README.md").read_text()
    for point in guard.points.points:
        assert f"| {point.name} |" in text
        if isinstance(point, OperatingPoint):
            assert f"| {point.fpr} | {point.recall} | {point.precision} |" in text
            assert f"{point.threshold:.4g}" in text
        assert isinstance(point, OperatingPoint | ThreeWay)
        for warning in point.warnings:
            assert str(warning) in text
    assert any(point.warnings for point in guard.points.points)
    for name, point in guard.category_points.items():
        assert f"| {name} | {point.chosen_for} | {point.threshold:.4g} |" in text
    before, after = guard.calibration.before, guard.calibration.after
    assert f"| {before.ece} | {after.ece} |" in text
    assert f"| Brier score | {before.brier} | {after.brier} |" in text
    assert guard.spec.fingerprint in text
    assert "| real | cc-by-4.0 | open | https://example.org |" in text
    assert "| mixture | budget 40 |" in text
    assert "llavaguard: blood, fire" in text
    assert "400 validation images" in text
    assert "drawn images" in text
    assert "onnxruntime" not in text  # it has no head.onnx


def test_tables_hold_whatever_names_there_are(tmp_path: Path) -> None:
    run = toy_run()
    odd = replace(
        run,
        training={**run.training, "data": "a|b\nc"},
        tests=[{"test": "x|y", "n_test": 3, "n_unsafe": 1, "auroc": 0.51234, "average_precision": None, "f1": 1.0,
                "recall_at_fpr5": 0.0, "pair_both_right": None}],
        data={},
    )  # fmt: skip
    made = export_guard(tmp_path / "guard", odd, toy_validation(), toy_settings()).guard
    lines = (made.path / "README.md").read_text().splitlines()
    assert "| data | a\\|b c |" in lines
    assert "| x\\|y | 3 | 1 | 0.5123 | – | 1 | 0 | – |" in lines
    assert made.name == "a-b-c-linear"
    widths = {}
    for line in lines:  # every row of a table has as many cells as its head
        if not line.startswith("|"):
            widths = {}
            continue
        widths.setdefault("head", line.replace("\\|", "").count("|"))
        assert line.replace("\\|", "").count("|") == widths["head"], line


def test_validation_on_a_test_set_is_said(tmp_path: Path) -> None:
    validation = replace(toy_validation(), is_test=True)
    made = export_guard(tmp_path / "guard", toy_run(), validation, toy_settings()).guard
    assert "This is a test set" in (made.path / "README.md").read_text()


def test_categories_without_images_enough_are_named(tmp_path: Path) -> None:
    validation = toy_validation(60)
    names = validation.categories.copy()
    names[np.flatnonzero(validation.labels == 1)[0]] = "rare"
    lacking = replace(validation, categories=np.where(names == None, "other", names))  # noqa: E711
    made = export_guard(
        tmp_path / "guard", toy_run(), lacking, toy_settings(category_points=CategorySettings(enabled=True))
    )
    assert "rare" not in made.guard.category_points
    assert set(made.guard.category_points) == {"fire", "blood", "knife", "other"}
    assert (
        "Too few validation images for a threshold of their own: rare." in (made.guard.path / "README.md").read_text()
    )
