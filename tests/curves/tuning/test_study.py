"""A study that processes are killed in, and that several work on, has the trials of one that nobody disturbed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from guardtrain.curves.tuning.space import read_space
from guardtrain.curves.tuning.study import Search, Trial
from guardtrain.errors import ConfigError, DataError

SPACE = {"loss.l2": {"low": 1e-3, "high": 1e3, "log": True}, "optimizer.lr": {"low": 0.1, "high": 1.0}}
TRIALS = 8


def _search(folder: Path, sampler: str = "tpe", about: str = "a", seed: int = 3) -> Search:
    space = read_space({name: {**node, "points": 2} for name, node in SPACE.items()})
    return Search(folder, space, sampler=sampler, seed=seed, minimise=True, about={"settings": about})


def _finish(search: Search) -> None:
    while asked := search.ask(3, TRIALS):
        told = [(t, (float(t.values["loss.l2"] or 0) - 2) ** 2 + float(t.values["optimizer.lr"] or 0)) for t in asked]
        search.tell([Trial(t.number, t.values, score, [[score]], [score]) for t, score in told])


def _points(search: Search) -> list[tuple[object, ...]]:
    return sorted((*trial.values.values(), trial.score) for trial in search.read())


def _process(code: str, folder: Path) -> subprocess.Popen[bytes]:
    imports = "from pathlib import Path; from tests.curves.tuning import test_study as t; "
    start = f"{imports}s = t._search(Path({str(folder)!r})); "
    return subprocess.Popen([sys.executable, "-c", start + code], stdout=subprocess.PIPE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    with _search(tmp_path_factory.mktemp("undisturbed")) as search:
        _finish(search)
        return _points(search)


def test_trials_of_a_killed_process_are_asked_for_again(tmp_path: Path, undisturbed: list[tuple[object, ...]]) -> None:
    code = "print([t.values for t in s.ask(3, 8)], flush=True); import os; os.kill(os.getpid(), 9)"
    killed = _process(code, tmp_path)
    printed = killed.communicate()[0].decode().strip()
    assert killed.returncode == -9
    with _search(tmp_path, seed=99) as search:  # a sampler that would draw others; and it does not finish either
        assert str([trial.values for trial in search.ask(3, TRIALS)]) == printed
    with _search(tmp_path) as search:
        assert search.read() == []
        _finish(search)
        assert _points(search) == undisturbed
        assert search.under_way() == 0
        assert search.ask(3, TRIALS) == []
        assert len(search.ask(3, TRIALS + 2)) == 2  # more may be asked for later


def test_processes_at_once_share_the_trials(tmp_path: Path) -> None:
    others = [_process("t._finish(s)", tmp_path) for _ in range(2)]
    with _search(tmp_path) as search:
        _finish(search)
        assert [other.wait() for other in others] == [0, 0]
        trials = search.read()
    assert len(trials) == TRIALS
    assert len({tuple(trial.values.items()) for trial in trials}) == TRIALS


def test_a_grid_is_searched_whole_and_no_more(tmp_path: Path) -> None:
    with _search(tmp_path, "grid") as search:
        asked = [search.ask(3, 100), search.ask(3, 100)]
        assert list(map(len, asked)) == [3, 1]
        values = {tuple(trial.values.values()) for part in asked for trial in part}
    assert values == {(0.001, 0.1), (0.001, 1.0), (1000.0, 0.1), (1000.0, 1.0)}


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda folder: _search(folder, about="b").__exit__(), ConfigError, "differs in settings"),
        (lambda folder: (folder / "study.db").write_text("no database"), DataError, "is no study"),
    ],
)
def test_another_search_and_a_damaged_file_are_refused(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    spoil(tmp_path)
    with pytest.raises(error, match=message):
        _search(tmp_path)


def test_a_search_judged_on_other_validation_images_is_another(tmp_path: Path) -> None:
    """An older study says nothing of them: it goes on, and from then on they are those that it found."""

    space = read_space(SPACE)

    def search(**about: str) -> Search:
        return Search(tmp_path, space, sampler="random", seed=0, minimise=False, about={"settings": "a", **about})

    with search():
        pass
    for _ in range(2):
        with search(validation="x"):
            pass
    for about in ({"validation": "y"}, {}):
        with pytest.raises(ConfigError, match="differs in validation"):
            search(**about)


def test_what_each_seed_scored_is_kept_and_of_older_studies_is_the_mean_of_its_folds(tmp_path: Path) -> None:
    import optuna

    with _search(tmp_path) as search:
        (trial,) = search.ask(1, 1)
        search.tell([Trial(trial.number, trial.values, 2.5, [[1.0, 5.0], [2.0, float("nan")]], [3.0, 2.0])])
        (kept,) = search._study.get_trials()
        older = {name: value for name, value in kept.user_attrs.items() if name != "by_seed"}
        search._study.add_trial(
            optuna.create_trial(params=kept.params, distributions=kept.distributions, value=2.6, user_attrs=older)
        )
        assert [found.by_seed for found in search.read()] == [[3.0, 2.0], [3.0, 2.0]]
        search._study.add_trial(
            optuna.create_trial(
                params=kept.params,
                distributions=kept.distributions,
                value=2.7,
                user_attrs=older | {"scores": [[1.0, 2.0], [4.0, None]]},
            )
        )
        assert search.read()[2].by_seed == [1.5, 4.0]


def test_failures_with_a_reason_are_kept_and_count(tmp_path: Path) -> None:
    with _search(tmp_path) as search:
        (trial,) = search.ask(1, 1)
        search.tell([Trial(trial.number, trial.values, reason="a head is not finite")])
        assert [(t.score, t.reason) for t in search.read()] == [(None, "a head is not finite")]
        assert search.ask(1, 1) == []
