"""The results table: one test for each way rows could be lost, doubled or made up."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardtrain.curves.results import METRICS, RESULTS_SCHEMA, ResultRow, ResultsTable, run_key
from guardtrain.errors import ConfigError, DataError

ROW = ResultRow(
    run="00000000000000aa",
    head="linear",
    arm="replace",
    control="paired",
    budget=64,
    ratio=0.5,
    n_real=32,
    n_pair_images=32,
    n_images=64,
    seed=0,
    test="pairs",
    n_test=100,
    n_unsafe=50,
    n_pairs=50,
    auroc=0.75,
    lr=0.1,
    l2=0.01,
    steps=100,
    seconds=0.5,
    encoder="abc",
    data="scenes",
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
settings = st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=3), min_size=1, max_size=6)


def row(number: int, **changes: Any) -> ResultRow:
    return replace(ROW, run=f"{number:016x}", **changes)


@given(settings)
def test_run_key_ignores_order(values: dict[str, Any]) -> None:
    turned = dict(reversed(list(values.items())))
    assert run_key(values) == run_key(turned)
    assert len(run_key(values)) == 16
    assert set(run_key(values)) <= set("0123456789abcdef")


@given(settings, st.data())
def test_run_key_depends_on_each_value(values: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(values)))
    other = data.draw(scalars.filter(lambda v: repr(v) != repr(values[name])))
    assert run_key({**values, name: other}) != run_key(values)
    assert run_key({k: v for k, v in values.items() if k != name}) != run_key(values)


def test_run_key_tells_types_apart_and_reads_numpy() -> None:
    assert len({run_key({"a": v}) for v in (1, 1.0, True, "1", None, [1])}) == 6
    assert run_key({"a": np.float64(0.1), "b": np.int64(3)}) == run_key({"a": 0.1, "b": 3})
    assert run_key({"a": {"b": (1, 2)}}) == run_key({"a": {"b": [1, 2]}})


def test_run_key_is_the_same_in_every_version() -> None:
    # A changed key would run every finished grid again.
    assert (
        run_key({"head": "linear", "budget": 64, "lr": 0.1}) == "2b341471bc8185ff"
    )  # sha256sum of {"budget":64,"head":"linear","lr":0.1}


@pytest.mark.parametrize(
    ("values", "message"),
    [({"a": float("nan")}, "settings.a is NaN"), ({"a": {"b": {1}}}, "settings.a.b is a set"), ({1: 2}, "strings")],
)
def test_run_key_refuses_what_it_cannot_hash(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_key(values)


def test_schema_follows_the_row_and_only_metrics_are_nullable() -> None:
    assert RESULTS_SCHEMA.names == [f.name for f in fields(ResultRow)]
    assert {f.name for f in RESULTS_SCHEMA if f.nullable} == set(METRICS)


def test_rows_come_back_as_they_went(tmp_path: Path) -> None:
    table = ResultsTable(tmp_path / "deep" / "results.parquet")
    assert table.read().empty
    assert list(table.read().columns) == RESULTS_SCHEMA.names
    assert table.append([row(1), row(2, auroc=float("nan"), pair_margin=-0.5)]) == 2
    frame = table.read()
    assert frame["auroc"].iloc[0] == 0.75
    assert np.isnan(frame["auroc"].iloc[1])
    assert pq.read_table(table.path)["auroc"].null_count == 1, "NaN is kept as null, one word for undefined"
    assert frame["pair_margin"].iloc[1] == -0.5
    assert table.done() == {row(1).run, row(2).run}


def test_a_table_or_frame_can_be_appended(tmp_path: Path) -> None:
    first, second = ResultsTable(tmp_path / "a.parquet"), ResultsTable(tmp_path / "b.parquet")
    first.append([row(1), row(2)])
    assert second.append(first.read()) == 2
    assert second.append(pq.read_table(first.path)) == 0
    assert second.read().equals(first.read())


def test_the_first_of_equal_rows_stays(tmp_path: Path) -> None:
    table = ResultsTable(tmp_path / "results.parquet")
    assert table.append([row(1), row(1, auroc=0.1)]) == 1
    assert table.append([row(1, auroc=0.2), row(1, slice_kind="category", slice="O1"), row(1, test="other")]) == 2
    assert table.read()["auroc"].iloc[0] == 0.75


def test_done_can_ask_for_every_test_set(tmp_path: Path) -> None:
    table = ResultsTable(tmp_path / "results.parquet")
    table.append([row(1), row(1, test="other"), row(2)])
    assert table.done(["pairs"]) == {row(1).run, row(2).run}
    assert table.done(["pairs", "other"]) == {row(1).run}
    assert table.done(["unseen"]) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arm": "both"}, "'arm'.*'both'.*replace, add"),
        ({"control": "none"}, "ratio 0.5 and control 'none'"),
        ({"ratio": 0.0}, "ratio 0 and control 'paired'"),
        ({"slice_kind": "group"}, "'slice_kind'"),
        ({"budget": None}, "'budget'.*1 empty"),
        ({"seed": "zero"}, "'seed'.*int64"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_written(tmp_path: Path, changes: Any, message: str) -> None:
    table = ResultsTable(tmp_path / "results.parquet")
    with pytest.raises(DataError, match=message):
        table.append([row(1, **changes)])
    assert not table.path.exists()


def test_missing_and_unknown_columns_are_named(tmp_path: Path) -> None:
    table = ResultsTable(tmp_path / "results.parquet")
    with pytest.raises(DataError, match=r"lacks head, .*has unknown colour"):
        table.append(pa.table({"run": ["a"], "colour": ["red"]}))
    pq.write_table(pa.table({"run": ["a"]}), table.path)
    for use in (table.read, table.done, lambda: table.append([row(1)])):
        with pytest.raises(DataError, match=r"results.parquet is not a results table: it lacks head"):
            use()


def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    table = ResultsTable(tmp_path / "results.parquet")
    table.append([row(i) for i in range(50)])
    whole = table.path.read_bytes()
    table.path.write_bytes(whole[: len(whole) // 2])
    for use in (table.read, lambda: table.append([row(99)])):
        with pytest.raises(DataError, match="cannot be read"):
            use()
    assert table.path.read_bytes() == whole[: len(whole) // 2]


APPENDER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_results import ResultsTable, row
    table = ResultsTable(Path({folder!r}) / "results.parquet")
    print("ready", flush=True)
"""


def start(folder: Path, body: str) -> subprocess.Popen[str]:
    head = textwrap.dedent(APPENDER.format(tests=str(Path(__file__).parent), folder=str(folder)))
    return subprocess.Popen([sys.executable, "-c", head + textwrap.dedent(body)], stdout=subprocess.PIPE, text=True)


def killed(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_while_writing_leaves_the_old_table(tmp_path: Path, moment: str) -> None:
    table = ResultsTable(tmp_path / "results.parquet")
    table.append([row(0)])
    holder = {"fsync": "os", "replace": "Path"}[moment]
    child = start(
        tmp_path,
        f"""
        import os, time
        def stop(*_):
            print("inside", flush=True)
            time.sleep(60)
        {holder}.{moment} = stop
        table.append([row(i) for i in range(1, 100)])
        """,
    )
    assert child.stdout is not None
    assert [child.stdout.readline().strip() for _ in range(2)] == ["ready", "inside"]
    assert len(list(tmp_path.glob(".results*.tmp"))) == 1, "the child was not writing beside the table"
    killed(child)
    assert table.done() == {row(0).run}
    assert table.append([row(1)]) == 1, "the lock of a killed process must not block"
    assert table.done() == {row(0).run, row(1).run}
    assert not list(tmp_path.glob(".results*.tmp")), "stale temporary files are removed"


def test_killed_at_any_moment_keeps_every_acknowledged_row(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        """
        for i in range(100_000):
            table.append([row(i), row(i, test="other")])
            print(i, flush=True)
        """,
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "ready"
    acknowledged = [int(child.stdout.readline()) for _ in range(20)]
    killed(child)
    acknowledged += [int(line) for line in child.stdout.read().split()]
    frame = ResultsTable(tmp_path / "results.parquet").read()
    assert len(acknowledged) <= frame["run"].nunique() <= len(acknowledged) + 1
    assert (frame.groupby("run").size() == 2).all(), "a run's rows are there together or not at all"


def test_two_processes_append_at_once_and_lose_nothing(tmp_path: Path) -> None:
    children = [
        start(tmp_path, f"for i in range({first}, {first} + 25): table.append([row(i)])") for first in (0, 1000)
    ]
    for child in children:
        assert child.wait(60) == 0
    assert ResultsTable(tmp_path / "results.parquet").done() == {
        row(i).run for first in (0, 1000) for i in range(first, first + 25)
    }
