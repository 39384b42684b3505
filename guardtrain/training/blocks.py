"""MLP heads trained on the CPU a few at a time, for many steps while their state is in the cache, a thread a block."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from guardtrain.heads import MLPBank
from guardtrain.heads.mlp_block import Buffers, MLPBlock
from guardtrain.heads.products import fast_float32_products
from guardtrain.training.batches import IndexStream, RowNoise, RunPlan, pairs_a_step
from guardtrain.training.datamodule import EmbeddingDataModule
from guardtrain.training.losses import contrastive_terms, pair_slopes, pair_terms, weighted_bce
from guardtrain.training.optimizer import BankAdamW

BLOCK_BYTES = 8 * 2**20  # of what a step of a block reads and writes: a thread's share of a processor's cache


class BlockwiseSteps:
    """Takes steps of AdamW for all heads of an MLP bank, for one block of them after the other.

    A step of a whole bank passes over parameters, gradients and moments of all its heads, which no cache holds; here a
    block of a few heads takes all steps that are asked for before the next one takes its first. As many blocks are
    trained at once as torch has threads, one thread each, so that no product waits for another thread.

    Args:
        bank: the heads, float32, on the CPU; heads with batches of one shape are neighbours.
        optimizer: has the settings and moments; its steps are taken here, but not counted.
        data: the images of each head.
        noise: what is added to the rows of a step.
    """

    def __init__(
        self, bank: MLPBank, optimizer: BankAdamW, data: EmbeddingDataModule, noise: RowNoise | None = None
    ) -> None:
        self.bank, self.optimizer, self.data, self.noise = bank, optimizer, data, noise
        self._heads = [HeadRows(data, r, float(scale)) for r, scale in enumerate(bank.input_scale)]
        self._blocks = self._cut()
        self._idle: list[Buffers] = []

    def _cut(self) -> list[slice]:
        """The blocks: neighbours of one shape that fit into the cache together, those with the most work first."""
        blocks: list[slice] = []
        start = 0
        for (images, halves), same in itertools.groupby(self._heads, key=lambda head: (head.images, head.halves)):
            stop = start + len(list(same))
            widths = [bias.shape[1] for bias in self.bank.biases]
            state = 4 * sum(p[0].numel() for p in self.bank.parameters())
            rows = (images + 2 * halves) * self.bank.dim + (3 * images + 5 * halves) * sum(widths)
            most = max(1, BLOCK_BYTES // (4 * (state + rows)))
            parts = np.array_split(np.arange(start, stop), -(-(stop - start) // most))
            blocks += [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
            start = stop
        rows_of = [head.images + head.halves for head in self._heads]
        return sorted(blocks, key=lambda block: sum(rows_of[block.start : block.stop]), reverse=True)

    def take(self, start: int, stop: int) -> Tensor:
        """Take steps `start … stop - 1` of every head that still learns; `(R,)` losses of their last ones, or NaN."""
        losses = torch.full((self.bank.heads,), torch.nan)
        waiting = deque(self._blocks)
        moments = [self.optimizer.moments(p) for p in (*self.bank.weights, *self.bank.biases)]

        def work() -> None:
            buffers = self._idle.pop() if self._idle else Buffers()
            with torch.no_grad():
                while waiting:
                    try:
                        block = waiting.popleft()
                    except IndexError:  # another thread has taken the last one
                        break
                    self._steps(block, buffers, moments, start, stop, losses)
            self._idle.append(buffers)

        with _threads_of_one(len(waiting)) as threads, fast_float32_products():
            if threads == 1:
                work()
                return losses
            with ThreadPoolExecutor(threads, "heads") as pool:
                try:
                    for done in [pool.submit(work) for _ in range(threads)]:
                        done.result()
                finally:
                    waiting.clear()  # after Ctrl-C no thread begins another block
        return losses

    def _steps(
        self,
        heads: slice,
        buffers: Buffers,
        moments: Sequence[tuple[Tensor, Tensor]],
        start: int,
        stop: int,
        losses: Tensor,
    ) -> None:
        """Steps `start … stop - 1` of a block, and the losses of the last one."""
        stop = min(stop, int(self.optimizer.steps[heads].max()))
        if stop <= start:
            return
        own = self._heads[heads]
        images, halves, always = own[0].images, own[0].halves, all(head.same for head in own)
        index, labels, weights, lengths = (
            torch.stack(parts, dim=1) for parts in zip(*(head.drawn(start, stop) for head in own), strict=True)
        )
        block = MLPBlock(self.bank, heads, images, halves, buffers)
        adam = self.optimizer.stepper(heads, block.parameters, block.gradients, moments)
        of_pair = torch.tensor([[head.pair_weight] for head in own])  # (k, 1)
        slopes = buffers.take("logits' slopes", len(own), images + halves).zero_()
        for i, step in enumerate(range(start, stop)):
            if i == 0 or not always or self.noise is not None:
                torch.index_select(self.data.embeddings, 0, index[i].view(-1), out=block.rows.view(-1, self.bank.dim))
                if self.noise is not None:
                    self.noise.add(heads, block.rows, images, step)
                block.standardise()
            logits = block.forward(step)
            torch.sub(logits[:, :images].sigmoid(), labels[i], out=slopes[:, :images]).mul_(weights[i])
            of_pairs = self._of_pairs(block, slopes, of_pair, lengths[i]) if halves else ()
            block.backward(slopes, *of_pairs)
            adam(step)
        losses[heads] = weighted_bce(logits[:, :images], labels[i], weights[i])
        if halves:
            losses[heads] += self._pair_losses(block) * of_pair[:, 0]

    def _of_pairs(
        self, block: MLPBlock, slopes: Tensor, weight: Tensor, lengths: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Put the derivatives of the pairs' terms in the logits into `slopes`; those in cosines and features."""
        settings, images = self.data.pairs, block.images
        if settings.centring or settings.logistic:
            halves = block.logits[:, images:]
            for half, of_half in enumerate(pair_slopes(halves[:, 0::2], halves[:, 1::2], settings)):
                torch.mul(of_half, weight, out=slopes[:, images + half :: 2])
        of_cosines = of_features = None
        if settings.contrastive:
            with torch.enable_grad():
                features = block.features.clone().requires_grad_()
                drawn = self._contrastive(features) * settings.contrastive * weight[:, 0]
                (of_features,) = torch.autograd.grad(drawn.sum(), features)
        if settings.gradient:
            block.cosines(lengths)
            of_cosines = weight * (-settings.gradient / 2)
        return of_cosines, of_features

    def _contrastive(self, features: Tensor) -> Tensor:
        """`(k,)` the sums of the contrastive terms of pairs whose halves have these features `(k, halves, H)`."""
        there = torch.ones(len(features), features.shape[1] // 2, dtype=torch.bool)
        return contrastive_terms(features[:, 0::2], features[:, 1::2], there, self.data.pairs.temperature).sum(1)

    def _pair_losses(self, block: MLPBlock) -> Tensor:
        """`(k,)` the sums of the terms of the last step's pairs."""
        settings, halves = self.data.pairs, block.logits[:, block.images :]
        terms = pair_terms(halves[:, 0::2], halves[:, 1::2], settings).sum(1)
        if settings.contrastive:
            terms = terms + settings.contrastive * self._contrastive(block.features)
        if settings.gradient:
            terms = terms + settings.gradient * (1 - block.similar).sum(1) / 2
        return terms


class HeadRows:
    """One head's data in its steps: rows of its own and halves of whole pairs.

    Args:
        data: the bank's.
        r: the head.
        scale: of its standardised rows.

    Attributes:
        images, halves: rows of a step.
        same: whether these are the same in every step.
        pair_weight: what the terms of each pair count.
    """

    def __init__(self, data: EmbeddingDataModule, r: int, scale: float) -> None:
        plan, batch_size, settings = data.plans[r], data.stream.batch_size, data.pairs
        rows = torch.from_numpy(plan.train)
        weights = data.class_weights[r][data.labels[rows].long()]
        self._plan, self._stream, self._rows = plan, IndexStream([plan], batch_size), rows
        self._labels = data.labels[rows].float()
        self._weights = torch.where(data.is_pair[rows], weights * data.lift[r], weights)
        pairs = np.empty((0, 2), np.int64) if plan.pairs is None or not settings.needs_halves else plan.pairs
        self._pair_plan, self._pairs = RunPlan(np.arange(len(pairs)), plan.seed), torch.from_numpy(pairs)
        self._pair_stream = IndexStream([self._pair_plan], pairs_a_step(batch_size))
        unsafe, safe = (data.embeddings[half] for half in self._pairs.unbind(1))
        self._lengths = torch.linalg.vector_norm((unsafe - safe).div_(scale), dim=1).clamp_min_(1e-12)
        drawn = min(len(pairs), self._pair_stream.batch_size)
        self.images, self.halves = min(len(rows), batch_size), 2 * drawn
        self.same = self._stream.constant and self._pair_stream.constant
        self.pair_weight = float(data.share[r]) / max(1, drawn)

    def drawn(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what steps `start … stop - 1` see.

        Returns:
            Rows of the embeddings `(S, images + halves)`; labels and weights of the images `(S, images)`, these with a
            sum of 1; the norm of the standardised difference of each half's pair `(S, halves)`.
        """
        places = torch.from_numpy(self._stream.positions(self._plan, start, stop))
        pairs = torch.from_numpy(self._pair_stream.positions(self._pair_plan, start, stop))
        index = torch.cat([self._rows[places], self._pairs[pairs].flatten(1)], dim=1)
        weights = self._weights[places]
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        return index, self._labels[places], weights, self._lengths[pairs].repeat_interleave(2, 1)


@contextmanager
def _threads_of_one(works: int) -> Iterator[int]:
    """Inside, every thread's products take that thread alone; gives how many threads torch had, at most `works`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of new threads, too
    try:
        yield max(1, min(before, works))
    finally:
        torch.set_num_threads(before)
