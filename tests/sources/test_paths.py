"""Which files a pattern names: braces as the package braceexpand, folders, globs, URLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.errors import DataError
from guardtrain.sources.paths import brace_expand, file_key, files_named

braceexpand = pytest.importorskip("braceexpand").braceexpand

_text = st.text("ab/._-01", max_size=4)
_range = st.builds(  # short, as several of them multiply
    lambda first, step, width: f"{{{first:0{width}d}..{max(0, first + step):0{width}d}}}",
    st.integers(0, 120),
    st.integers(-3, 3),
    st.integers(1, 5),
)
_piece = st.recursive(
    st.one_of(_text, _range, st.sampled_from(["{a..d}", "{d..b}", "{1..9..3}", "{}", "{a}"])),
    lambda inner: st.lists(inner, min_size=2, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}"),
    max_leaves=5,
)


@given(st.lists(_piece, max_size=2).map("".join))
@settings(max_examples=60, deadline=None)
def test_braces_expand_as_the_package_does(pattern: str) -> None:
    assert brace_expand(pattern) == list(braceexpand(pattern))


def test_files_of_folders_globs_and_braces(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "deep/c.tar", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def named(pattern: str) -> list[str]:
        return [str(Path(file).relative_to(tmp_path)) for file in files_named(pattern, (".tar",), "tars")]

    assert named(str(tmp_path)) == ["a.tar", "b.tar", "deep/c.tar"]
    assert named(f"{tmp_path}/*.tar") == ["a.tar", "b.tar"]
    assert named(f"{tmp_path}/**/*.tar") == ["a.tar", "b.tar", "deep/c.tar"]
    assert named(f"{tmp_path}/{{b,a}}.tar") == ["b.tar", "a.tar"]
    assert named(f"{tmp_path}/deep/c.tar") == ["deep/c.tar"]
    with pytest.raises(DataError, match=r"There are no tars at .*/z\.tar\."):
        named(f"{tmp_path}/{{a,z}}.tar")
    with pytest.raises(DataError, match=r"There are no tars at .*/z\*\.tar\."):
        named(f"{tmp_path}/z*.tar")


def test_a_folder_without_any_says_which_endings_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There are no tars at .* \(endings looked for: \.tar\)"):
        files_named(str(tmp_path), (".tar",), "tars")


def test_shards_are_found_once_whatever_links_lead_to_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("set/0.tar", "set/1.TAR", "elsewhere/2.tar", "set/.3.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for link, to in (("round", "."), ("more", "../elsewhere"), ("again", "../elsewhere"), ("latest.tar", "1.TAR")):
        (tmp_path / "set" / link).symlink_to(to)
    names = [str(Path(file).relative_to(tmp_path)) for file in files_named(str(tmp_path / "set"), (".tar",), "tars")]
    assert names == ["set/0.tar", "set/1.TAR", "set/again/2.tar"]
    (line,) = caplog.messages
    assert line.startswith(f"the tars at {tmp_path}/set: passed over: 3 taken already by another path: ")
    assert f"{tmp_path}/set/latest.tar (is {tmp_path}/set/1.TAR)" in line
    of_a_glob = files_named(f"{tmp_path}/set/*.tar", (".tar",), "tars")
    assert [Path(file).name for file in of_a_glob] == [
        ".3.tar",
        "0.tar",
        "latest.tar",
    ]  # which the pattern leaves alone
    assert [Path(file).name for file in files_named(f"file://{tmp_path}/set", (".tar",), "tars")] == [
        "0.tar",
        "1.TAR",
        "2.tar",
    ]


def test_files_behind_urls_and_their_keys() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("b.tar", "a.tar"):
        memory.pipe(f"/paths/{name}", name.encode())
    assert files_named("memory://paths", (".tar",), "tars") == ["memory:///paths/a.tar", "memory:///paths/b.tar"]
    assert files_named("memory://paths/*.tar", (".tar",), "tars") == ["memory:///paths/a.tar", "memory:///paths/b.tar"]
    assert files_named("memory://paths/{b,a}.tar", (".tar",), "tars") == [
        "memory://paths/b.tar",
        "memory://paths/a.tar",
    ]
    before = file_key("memory://paths/a.tar", "tars")
    memory.pipe("/paths/a.tar", b"longer than it was")
    assert file_key("memory://paths/a.tar", "tars") != before
    with pytest.raises(DataError, match=r"There are no tars at memory://paths/z\.tar"):
        file_key("memory://paths/z.tar", "tars")
