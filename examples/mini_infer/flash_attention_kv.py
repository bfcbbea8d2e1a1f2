"""Attention over a cache, one layer at a time: the new keys and values go in, the queries meet everything that is there.

This is what MiniLLM does inside, written with the package's parts. Layouts: the cache speaks [B, heads, tokens, D], as transformers does;
the attention functions speak [B, tokens, heads, D].
"""
import numpy as np

from minillm import flash_attention, standard_attention

__all__ = ["flash_attention", "standard_attention", "flash_attention_kv"]


def flash_attention_kv(q, k, v, kv_cache=None, layer_idx=0, use_flash_attention=True, flash_block_size=0):
    """q [B, H, n, D], k and v [B, G, n, D] of n new tokens; returns [B, H, n, D]. Causal."""
    if kv_cache is not None:
        k, v = kv_cache.update(k, v, layer_idx)
        if kv_cache.is_compileable:  # Preallocated: the slots behind the tokens are no keys.
            k, v = (x[:, :, :kv_cache.get_seq_length(layer_idx)] for x in (k, v))
    attention = flash_attention if use_flash_attention else standard_attention
    result = attention(*(np.swapaxes(x, 1, 2) for x in (q, k, v)), block_size=flash_block_size)
    return np.swapaxes(result.output, 1, 2)
