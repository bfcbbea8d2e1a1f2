"""The story in order: forward pass, cache, generator, batch, memory.    python demo_usage.py"""
import time

import numpy as np

from config import Configs
from KVCache import KVCache
from MiniLLM import MiniLLM, TextGenerator


def main():
    config = Configs.small()
    model = MiniLLM(config)
    print(f"1. A model with random weights: {config.n_parameters / 1e6:.1f} million, {model.weight_bytes / 2**20:.0f} MiB on {model.device}")

    input_ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 64))
    plain = model(input_ids)
    print(f"2. Forward pass: {input_ids.shape} ids give {plain.shape} logits")

    kv_cache = KVCache(config, batch_size=2)
    output = model(input_ids, kv_cache=kv_cache, use_flash_attention=True, flash_block_size=128)
    print(f"3. With a cache: the largest difference is {np.abs(output - plain).max():.1e}; the cache holds {kv_cache.lengths} tokens "
          f"in {kv_cache.bytes / 2**20:.0f} MiB")
    next_ids = output[:, -1:].argmax(-1)
    started = time.perf_counter()
    model(next_ids, kv_cache=kv_cache)
    with_cache = time.perf_counter() - started
    started = time.perf_counter()
    model(np.concatenate([input_ids, next_ids], 1), last_logits_only=True)
    print(f"   One more token: {1e3 * with_cache:.1f} ms with the cache, {1e3 * (time.perf_counter() - started):.1f} ms without")

    standard = model(input_ids, use_flash_attention=False)
    print(f"4. Standard attention gives the same: the largest difference is {np.abs(standard - plain).max():.1e}")

    generator = TextGenerator(model, use_flash_attention=True)
    ids = generator.generate([1, 2, 3], max_new_tokens=20, temperature=0.8)
    print(f"5. Generation: {len(ids) - 3} new ids at {generator.timings.decode_tok_s:.0f} tokens/s")

    prompts = [list(range(1, n + 1)) for n in (3, 17, 40, 9)]
    batch = generator.generate(prompts, max_new_tokens=20, ignore_eos=True)
    alone = [generator.generate(prompt, max_new_tokens=20, ignore_eos=True) for prompt in prompts]
    print(f"6. Four prompts of different lengths at once; each as if it were alone: {batch == alone}")

    kv_cache.crop(-60)
    print(f"7. Memory: after crop(-60) the cache holds {kv_cache.lengths} tokens in {kv_cache.bytes / 2**20:.0f} MiB,", end=" ")
    kv_cache.reset()
    print(f"after reset() {kv_cache.bytes} bytes")


if __name__ == "__main__":
    main()
