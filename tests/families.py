"""The families of causal language models of docs/models.md, as tiny random models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_models import randomise, torch, transformers

VOCABULARY = 99
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
}
GROUPED = {"num_key_value_heads": 2}
SHARED = GROUPED | {"head_dim": 8}
SLIDING = {"sliding_window": 6}  # the texts are longer
MIXED = SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}
LLAMA_3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@dataclass(frozen=True)
class Family:
    """A row of docs/models.md.

    model: transformers' class. config: the class of its configuration. settings: of a tiny model. dtype: of its
    checkpoint.
    """

    model: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"

    def save(self, folder: Path) -> None:
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, self.config)(**SIZES | self.settings)
        )
        assert type(model).__name__ == (self.model or type(model).__name__)
        randomise(model)
        model.to(getattr(torch, self.dtype)).save_pretrained(folder)


FAMILIES = {
    "GPT-2": Family("GPT2LMHeadModel", "GPT2Config", dtype="float16"),
    "Llama": Family("LlamaForCausalLM", "LlamaConfig", SHARED),
    "Llama 3, DeepSeek-R1-Distill-Llama": Family(
        "LlamaForCausalLM",
        "LlamaConfig",
        SHARED | {"rope_parameters": LLAMA_3 | {"original_max_position_embeddings": 16}},
        dtype="bfloat16",
    ),
    "Gemma": Family("GemmaForCausalLM", "GemmaConfig", SHARED),
    "Gemma 2": Family("Gemma2ForCausalLM", "Gemma2Config", SHARED | MIXED | {"query_pre_attn_scalar": 8}),
    "Gemma 3, text": Family("Gemma3ForCausalLM", "Gemma3TextConfig", SHARED | MIXED),
    "Qwen 2": Family(
        "Qwen2ForCausalLM",
        "Qwen2Config",
        SHARED | SLIDING | {"use_sliding_window": True, "max_window_layers": 1, "tie_word_embeddings": True},
    ),
    "DeepSeek-R1-Distill-Qwen": Family(
        "Qwen2ForCausalLM", "Qwen2Config", SHARED | {"tie_word_embeddings": False}, dtype="bfloat16"
    ),
    "Qwen 3": Family("Qwen3ForCausalLM", "Qwen3Config", SHARED),
    "Mistral": Family("MistralForCausalLM", "MistralConfig", SHARED | SLIDING),
    "Phi": Family("PhiForCausalLM", "PhiConfig", GROUPED),
    "Phi-3": Family("Phi3ForCausalLM", "Phi3Config", GROUPED | SLIDING),
    "OPT": Family("OPTForCausalLM", "OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "GPT-NeoX, Pythia": Family("GPTNeoXForCausalLM", "GPTNeoXConfig", {"rotary_pct": 0.5}),
}

OTHERS = {
    "Falcon 7B": Family("FalconForCausalLM", "FalconConfig"),
    "Falcon 40B, Falcon 2": Family(
        "FalconForCausalLM", "FalconConfig", {"new_decoder_architecture": True, "num_kv_heads": 2}
    ),
    "StableLM": Family("StableLmForCausalLM", "StableLmConfig", GROUPED),
    "Granite": Family("GraniteForCausalLM", "GraniteConfig", GROUPED),
    "SmolLM3": Family("SmolLM3ForCausalLM", "SmolLM3Config", SHARED | {"no_rope_layers": [1, 0]}),
    "OLMo": Family("OlmoForCausalLM", "OlmoConfig", GROUPED),
    "OLMo 2": Family("Olmo2ForCausalLM", "Olmo2Config", GROUPED),
    "OLMo 3": Family("Olmo3ForCausalLM", "Olmo3Config", GROUPED | MIXED),
    "BLOOM": Family("BloomForCausalLM", "BloomConfig"),
    "MPT": Family("MptForCausalLM", "MptConfig", {"max_seq_len": 64}),
    "GPT-J": Family("GPTJForCausalLM", "GPTJConfig", {"rotary_dim": 4}),
    "CodeGen": Family("CodeGenForCausalLM", "CodeGenConfig", {"rotary_dim": 4}),
    "Cohere, Command R": Family("CohereForCausalLM", "CohereConfig", GROUPED),
    "Cohere 2": Family("Cohere2ForCausalLM", "Cohere2Config", SHARED | MIXED),
    "StarCoder": Family("GPTBigCodeForCausalLM", "GPTBigCodeConfig"),
    "StarCoder 2": Family("Starcoder2ForCausalLM", "Starcoder2Config", GROUPED | SLIDING),
    "GLM": Family("GlmForCausalLM", "GlmConfig", SHARED),
    "GLM-4": Family("Glm4ForCausalLM", "Glm4Config", SHARED),
    "EXAONE 4": Family("Exaone4ForCausalLM", "Exaone4Config", SHARED | MIXED),
    "Helium": Family("HeliumForCausalLM", "HeliumConfig", SHARED),
    "Nemotron": Family("NemotronForCausalLM", "NemotronConfig", SHARED),
    "Persimmon": Family("PersimmonForCausalLM", "PersimmonConfig"),
}
"""What went through the same path, and is tested only when it is asked for: an export takes seconds."""
