"""A loaded encoder: images or texts in, embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from guardtrain.encoders.crops import MeanOfCrops
from guardtrain.encoders.geometry import image_geometry, resized_size
from guardtrain.encoders.preprocessing import batch_input, image_transform, needs_no_resampling
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import EncoderError

# Pixels of a forward pass on the CPU: 10 images of 224 x 224. Activations of more leave the allocator's heap, and every
# layer then pays for fresh pages: MobileNetV2 on one core does 100 images a second in fours, and 20 in batches of 256.
# ViT-B/32 takes a tenth longer in fives, and no less time in sixteens.
_CPU_PIXELS = 2**19


class Encoder:
    """A frozen model with its preprocessing. Build one with `guardtrain.encoders.load_encoder`.

    Args:
        spec: what the encoder is.
        model: the frozen model, in eval mode on `device`.
        image_features: `(B, 3, H, W) float32 -> (B, D)`, of an image as a whole, not yet normalised.
        text_features: the same for texts; None where the model reads none.
        device: where the model is.
        batch_size: images (each of its crops is one) or texts a forward pass in `encode_images` and `encode_text`.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        model: torch.nn.Module,
        image_features: Callable[[torch.Tensor], torch.Tensor],
        text_features: Callable[[list[str]], torch.Tensor] | None,
        device: torch.device,
        batch_size: int = 256,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.device = device
        self.batch_size = max(1, batch_size // spec.crops)
        if spec.crops > 1:
            assert spec.crop_share is not None, "specs with crops are resolved with their share"
            image_features = MeanOfCrops(image_features, spec.crop_share, bool(spec.normalize))
        self._image_features = image_features
        self._text_features = text_features
        self._transform = image_transform(spec)
        self._geometry = image_geometry(spec)
        self.arithmetic = spec.dtype or "float32"
        self.spec = spec
        height, width = spec.image_size or (0, 0)
        self.dim = int(self.forward(torch.zeros(1, 3, height, width)).shape[1])
        self.spec = replace(spec, dim=self.dim)

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """(3, H, W) float32: the model's input for one image of any size and mode."""
        return self._transform(image)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8: an RGB image resized and cropped for the model; `forward` takes a batch of them."""
        return self._geometry(image)

    @property
    def needed(self) -> tuple[int, int]:
        """(height, width) that images are resized to: more pixels than that are of no use to the model."""
        return resized_size(self.spec)

    @property
    def rows_a_pass(self) -> int:
        """Images that go through the model at once: at most `batch_size`, and on the CPU what its caches hold."""
        if self.device.type != "cpu":
            return self.batch_size
        height, width = self.spec.image_size or (1, 1)
        return max(1, min(self.batch_size, _CPU_PIXELS // (height * width * self.spec.crops)))

    def use_bfloat16(self) -> None:
        """Do the arithmetic in bfloat16 from now on; the spec stays what it is. For good: weights lose their last bits.

        Weights of linear and convolutional layers are cast once (autocast would at every pass, which takes longer than
        the pass), and of a transformer the residual stream stays float32: a fifth of the rounding error.
        """
        first = True
        for module in self.model.modules():
            if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.MultiheadAttention):
                continue
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
            if isinstance(module, torch.nn.Conv2d) and first:
                module.register_forward_hook(lambda _, __, output: output.float())
                first = False
            if isinstance(module, torch.nn.MultiheadAttention):
                # Its quick path wants inputs of the weights' type, and autocast does not reach into it.
                module.register_forward_pre_hook(_halved, with_kwargs=True)
        self.arithmetic = "bfloat16"

    def accepts_batches(self, height: int, width: int) -> bool:
        """Whether images of this size go straight into the model, without resampling."""
        return needs_no_resampling(self.spec, height, width)

    def prepare(self, images: Sequence[Image.Image] | np.ndarray) -> torch.Tensor:
        """(B, 3, H, W) float32: the model's input for PIL images, or for (B, H, W, 3) uint8."""
        if isinstance(images, np.ndarray):
            if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
                raise EncoderError(f"Image batches must be (B, H, W, 3) uint8; this is {images.shape} {images.dtype}.")
            if self.accepts_batches(*images.shape[1:3]):
                return batch_input(self.spec, images, self.device)
            images = [Image.fromarray(image) for image in images]
        return torch.stack([self.preprocess(image) for image in images])

    @torch.inference_mode()
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, D) float32 embeddings on the encoder's device, unit norm where the spec says so.

        Args:
            inputs: (B, 3, H, W) float32 from `prepare` or `preprocess`, or (B, H, W, 3) uint8 of `pixels`.
        """
        rows = len(inputs)
        if self.device.type == "cpu":
            rows = max(1, 3 * _CPU_PIXELS // (inputs[0].numel() * self.spec.crops))
        parts = []
        for part in inputs.split(rows):
            # Convolutions take half the time with channels last; transformers do not mind.
            if part.dtype == torch.uint8:
                part = batch_input(self.spec, part, self.device)
            pixels = part.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            with self._arithmetic():
                parts.append(self._finish(self._image_features(pixels)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def encode_images(self, images: Sequence[Image.Image] | np.ndarray) -> np.ndarray:
        """(B, D) float32 embeddings of PIL images, or of (B, H, W, 3) uint8.

        Raises:
            EncoderError: an array of another shape or type.
        """
        if len(images) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        starts = range(0, len(images), self.batch_size)
        parts = [self.forward(self.prepare(images[i : i + self.batch_size])).cpu() for i in starts]
        return torch.cat(parts).numpy()

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """(B, D) float32 embeddings of texts, in the space of `encode_images`.

        Raises:
            EncoderError: the encoder reads no text, or the images' output is not the space shared with text.
        """
        if self._text_features is None:
            raise EncoderError(
                f"The encoder {self.spec.label} reads no text: only CLIP models (encoder.family=open_clip) do."
            )
        if self.spec.output != "projected":
            raise EncoderError(
                f"The encoder {self.spec.label} gives pooled features, which lie in another space than its texts: "
                "set encoder.output=projected."
            )
        if len(texts) == 0:
            return np.zeros((0, self.dim), dtype=np.float32)
        parts = []
        for start in range(0, len(texts), self.batch_size):
            with self._arithmetic():
                features = self._text_features(list(texts[start : start + self.batch_size]))
            parts.append(self._finish(features).cpu())
        return torch.cat(parts).numpy()

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.arithmetic == "bfloat16")

    def _finish(self, features: torch.Tensor) -> torch.Tensor:
        features = features.float()
        return F.normalize(features, dim=-1) if self.spec.normalize else features


def _halved(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Query, key and value as bfloat16; what is one tensor stays one, as attention asks whether they are."""
    cast: dict[int, torch.Tensor] = {}

    def half(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return cast.setdefault(id(value), value.to(torch.bfloat16))

    named = {key: half(value) if key in ("query", "key", "value") else value for key, value in kwargs.items()}
    return tuple(half(value) if place < 3 else value for place, value in enumerate(args)), named


def pick_device(name: str) -> torch.device:
    """The device a setting means; `auto` is CUDA, then Apple's MPS, then the CPU.

    Raises:
        EncoderError: no such device name, or a device this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EncoderError(f"encoder.device must be auto, cpu, cuda, cuda:N or mps; it is '{name}'.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EncoderError(f"encoder.device={name}: torch sees no CUDA device here; use auto or cpu.")
    return device
