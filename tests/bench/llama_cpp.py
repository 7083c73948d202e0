"""llama.cpp on the same weights: files for it, and what it takes to generate with its PyPI build (xllamacpp, gguf)."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import bsexport_runtime

TYPES = ("F32", "F16", "Q8_0", "Q4_0")
CONTEXT = 256

_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_BYTES = 256  # tokens for single bytes, after three special ones


def missing() -> str | None:
    """Why it cannot be measured; None if it can."""
    absent = [name for name in ("xllamacpp", "gguf") if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(absent)}" if absent else None


def write(package: Path, out: Path, kind: str) -> None:
    """The decoded weights of a Llama's package, with tied embeddings, as a file of one of TYPES.

    Its tokens are written t300, t301, ..., so that a text tells which they are.
    """
    import gguf
    from gguf.quants import quantize

    config = json.loads((package / "config.json").read_bytes())
    heads, size, vocabulary = config["num_attention_heads"], config["hidden_size"], config["vocab_size"]
    file = gguf.GGUFWriter(out, "llama")
    file.add_context_length(config["max_position_embeddings"])
    file.add_embedding_length(size)
    file.add_block_count(config["num_hidden_layers"])
    file.add_feed_forward_length(config["intermediate_size"])
    file.add_head_count(heads)
    file.add_head_count_kv(config["num_key_value_heads"])
    file.add_layer_norm_rms_eps(config["rms_norm_eps"])
    file.add_rope_dimension_count(size // heads)
    file.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    file.add_vocab_size(vocabulary)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(_BYTES))]
    plain = range(len(special), vocabulary)
    file.add_tokenizer_model("llama")
    file.add_token_list([*special, *(f"t{token}" for token in plain)])
    file.add_token_scores([0.0] * vocabulary)
    file.add_token_types([2, 3, 3, *[6] * _BYTES, *[1] * len(plain)])
    for name, weights in bsexport_runtime.read_tensors(package).items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weights = _interleaved(weights, size // heads)
        tensor = np.ascontiguousarray(weights, np.float32)
        if kind == "F32" or tensor.ndim == 1:
            file.add_tensor(_name(name), tensor)
        else:
            dtype = gguf.GGMLQuantizationType[kind]
            file.add_tensor(_name(name), quantize(tensor, dtype), raw_dtype=dtype)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def server(path: str, threads: int) -> Any:
    """llama.cpp with a model, in this process."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.cache_ram_mib, params.n_gpu_layers = CONTEXT, 1, 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    return xllamacpp.Server(params)


def generate(server: Any, ids: list[int], new: int) -> dict[str, Any]:
    """Greedy tokens, and tokens per second of the prompt and of the text, as llama.cpp itself counts them."""
    greedy = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "ignore_eos": True, "cache_prompt": False}
    answer = server.handle_completions({"prompt": ids, "n_predict": new, **greedy})
    tokens = [int(token) for token in re.findall(r"t(\d+)", answer["choices"][0]["text"])]
    times = answer["timings"]
    return {"prompt": times["prompt_per_second"], "text": times["predicted_per_second"], "tokens": tokens}


def _name(name: str) -> str:
    """What llama.cpp calls a tensor of transformers' Llama."""
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYER[rest.removesuffix('.weight')]}.weight"


def _interleaved(weights: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Its rotary positions turn neighbouring rows of a head, transformers' the rows of its two halves."""
    return weights.reshape(-1, 2, size // 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
