"""What the service is asked and what it answers, as pydantic models; the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Decision = Literal["safe", "unsafe", "review"]
# JSON knows no NaN; a number too large for a float is refused, and so is `true` for 1
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class EncodedImage(BaseModel):
    """An image in a JSON request."""

    model_config = ConfigDict(extra="forbid")
    id: str | None = Field(
        default=None, max_length=1024, description="How the answer names it; default: its number, from 0."
    )
    data: str = Field(
        description="A JPEG, PNG, WebP, … file in base64; `data:image/png;base64,` may stand before it.",
        json_schema_extra={"contentEncoding": "base64"},
    )


class PredictRequest(BaseModel):
    """A request in JSON: either images or embeddings."""

    model_config = ConfigDict(extra="forbid")
    images: list[EncodedImage] | None = Field(default=None, min_length=1, description="Image files.")
    embeddings: list[Annotated[list[Number], Field(min_length=1)]] | None = Field(
        default=None, min_length=1, description="One list of numbers an image, of the guard's encoder."
    )
    fingerprint: str | None = Field(
        default=None,
        max_length=128,
        description="Of the encoder that made the embeddings; refused if it is not the guard's.",
    )
    point: str | None = Field(
        default=None, max_length=256, description="The operating point; default: the guard's own."
    )
    explain: int | None = Field(
        default=None, ge=0, strict=True, description="How many nearest training images to name."
    )


class NearImage(BaseModel):
    """A training image near to the one that was judged."""

    id: str = Field(description="Of its record.")
    label: Literal[0, 1] = Field(description="0 safe, 1 unsafe.")
    similarity: float = Field(description="Cosine of the two embeddings.")
    pair_id: str | None = Field(description="Of the pair it is half of.")


class Result(BaseModel):
    """The guard's answer about one image."""

    id: str = Field(description="As it was given; else its number in the request, from 0.")
    probability: float | None = Field(description="Of being unsafe, 0 to 1; null where the image cannot be read.")
    decision: Decision | None = Field(description="At the operating point that was asked for.")
    decisions: dict[str, Decision] = Field(description="At every operating point.")
    categories: dict[str, Decision] = Field(
        default_factory=dict, description="In each category that has a threshold of its own."
    )
    category: str | None = Field(
        default=None, description="The likeliest category where `decision` is not safe, if the guard names categories."
    )
    category_probabilities: dict[str, float] = Field(
        default_factory=dict, description="Of each category that the guard names, where the image is unsafe; sum 1."
    )
    neighbours: list[NearImage] = Field(
        default_factory=list, description="The nearest training images, nearest first, if asked for."
    )
    frame: int | None = Field(
        default=None, description="Of an animation the frame it is judged by, the likeliest to be unsafe, from 0."
    )
    frames: int | None = Field(default=None, description="How many frames the file has; 1 for a still image.")
    frames_judged: int | None = Field(default=None, description="How many of them were looked at.")
    error: str | None = Field(default=None, description="Why the image cannot be read; then there is nothing else.")


class PredictAnswer(BaseModel):
    """The answer to a request: a result an image, in the request's order."""

    point: str = Field(description="The operating point of `decision`.")
    results: list[Result]


class PointAnswer(BaseModel):
    """An operating point."""

    name: str
    default: bool = Field(description="Whether it is used where none is asked for.")
    decision: Literal["two_way", "three_way"]
    thresholds: list[float] = Field(
        description="As probabilities: unsafe from the last on; of two, safe below the first, and review in between."
    )
    text: str = Field(description="What validation says of it, in a line.")


class Limits(BaseModel):
    """The limits of a request."""

    max_images: int = Field(description="Images, or embeddings.")
    max_body_mb: float = Field(description="Millions of bytes, all together.")
    max_megapixels: float = Field(description="Of an image.")
    max_request_megapixels: float = Field(description="Of all its images.")
    max_explain: int = Field(description="Nearest training images that may be asked for.")
    timeout_s: float = Field(description="Seconds for it to arrive, and as many for its answer.")


class GuardAnswer(BaseModel):
    """The guard, and what it may be sent."""

    model_config = ConfigDict(json_schema_extra={"title": "Guard"})
    name: str
    guardtrain: str = Field(description="The version of guardtrain that serves it.")
    encoder: dict[str, Any] = Field(description="Of whose embeddings it judges: name, fingerprint, dimension.")
    points: list[PointAnswer]
    categories: list[str] = Field(description="Those it names for an unsafe image; none where it does not.")
    explains: bool = Field(description="Whether it keeps training images, to name the nearest.")
    frames: str = Field(description="How many frames of an animation are looked at: first, all, or a number.")
    limits: Limits = Field(description="What a request may hold.")
    about: dict[str, Any] = Field(description="The fields of its card: what it was trained on, and how.")


class State(BaseModel):
    """Whether the service is alive, or ready."""

    status: Literal["alive", "ready"]
