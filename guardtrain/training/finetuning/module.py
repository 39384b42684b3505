"""LoraModule: the LightningModule that trains adapters and a linear head on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from guardtrain.encoders.preprocessing import batch_input
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.heads import LinearBank
from guardtrain.training.batches import IndexBatch, RunPlan
from guardtrain.training.datamodule import BankBatch, EmbeddingDataModule
from guardtrain.training.finetuning.settings import LoraSettings
from guardtrain.training.losses import squared_norms
from guardtrain.training.settings import LossSettings

_JUDGED_AT_ONCE = 64  # held-out images a forward pass


class LoraModule(L.LightningModule):
    """Trains what is trainable of `model` together with a head; what is frozen is in no checkpoint.

    Args:
        model: the encoder's model with adapters, all else frozen, in eval mode.
        features: `(B, 3, H, W) float32 -> (B, D)`, differentiable, through `model`.
        spec: the encoder's, for the pixels' arithmetic.
        bank: one linear head, started where the linear probe is.
        pixels: `(N, H, W, 3)` uint8, the images that the plan's rows mean.
        labels: `(N,)` int64.
        plan: what is trained on and held out.
        loss: as for a head.
        settings: learning rates, steps, batches.
        augment: of `guardtrain.training.finetuning.images.augmentation`.

    Attributes:
        held_out_curve: held-out losses, the first of the frozen encoder, then one each `settings.evaluate_every` steps.
        best_state: the trainable parameters at the lowest of them; empty where nothing is held out.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Callable[[Tensor], Tensor],
        spec: EncoderSpec,
        bank: LinearBank,
        *,
        pixels: np.ndarray,
        labels: Tensor,
        plan: RunPlan,
        loss: LossSettings,
        settings: LoraSettings,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold what is trained, which is a hundredth of the model
        self.model, self.bank = model, bank
        self.settings, self.plan = settings, plan
        self._features, self._spec, self._pixels, self._augment = features, spec, pixels, augment
        self._penalty = loss.strength(len(plan.train)) / (2 * len(plan.train))
        # Row numbers in place of embeddings: the batches, weights and pairs are those that a head is trained with.
        self._rows = EmbeddingDataModule(
            torch.arange(len(labels), dtype=torch.float64)[:, None],
            labels,
            [plan],
            batch_size=settings.batch_size,
            steps=settings.steps,
            steps_per_epoch=settings.evaluate_every,
            class_weight=loss.class_weight,
            pairs=loss.pairs,
        )
        self.held_out_curve: list[float] = []
        self.best_state: dict[str, Tensor] = {}

    def embeddings(self, rows: Tensor, altered: bool = False) -> Tensor:
        """`(B, D)` embeddings of the images that `rows` `(B,)` means."""
        pixels = torch.from_numpy(np.ascontiguousarray(self._pixels[rows.long().cpu().numpy()]))
        if altered and self._augment is not None:
            pixels = self._augment(pixels)
        inputs = batch_input(self._spec, pixels, self.device).contiguous(memory_format=torch.channels_last)
        features = self._features(inputs).float()
        return nn.functional.normalize(features, dim=-1) if self._spec.normalize else features

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        chosen = _on(self._rows.batch(int(batch)), self.device)
        # what is random in a step depends on the step alone, and so not on whether training was resumed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.plan.seed << 24) + int(batch))
            embedded = self.embeddings(chosen.x[0, :, 0], altered=True)
        losses = chosen._replace(x=embedded[None]).losses(self.bank)
        loss = losses.sum() + self._penalty * squared_norms(self.bank.parameters()).sum()
        if self.trainer.loggers:
            self.log("train_loss", loss.detach())
        return loss

    def validation_step(self, batch: IndexBatch, batch_idx: int) -> None:
        rows = self._rows.on_after_batch_transfer(batch, 0)
        assert isinstance(rows, BankBatch)
        chosen = _on(rows, self.device)
        parts = [self.embeddings(part) for part in chosen.x[0, :, 0].split(_JUDGED_AT_ONCE)]
        held_out = float(chosen._replace(x=torch.cat(parts)[None]).losses(self.bank).sum())
        self.held_out_curve.append(held_out)
        if self.held_out_curve[-1] == min(self.held_out_curve):
            self.best_state = {name: p.detach().cpu().clone() for name, p in self.trained.items()}
        if self.trainer.loggers and not self.trainer.sanity_checking:
            self.log("held_out_loss", held_out)

    def on_validation_epoch_end(self) -> None:
        if self.exhausted:
            self.trainer.should_stop = True

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @property
    def best(self) -> int:
        """The evaluation with the lowest held-out loss; 0 is before training."""
        return min(range(len(self.held_out_curve)), key=self.held_out_curve.__getitem__)

    @property
    def exhausted(self) -> bool:
        """Whether the held-out loss has not improved for `patience` evaluations, or is no number any more."""
        if self.held_out_curve and not math.isfinite(self.held_out_curve[-1]):
            return True
        return bool(self.held_out_curve) and len(self.held_out_curve) - 1 - self.best >= self.settings.patience

    @property
    def progress(self) -> float:
        """Share of the steps taken, in [0, 1]."""
        return self.trainer.global_step / self.settings.steps

    def take_best(self) -> None:
        """Go back to the step with the lowest held-out loss, where something is held out."""
        if self.best_state:
            self.load_state_dict(self.best_state, strict=False)

    def configure_optimizers(self) -> Any:
        settings = self.settings
        head = list(self.bank.parameters())
        own = {id(p) for p in head}
        adapters = [p for p in self.trained.values() if id(p) not in own]
        optimizer = torch.optim.AdamW(
            [
                {"params": adapters, "lr": settings.lr, "weight_decay": settings.weight_decay},
                {"params": head, "lr": settings.head_lr, "weight_decay": 0.0},
            ]
        )
        rising = max(1, round(settings.warmup * settings.steps))

        def share(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, settings.steps - rising)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> Any:
        return _Steps(self)

    def val_dataloader(self) -> Any:
        return self._rows.val_dataloader()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = self.trained
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["held_out_curve"], checkpoint["best_state"] = self.held_out_curve, self.best_state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.held_out_curve, self.best_state = list(checkpoint["held_out_curve"]), dict(checkpoint["best_state"])


class _Steps:
    """The numbers of an epoch's steps, from those taken on; a resumed trainer thus continues where it stopped."""

    def __init__(self, module: LoraModule) -> None:
        self.module = module

    def __len__(self) -> int:
        return len(self._left())

    def __iter__(self) -> Iterator[int]:
        return iter(self._left())

    def _left(self) -> range:
        taken, settings = self.module.trainer.global_step, self.module.settings
        return range(taken, min(taken + settings.evaluate_every, settings.steps))


def _on(batch: BankBatch, device: torch.device) -> BankBatch:
    return batch._replace(
        x=batch.x.to(torch.int64),
        labels=batch.labels.to(device),
        weights=batch.weights.to(device),
        pair_weights=batch.pair_weights.to(device),
    )
