"""A loaded encoder: images or texts in, embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from guardtrain.encoders.preprocessing import batch_input, image_transform, needs_no_resampling
from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import EncoderError

# Pixels of a forward pass on the CPU: 5 images of 224 x 224. Activations of more leave the allocator's heap, and every
# layer then pays for fresh pages: MobileNetV2 on one core does 100 images a second in fours, and 20 in batches of 256.
_CPU_PIXELS = 2**18


class Encoder:
    """A frozen model with its preprocessing. Build one with `guardtrain.encoders.load_encoder`.

    Args:
        spec: what the encoder is.
        model: the frozen model, in eval mode on `device`.
        image_features: `(B, 3, H, W) float32 -> (B, D)`, not yet normalised.
        text_features: the same for texts; None where the model reads none.
        device: where the model is.
        batch_size: images (or texts) a forward pass in `encode_images` and `encode_text`.
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
        self.batch_size = batch_size
        self._image_features = image_features
        self._text_features = text_features
        self._transform = image_transform(spec)
        self.spec = spec
        height, width = spec.image_size or (0, 0)
        self.dim = int(self.forward(torch.zeros(1, 3, height, width)).shape[1])
        self.spec = replace(spec, dim=self.dim)

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """(3, H, W) float32: the model's input for one image of any size and mode."""
        return self._transform(image)

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
            inputs: (B, 3, H, W) float32 from `prepare` or `preprocess`.
        """
        rows = len(inputs)
        if self.device.type == "cpu":
            rows = max(1, _CPU_PIXELS // (inputs.shape[2] * inputs.shape[3]))
        parts = []
        for part in inputs.split(rows):
            # Convolutions take half the time with channels last; transformers do not mind.
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
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.spec.dtype == "bfloat16")

    def _finish(self, features: torch.Tensor) -> torch.Tensor:
        features = features.float()
        return F.normalize(features, dim=-1) if self.spec.normalize else features


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
