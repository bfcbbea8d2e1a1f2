#!/usr/bin/env python3
"""Writes tests/golden/families.json: what Hugging Face transformers computes in float32 for a tiny model of each supported family.

    pip install torch transformers
    tools/make_family_golden.py

A list of cases: name, config (as transformers writes config.json), tensors ([name, shape] of every stored weight), ids, and the
logits of the last rows. The weights are not stored: both sides make them from the tensor's name, see `weights`.
tests/model/families_test.cpp writes the model as safetensors, loads it, and compares.
"""
import json
import os

import numpy as np
import torch
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

N_TOKENS, N_ROWS = 40, 3
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "families.json")

SIZES = dict(vocab_size=96, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
GEMMA_ROPE = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
              "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
GEMMA = dict(SIZES, num_hidden_layers=7, head_dim=32, sliding_window=7)

CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "llama3_rope": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
    "llama_linear_rope_tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True, rope_parameters={
        "rope_type": "linear", "rope_theta": 1e4, "factor": 4.0})),
    "mistral_window": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=7)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=32)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=24, rope_parameters=GEMMA_ROPE)),
    "gemma3_softcap": (Gemma3ForCausalLM, Gemma3TextConfig(**GEMMA, final_logit_softcapping=3.0)),
}


def weights(name, shape):
    """Uniform numbers from SplitMix64, seeded with FNV-1a of the name: matrices in [-0.3, 0.3), vectors in [0.7, 1.3)."""
    with np.errstate(over="ignore"):
        seed = np.uint64(0xCBF29CE484222325)
        for byte in name.encode():
            seed = (seed ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        z = seed + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    uniform = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((-0.3 if len(shape) > 1 else 0.7) + 0.6 * uniform).astype(np.float32).reshape(shape)


def make_case(name, model_class, config):
    config._attn_implementation = "eager"
    model = model_class(config).float().eval()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tensors = [[key, list(p.shape)] for key, p in sorted(model.state_dict().items()) if key not in tied]
    with torch.no_grad():
        for key, shape in tensors:
            model.state_dict()[key].copy_(torch.from_numpy(weights(key, shape)))
        ids = [(7 * i * i + 3 * i + 1) % config.vocab_size for i in range(N_TOKENS)]
        logits = model(torch.tensor([ids])).logits[0, -N_ROWS:].double().numpy()
    stored = json.loads(config.to_json_string(use_diff=False))
    stored["architectures"] = [model_class.__name__]
    for key in ("_name_or_path", "transformers_version", "id2label", "label2id"):
        stored.pop(key, None)
    return {"name": name, "config": stored, "tensors": tensors, "ids": ids, "logits": [[round(x, 6) for x in row] for row in logits.tolist()]}


if __name__ == "__main__":
    with open(PATH, "w", encoding="utf-8") as out:
        cases = [make_case(name, *case) for name, case in CASES.items()]
        out.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
