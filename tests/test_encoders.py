"""Encoders of sounds, images and texts: every family of docs/models.md that is one graph without a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hf_models import randomise, torch, transformers
from test_export import filled

from bsexport.errors import ExportError
from bsexport.graph.export import export

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = SIZES | {"vocab_size": 99, "max_position_embeddings": 40, "projection_dim": 24, "eos_token_id": 98}
VISION = SIZES | {"image_size": 12, "patch_size": 4, "projection_dim": 24}
WHISPER = {
    "vocab_size": 99,
    "d_model": 32,
    "num_mel_bins": 8,
    "max_source_positions": 20,
    **{f"{part}_{what}": size for part in ("encoder", "decoder") for what, size in (("layers", 1), ("ffn_dim", 48))},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
REACH = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}


def config(name: str, **settings: Any) -> Any:
    return getattr(transformers, name)(**settings)


FAMILIES: dict[str, tuple[str, Any]] = {
    "Whisper, encoder": ("WhisperForConditionalGeneration", config("WhisperConfig", **WHISPER)),
    "CLIP, vision": ("CLIPVisionModel", config("CLIPVisionConfig", **VISION)),
    "CLIP, text": ("CLIPTextModel", config("CLIPTextConfig", **TEXT)),
    "CLIP": ("CLIPModel", config("CLIPConfig", text_config=TEXT, vision_config=VISION, projection_dim=24)),
    "T5, encoder": ("T5EncoderModel", config("T5Config", **T5, **REACH)),
    "T5, whole": ("T5ForConditionalGeneration", config("T5Config", **T5, **REACH)),
}


def made_up(name: str, rows: int, length: int) -> Any:
    random = np.random.default_rng(rows + length)
    if name == "attention_mask":  # the rows are padded at the right, each to another length
        return (np.arange(length) < np.maximum(1, length - 3 * np.arange(rows))[:, None]).astype(np.int64)
    if name == "input_ids":
        return random.integers(1, 99, (rows, length))
    shape = {"pixel_values": (rows, 3, 12, 12), "input_features": (rows, 8, 40)}[name]
    return random.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_agrees_with_transformers(tmp_path: Path, name: str) -> None:
    class_name, settings = FAMILIES[name]
    torch.manual_seed(0)
    model = getattr(transformers, class_name)(settings).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    source = export(tmp_path, "feature-extraction")
    assert source.encoder is None
    stored = {weight.name for weight in source.weights if not weight.constant}
    assert stored <= set(model.state_dict())
    session = onnxruntime.InferenceSession(filled(source).SerializeToString(), providers=["CPUExecutionProvider"])
    reference = model if class_name.startswith("CLIP") else model.get_encoder()
    names = [output.name for output in session.get_outputs()]
    if name == "CLIP":
        assert names == ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
    else:
        assert names[0] == "last_hidden_state"
    for rows, length in ((1, 1), (3, 7), (2, 33)):
        inputs = {each.name: made_up(each.name, rows, length) for each in session.get_inputs()}
        if name == "CLIP":
            inputs["pixel_values"] = made_up("pixel_values", rows + 1, length)
        with torch.no_grad():
            expected = reference(**{key: torch.from_numpy(array) for key, array in inputs.items()})
        for output, got in zip(names, session.run(None, inputs), strict=True):
            wanted = expected[output].numpy()
            if "attention_mask" in inputs and output == "last_hidden_state":
                got, wanted = (array[inputs["attention_mask"] != 0] for array in (got, wanted))
            np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max(), err_msg=output)


def test_what_takes_something_else_says_so(tmp_path: Path) -> None:
    sizes = {"conv_dim": (8,), "conv_kernel": (3,), "conv_stride": (2,), "num_conv_pos_embeddings": 4}
    sizes |= {"num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 1}
    torch.manual_seed(0)
    transformers.Wav2Vec2Model(config("Wav2Vec2Config", **SIZES, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="takes input_values, expected input_ids, pixel_values or input_features"):
        export(tmp_path, "feature-extraction")
