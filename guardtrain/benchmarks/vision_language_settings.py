"""What is asked of a vision-language model, where it is, and what asking may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from guardtrain.errors import ConfigError


@dataclass
class VisionLanguageSettings:
    """A vision-language model behind an OpenAI-compatible endpoint (`POST BASE_URL/chat/completions`).

    Args:
        model: its name there.
        base_url: of the endpoint, such as `http://localhost:8000/v1` (vLLM, llama.cpp, Ollama, SGLang) or a vendor's.
        name: what tables call it; null for the model's.
        prompt: a text file with the question; null for the built-in one, yes or no by UnsafeBench's categories. It may
            have `{categories}`, where `categories` are put.
        unsafe, safe: with a prompt of your own, the words of an answer that mean unsafe and safe: `[yes]` and `[no]`
            for "Is this image unsafe?", the other way round for "Is this image safe?". The words safe and unsafe are
            understood besides. Other words read kept answers anew, without asking again.
        categories: category to what it covers; empty for UnsafeBench's eleven.
        api_key_env: the environment variable with the API key; it is sent to the endpoint and written nowhere. An
            endpoint of your own may need none.
        max_side: pixels of the longer side an image is reduced to before it is sent.
        quality: of the JPEG that is sent.
        max_tokens: of an answer.
        temperature: of sampling; 0 takes the likeliest answer.
        logprobs: ask for the tokens' log-probabilities too, where the endpoint gives them: an answer then has a
            probability, that of the unsafe word against the safe one where it is said.
        extra: further fields of the request, such as `{seed: 0}`.
        concurrency: requests under way at once.
        timeout: seconds a request may take.
        retries: how often a request is sent again after a passing fault (429, 5xx, no connection, no usable reply).
        backoff: seconds before the first of them; it doubles each time, up to a minute. The endpoint's own wish
            (Retry-After) goes first.
        price_input, price_output: of a million tokens, in the currency you think in; null where you do not know it.
        image_tokens: what an image counts, for the estimate before anything was answered.
        max_cost: where to stop asking, by those prices; what was answered is kept.
    """

    model: str = ""
    base_url: str = "https://api.openai.com/v1"
    name: str | None = None
    prompt: str | None = None
    unsafe: list[str] = field(default_factory=list)
    safe: list[str] = field(default_factory=list)
    categories: dict[str, str] = field(default_factory=dict)
    api_key_env: str = "OPENAI_API_KEY"
    max_side: int = 768
    quality: int = 90
    max_tokens: int = 64
    temperature: float | None = 0.0
    logprobs: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 6
    backoff: float = 1.0
    price_input: float | None = None
    price_output: float | None = None
    image_tokens: int = 800
    max_cost: float | None = None

    def check(self) -> None:
        """Refuse values outside the allowed.

        Raises:
            ConfigError: naming the setting, the value and what is allowed.
        """
        if not self.model:
            raise ConfigError("vlm.model is empty; name the model as the endpoint calls it.")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"vlm.base_url must begin with http:// or https://; it is '{self.base_url}'.")
        for key, low, high in (
            ("max_side", 16, 10_000),
            ("quality", 1, 100),
            ("max_tokens", 1, 100_000),
            ("concurrency", 1, 256),
            ("retries", 0, 100),
            ("image_tokens", 0, 1_000_000),
            ("timeout", 1e-3, 86_400),
            ("backoff", 0, 60),
        ):
            if not low <= getattr(self, key) <= high:
                raise ConfigError(f"vlm.{key} must lie in {low:g} to {high:g}; it is {getattr(self, key):g}.")
        for key in ("price_input", "price_output", "max_cost", "temperature"):
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"vlm.{key} must be 0 or more, or null; it is {value}.")
        if self.max_cost is not None and None in (self.price_input, self.price_output):
            raise ConfigError(
                "vlm.max_cost needs vlm.price_input and vlm.price_output, the prices of a million tokens."
            )

        self._check_words()

    def _check_words(self) -> None:
        if self.prompt is None:
            if self.unsafe or self.safe:
                raise ConfigError(
                    "vlm.unsafe and vlm.safe are the words of answers to a question of your own, vlm.prompt=FILE; the "
                    "built-in one asks for yes or no."
                )
            return
        for name in ("unsafe", "safe"):
            words = [str(word) for word in getattr(self, name)]
            if not words or not all(any(map(str.isalnum, word)) for word in words):
                raise ConfigError(
                    f"vlm.{name} has no words. With a question of your own (vlm.prompt={self.prompt}) it must be said "
                    'which answers mean unsafe and which safe: "Is this image safe?" turns them around. Where a yes '
                    "means unsafe: 'vlm.unsafe=[yes]' 'vlm.safe=[no]'"
                )
        unsafe, safe = ({str(word).strip().lower() for word in words} for words in (self.unsafe, self.safe))
        if both := unsafe & safe:
            raise ConfigError(f"The word '{sorted(both)[0]}' stands in vlm.unsafe and in vlm.safe.")

    @property
    def label(self) -> str:
        """Return what tables call it."""
        return self.name or self.model

    def cost(self, input_tokens: float, output_tokens: float) -> float | None:
        """Return the price of so many tokens; None where a price is not known."""
        if self.price_input is None or self.price_output is None:
            return None
        return (input_tokens * self.price_input + output_tokens * self.price_output) / 1e6
