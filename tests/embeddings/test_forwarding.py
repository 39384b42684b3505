"""Forwarding: the same embeddings from the CPU's workers and from batches gathered for a device, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from guardtrain.embeddings import forwarding
from guardtrain.embeddings.forwarding import EmbeddedRows, Forwarder, processors, torch_threads
from guardtrain.embeddings.reading import make_reader
from tests.embeddings.fake_encoder import BatchedPictures, EncodedPictures, FakeEncoder, Pictures, expected

N = 50
SHARDS = [list(range(20)), list(range(20, 27)), [30, 31, 40], list(range(41, 50))]


def run(source: Any, encoder: FakeEncoder, on_cpu: bool, steps: list[int]) -> list[EmbeddedRows]:
    forwarder = Forwarder(make_reader(source, source.records(), encoder), encoder, 3)  # type: ignore[arg-type]
    forwarder.on_cpu = on_cpu
    return list(forwarder.run(SHARDS, steps.append))


@pytest.mark.parametrize("source", [Pictures, BatchedPictures, EncodedPictures])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_every_row_once_and_in_order(source: Any, on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_DECODED_AT_ONCE", 3)
    encoder, steps = FakeEncoder(8), []  # type: ignore[var-annotated]
    results = run(source(N), encoder, on_cpu, steps)
    assert [result.rows for result in results] == SHARDS
    for result, rows in zip(results, SHARDS, strict=True):
        np.testing.assert_allclose(result.matrix, expected(N)[rows], atol=1e-6)
    assert sum(steps) == sum(map(len, SHARDS))
    assert max(encoder.batches) <= 8
    assert sum(encoder.batches) == sum(map(len, SHARDS))
    assert len(encoder.batches) == (3 + 1 + 1 + 2 if on_cpu else 4 + 2 + 1 + 2)


@pytest.mark.parametrize("on_cpu", [True, False])
def test_failures_stay_with_their_shard(on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_DECODED_AT_ONCE", 2)
    damaged = {3: b"", 4: b"", 5: b"", 30: b"no", 31: b"no", 40: b"no", 49: b"x"}
    encoder, steps = FakeEncoder(4), []  # type: ignore[var-annotated]
    results = run(EncodedPictures(N, damaged=damaged), encoder, on_cpu, steps)
    assert [[f.row for f in result.failures] for result in results] == [[3, 4, 5], [], [30, 31, 40], [49]]
    assert results[2].matrix.shape == (0, 6)
    assert [len(result.digests) for result in results] == [17, 7, 0, 8]
    np.testing.assert_allclose(results[0].matrix, expected(N)[[*range(3), *range(6, 20)]], atol=1e-6)


def test_threads_are_set_and_given_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    forwarder = Forwarder(None, FakeEncoder(), None)  # type: ignore[arg-type]
    assert forwarder.workers * forwarder.threads <= processors()
