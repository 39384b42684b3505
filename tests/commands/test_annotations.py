"""Other people's annotations: each line of the table in pages/data.md reads what it says, what is unclear is pasted."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from guardtrain.commands.arguments import with_plain_keys
from guardtrain.commands.benchmark_data import data_sets
from guardtrain.commands.data import read_labels, setting_of, settings_told
from guardtrain.commands.unmentioned import accepted
from guardtrain.config import EmbedConfig, conf_dir, register_schemas
from guardtrain.config_checks import build, typed
from guardtrain.errors import DataError
from tests.commands.test_told_labels import benchmark, pasted
from tests.conftest import ROOT
from tests.sources.tiny import hub_image, png, shade, write_hub_parquet


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


PAGE = (ROOT / "docs" / "pages" / "data.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| .* \| `(guardtrain embed .*)` \|$", PAGE, re.M)
SAID = "source: 4 labels, unsafe: {} (2), safe: {} (2)"


def _images(folder: str, names: list[str]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Path(folder, name).write_bytes(png(50 * k))


NAMES = [f"{k}.png" for k in range(4)]


def _labels_csv() -> tuple[str, str]:
    _images("x", NAMES)
    Path("labels.csv").write_text("image,label\n" + "".join(f"x/{name},{k % 2}\n" for k, name in enumerate(NAMES)))
    return "1", "0"


def _classes_csv() -> tuple[str, str]:
    _images(".", NAMES)
    rows = "".join(f"{name}; {1 - k % 2}; {k % 2}\r\n" for k, name in enumerate(NAMES))
    Path("_classes.csv").write_bytes(f"filename; safe; unsafe\r\n{rows};;\r\n".encode("utf-16"))
    return "1", "0"


def _train_jsonl() -> tuple[str, str]:
    _images("img", NAMES)
    rows = [
        {"id": 42953 + k, "img": f"img/{name}", "label": k % 2, "text": "a caption"} for k, name in enumerate(NAMES)
    ]
    Path("train.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, rows)), encoding="utf-8")
    return "1", "0"


def _train_json() -> tuple[str, str]:
    _images("images", NAMES)
    rows = [
        {"id": f"smid_{k}", "image": f"/repos/smid/img/{name}", "category": "O2: Violence",
         "score": ["Generally Acceptable", "Highly Unsafe"][k % 2], "conversations": [{"from": "human", "value": "?"}]}
        for k, name in enumerate(NAMES)
    ]  # fmt: skip
    Path("train.json").write_text(json.dumps(rows, indent=4))
    return "'Highly Unsafe'", "'Generally Acceptable'"


def _export_json() -> tuple[str, str]:
    _images("media/upload/1", NAMES)
    tasks = [
        {"id": k, "data": {"image": f"/data/upload/1/{name}"},
         "annotations": [{"result": [{"value": {"choices": [["Safe", "Unsafe"][k % 2]]}, "from_name": "choice",
                                      "to_name": "image", "type": "choices"}]}]}
        for k, name in enumerate(NAMES)
    ]  # fmt: skip
    Path("export.json").write_text(json.dumps(tasks))
    return "'Unsafe'", "'Safe'"


def _coco_json() -> tuple[str, str]:
    _images(".", NAMES)
    value = {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(NAMES)],
        "categories": [{"id": 1, "name": "gun"}, {"id": 2, "name": "person"}],
        "annotations": [{"image_id": k, "category_id": c} for k, c in ((0, 2), (1, 1), (3, 1), (3, 2))],
    }
    Path("_annotations.coco.json").write_text(json.dumps(value))
    return "true", "false"


CELLS = {"image": [hub_image(50 * k, f"{k}.png") for k in range(4)], "label": [0, 1, 0, 1]}


def _saved() -> tuple[str, str]:
    datasets = pytest.importorskip("datasets")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["unsafe", "safe"])}
    datasets.Dataset.from_dict(CELLS, features=datasets.Features(kinds)).save_to_disk("saved")
    return "'unsafe'", "'safe'"


def _train_parquet() -> tuple[str, str]:
    write_hub_parquet(Path("train.parquet"), CELLS, {"label": ["unsafe", "safe"]})
    return "'unsafe'", "'safe'"


MADE = [_labels_csv, _classes_csv, _train_jsonl, _train_json, _export_json, _coco_json, _saved, _train_parquet]


def source_of(*arguments: str) -> Any:
    """The source that `guardtrain embed` makes of these arguments."""
    overrides = with_plain_keys(arguments)
    register_schemas()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        while True:
            try:
                return build(typed(compose("embed", overrides), EmbedConfig).source, "source")
            except HydraException as error:
                overrides = accepted("embed", overrides, error) or []
                assert overrides, error


def told(*arguments: str) -> str:
    """What is said of the source's labels, or of what is unclear; its images are there, or are what is unclear."""
    said: list[str] = []
    try:
        source = source_of(*arguments)
        records = read_labels(source, "source", said.append)
        with settings_told(setting_of("source")):
            source.content_key()
        assert sorted(shade(source.image(i)) for i in range(len(records))) == [0, 50, 100, 150]
    except DataError as error:
        return str(error)
    return said[0]


def test_every_line_has_its_files() -> None:
    assert len(LINES) == len(MADE)


@pytest.mark.parametrize(("line", "make"), list(zip(LINES, MADE, strict=False)), ids=[make.__name__ for make in MADE])
def test_each_line_of_the_readme_reads_its_layout(line: str, make: Callable[[], tuple[str, str]]) -> None:
    unsafe, safe = make()
    program, command, *arguments = shlex.split(line)
    assert (program, command) == ("guardtrain", "embed")
    assert told(*arguments) == SAID.format(unsafe, safe)


def _gone_images() -> None:
    _labels_csv()
    text = Path("labels.csv").read_text()
    Path("labels.csv").write_text(text.replace("x/", "/home/else/x/"))


def _renamed_columns() -> None:
    _labels_csv()
    Path("labels.csv").write_text(Path("labels.csv").read_text().replace("image,label", "file,verdict"))


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (_gone_images, "source=manifest source.path=labels.csv"),
        (_renamed_columns, "source=manifest source.path=labels.csv"),
        (_train_parquet, "source=manifest source.path=train.parquet"),
        (_saved, "source=manifest source.path=saved"),
        (_saved, "source=parquet_images source.path=saved"),
        (_saved, "source=manifest source.path=saved/data-00000-of-00001.arrow"),
    ],
)
def test_what_is_unclear_is_read_with_the_line_that_is_printed(make: Callable[[], Any], given: str) -> None:
    make()
    arguments = shlex.split(given)
    for _ in range(2):  # one line may lead to the next
        arguments.append(pasted(told(*arguments))[0])
        if (said := told(*arguments)).startswith("source: 4 labels"):
            return
    raise AssertionError(said)


def test_a_saved_folder_where_folders_of_images_are_read() -> None:
    _saved()
    said = told("source=image_folder", "source.root=saved")
    assert "It is read with source=hugging_face source.path=saved, as a pool" in said
    assert "4 labels" in told("source=hugging_face", "source.path=saved")


def test_quotes_around_a_mappings_keys() -> None:
    _images(".", NAMES)
    Path("t.csv").write_text("image,label\n" + "".join(f"{name},{k % 2}.0\n" for k, name in enumerate(NAMES)))
    table = ["source=manifest", "source.path=t.csv"]
    assert told(*table, """source.labels={'0.0': 1, "1": 0}""") == SAID.format("0.0", "1.0")
    nested = told(*table, "+source.labels.0.0=0", "+source.labels.1.0=1")
    assert pasted(nested) == ["source.labels={0.0: 0, 1.0: 1}"]
    Path("t.csv").write_text("image,label\n0.png,true\n1.png,1\n2.png,false\n3.png,maybe\n")
    (*_, last) = pasted(told(*table))
    assert "unsafe: 1 (1), safe: 'maybe' (1), false (1), true (1)" in told(*table, last.replace(" 1: 0", " 1: 1"))


@pytest.mark.parametrize("make", [_gone_images, _renamed_columns, _train_parquet])
def test_benchmarks_paste_the_whole_of_data(make: Callable[[], Any]) -> None:
    make()
    given: Any = {"mine": "train.parquet" if make is _train_parquet else "labels.csv"}
    with pytest.raises(DataError) as caught:
        data_sets(benchmark(given))
    given = OverridesParser.create().parse_override(pasted(str(caught.value))[0]).value()
    (found,) = data_sets(benchmark(given))
    assert found.name == "mine"
    assert found.records.labels.tolist() == ([1, 0, 1, 0] if make is _train_parquet else [0, 1, 0, 1])
    assert sorted(shade(found.source.image(i)) for i in range(4)) == [0, 50, 100, 150]


def test_benchmarks_know_folders_of_datasets_and_json() -> None:
    _saved()
    _coco_json()
    Path("rows.json").write_text(json.dumps([{"image": name, "label": k % 2} for k, name in enumerate(NAMES)]))
    saved, rows = data_sets(benchmark(["saved", "rows.json"]))
    assert (saved.name, saved.records.labels.tolist()) == ("saved", [1, 0, 1, 0])
    assert (rows.name, rows.records.labels.tolist()) == ("rows", [0, 1, 0, 1])
