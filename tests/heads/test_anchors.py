from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardtrain.encoders import load_encoder
from guardtrain.encoders.spec import EncoderSettings
from guardtrain.errors import ConfigError, EncoderError
from guardtrain.heads import (
    CLAPHead,
    LPPlusPlusHead,
    PrototypeHead,
    TextAnchors,
    TipAdapterFHead,
    TipAdapterHead,
    ZeroShotHead,
    text_anchors,
)
from tests.heads.toys import anchors, logits, toy_data

DEMO = EncoderSettings(name="demo", checkpoint="pkg://guardtrain/scenes/demo_encoder")


def test_they_are_open_clips_zero_shot_weights() -> None:
    encoder = load_encoder(DEMO)
    folder = Path(__file__).parents[2] / "guardtrain" / "scenes" / "demo_encoder"
    templates = ["a drawing of {}", "a picture of {}, in sepia", "{}"]
    weights = open_clip.build_zero_shot_classifier(
        encoder.model,
        open_clip.get_tokenizer(f"local-dir:{folder}"),
        classnames=["a lamp on a cabinet", "flames and smoke on a cabinet"],
        templates=[lambda name, t=t: t.format(name) for t in templates],
    )
    prompts = {
        "safe": [t.format("a lamp on a cabinet") for t in templates],
        "unsafe": [t.format("flames and smoke on a cabinet") for t in templates],
    }
    np.testing.assert_allclose(text_anchors(encoder.encode_text, prompts), weights.T.numpy(), atol=1e-5)


def test_zero_shot_is_the_softmax_of_scaled_cosines() -> None:
    x, t = toy_data(20, 6).x, anchors(6)
    cosines = np.stack([x @ row / np.linalg.norm(x, axis=1) / np.linalg.norm(row) for row in t], 1)
    expected = np.exp(100 * cosines) / np.exp(100 * cosines).sum(1, keepdims=True)
    bank = ZeroShotHead().anchored(t).solve(toy_data(20, 6), [1.0])[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits(bank, x))), expected[:, 1], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=5), st.floats(0.1, 10))
def test_lengths_do_not_matter_to_heads_in_the_text_space(lengths: list[float], longer: float) -> None:
    data = toy_data(20, 6)
    x = toy_data(5, 6, seed=1).x
    for head in (ZeroShotHead(), TipAdapterHead(), CLAPHead(scale=5.0), PrototypeHead()):
        for times in (1.0, longer):
            bank = head.anchored(times * anchors(6)).bank(1, 6)
            if isinstance(head, PrototypeHead):
                bank.start(torch.from_numpy(data.x), torch.from_numpy(data.y), [torch.arange(20)])
            else:
                bank = head.anchored(times * anchors(6)).solve(data, [1.0])[0]
            found = logits(bank, x * np.array(lengths)[:, None])
            if times == 1.0:
                expected = logits(bank, x)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_anchors_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "anchors.npy"
    np.save(path, anchors(6).astype(np.float16))
    from_file = ZeroShotHead(text=TextAnchors(file=str(path)))
    assert from_file.prompts is None
    np.testing.assert_allclose(from_file.anchors(6), ZeroShotHead().anchored(anchors(6)).anchors(6), atol=1e-3)


@pytest.mark.parametrize("backbone", ["ViT-B-16", "ViT-B-32", "ViT-L-14"])
@pytest.mark.data
def test_q16s_published_prompts_are_anchors(backbone: str, data_dir: Path) -> None:
    path = data_dir / "heads" / "q16" / f"q16_prompts_{backbone}.npy"
    dim = np.load(path).shape[1]
    head = ZeroShotHead(text=TextAnchors(file=str(path)))
    np.testing.assert_allclose(np.linalg.norm(head.anchors(dim), axis=1), 1, rtol=1e-5)


def test_prompts_are_handed_out_and_a_copy_is_anchored() -> None:
    head = ZeroShotHead(text=TextAnchors(safe=["a"], unsafe=["b", "c"]))
    assert head.prompts == {"safe": ["a"], "unsafe": ["b", "c"]}
    anchored = head.anchored(anchors(6))
    np.testing.assert_allclose(np.linalg.norm(anchored.anchors(6), axis=1), 1, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"prompts of the head 'zero_shot' have not been encoded"):
        head.anchors(6)


@pytest.mark.parametrize("head", [ZeroShotHead(), TipAdapterHead(), LPPlusPlusHead(), CLAPHead()], ids=lambda h: h.name)
def test_heads_without_anchors_or_with_another_encoders_are_refused(head) -> None:
    data = toy_data(20, 6)
    with pytest.raises(ConfigError, match=rf"head '{head.name}' needs text anchors: give prompts .*head\.text\.file"):
        head.solve(data, [1.0])
    with pytest.raises(ConfigError, match="dimension 5, the embeddings 6"):
        head.anchored(anchors(5)).solve(data, [1.0])


def test_a_trained_head_asks_for_its_anchors_when_it_starts() -> None:
    data = toy_data(20, 6)
    arguments = torch.from_numpy(data.x), torch.from_numpy(data.y), [torch.arange(20)]
    with pytest.raises(ConfigError, match="needs text anchors"):
        TipAdapterFHead().bank(1, 6).start(*arguments)
    with pytest.raises(ConfigError, match="have not been encoded"):
        PrototypeHead(text=TextAnchors(safe=["a"], unsafe=["b"])).bank(1, 6).start(*arguments)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 4)), r"shape \(2, D\).*this is \(3, 4\)"),
        (np.ones(4), r"this is \(4,\)"),
        (np.zeros((2, 4)), "a row of zeros"),
        (np.full((2, 4), np.nan), "not finite"),
    ],
)
def test_arrays_that_are_no_anchors_are_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        ZeroShotHead().anchored(array)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ConfigError, match=rf"ead\.text\.file .*{message}"):
        ZeroShotHead(text=TextAnchors(file=str(tmp_path / "a.npy"))).anchors(4)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.npy cannot be read"):
        ZeroShotHead(text=TextAnchors(file=str(tmp_path / "nothing.npy"))).anchors(4)
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"pickle\.npy cannot be read"):
        ZeroShotHead(text=TextAnchors(file=str(tmp_path / "pickle.npy"))).anchors(4)


def test_half_a_set_of_prompts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"head\.text\.unsafe has no prompts"):
        TextAnchors(safe=["a"])
    with pytest.raises(ConfigError, match="prompts and a file"):
        TextAnchors(safe=["a"], unsafe=["b"], file="c.npy")
    with pytest.raises(ConfigError, match=r"head\.text\.safe has no prompts"):
        text_anchors(lambda texts: np.ones((len(texts), 3)), {"unsafe": ["b"]})


def test_an_encoder_that_reads_no_text_says_what_to_do() -> None:
    encoder = load_encoder(DEMO)
    encoder._text_features = None  # as of an encoder of images only
    with pytest.raises(EncoderError, match=r"reads no text.*head=linear.*head\.text\.file"):
        text_anchors(encoder.encode_text, {"safe": ["a"], "unsafe": ["b"]})
