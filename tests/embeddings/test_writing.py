"""Two writers, a full disk, a target that is read-only: an error that names the folder, and the store stays whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from guardtrain.embeddings import EmbeddingStore
from guardtrain.embeddings.build import build_store
from guardtrain.embeddings.verify import verify_store
from guardtrain.embeddings.writing import only_writer
from guardtrain.errors import StoreError
from tests.embeddings.test_store import noise, write

HOLD = """
import sys
from pathlib import Path
from guardtrain.embeddings.writing import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

# Files of more than 3,000 bytes cannot be written: what a full disk says, without filling one.
FULL = """
import resource, signal, sys
import numpy as np
from guardtrain.embeddings import EmbeddingStore
from guardtrain.embeddings.build import build_store
from guardtrain.errors import StoreError
store = EmbeddingStore.open(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
try:
    build_store(sys.argv[2], [store], np.arange(1, len(store)), "test")
except StoreError as error:
    print(error)
"""


def test_two_writers(tmp_path: Path) -> None:
    write(tmp_path / "a", noise(8), 4)
    store = EmbeddingStore.open(tmp_path / "a")
    out = tmp_path / "b"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=rf"Process {other.pid} on .* is writing to the store {out}\. Wait"):
            build_store(out, [store], np.arange(8), "test")
        other.kill()
    assert (out / ".writer").exists()  # it was killed
    assert len(build_store(out, [store], np.arange(8), "test")) == 8  # the lock went with its holder
    assert not (out / ".writer").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE as Linux has it")
def test_a_full_disk(tmp_path: Path) -> None:
    matrix = noise(40, 64)
    write(tmp_path / "a", matrix, 20)
    out = tmp_path / "b"
    command = [sys.executable, "-c", FULL, str(tmp_path / "a"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"The store {out} could not be written to:" in done.stdout
    assert "run the same command again: it goes on where it stopped" in done.stdout
    assert not list(out.rglob("*.tmp"))
    with pytest.raises(StoreError, match="is not complete"):
        EmbeddingStore.open(out)
    store = EmbeddingStore.open(tmp_path / "a")
    built = build_store(out, [store], np.arange(1, 40), "test")
    np.testing.assert_array_equal(built.matrix(), matrix[1:])
    assert verify_store(out).ok
    assert verify_store(tmp_path / "a").ok


def test_a_target_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreError, match=f"The store {out} could not be written to: "), only_writer(out):
            pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_target(tmp_path: Path) -> None:
    write(tmp_path / "a", noise(8), 4)
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(StoreError, match="could not be written to: Permission denied"):
        build_store(tmp_path / "locked" / "b", [EmbeddingStore.open(tmp_path / "a")], np.arange(8), "test")
