"""What attention, the cache and generation cost here, measured.    python performance_analysis.py [--json]

A short form of `minillm analyze`, in about half a minute; `python -m minillm.report` draws the long one.
"""
import argparse
import json
import time

import numpy as np

from config import Configs
from flash_attention_kv import flash_attention, standard_attention
from KVCache import KVCache
from MiniLLM import MiniLLM, TextGenerator

MIB = 2**20


def seconds(call, repeats=3):
    """Median of `repeats`, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]


def attention(lengths=(256, 512, 1024, 2048), batch=2, heads=8, dim=64):
    """Peak bytes beyond inputs and output, and time, of both kinds of attention."""
    rows = []
    for n in lengths:
        q, k, v = np.random.default_rng(n).standard_normal((3, batch, n, heads, dim), dtype=np.float32)
        row = {"tokens": n}
        for name, function in (("standard", standard_attention), ("flash", flash_attention)):
            row[f"{name}_bytes"] = function(q, k, v, block_size=128, n_threads=2).peak_bytes
            row[f"{name}_seconds"] = seconds(lambda f=function: f(q, k, v, block_size=128, n_threads=2), repeats=1 if n > 1024 else 3)
        rows.append(row)
    return rows


def block_sizes(lengths=(128, 512, 1024)):
    """Seconds of flash attention for each key tile."""
    rows = []
    for n in lengths:
        q, k, v = np.random.default_rng(n).standard_normal((3, 1, n, 8, 64), dtype=np.float32)
        for block in (16, 32, 64, 128, 256, 512):
            rows.append({"tokens": n, "block_size": block, "seconds": seconds(lambda b=block: flash_attention(q, k, v, block_size=b))})
    return rows


def cache_bytes():
    """Memory of preallocated caches, twice the context of `small`, batch 4 to 16."""
    config = Configs.small()
    return [{"batch": b, "tokens": 2 * config.context_length, "bytes": KVCache(config, b, 2 * config.context_length).bytes} for b in (4, 8, 16)]


def generation(model, n_new=32):
    """Tokens a second with the cache, and by computing everything again."""
    rows = []
    for n in (64, 256):
        prompt = np.random.default_rng(n).integers(0, model.config.vocab_size, n).tolist()
        generator = TextGenerator(model)
        generator.generate(prompt, max_new_tokens=n_new, ignore_eos=True)
        again = seconds(lambda p=prompt: model([p], last_logits_only=True), repeats=1)
        rows.append({"context": n, "cached_tok_s": generator.timings.decode_tok_s, "recomputed_tok_s": 1 / again})
    return rows


def batches(model, n_new=24):
    """Tokens a second of all rows together."""
    rows = []
    for batch in (1, 4, 16):
        prompts = [list(range(1, 9 + 3 * row)) for row in range(batch)]
        generator = TextGenerator(model)
        generator.generate(prompts, max_new_tokens=n_new, ignore_eos=True)
        rows.append({"batch": batch, "tok_s": generator.timings.decode_tok_s})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    as_json = parser.parse_args().json
    model = MiniLLM(Configs.small())
    found = {"attention": attention(), "block_sizes": block_sizes(), "cache_bytes": cache_bytes(), "generation": generation(model),
             "batches": batches(model)}
    if as_json:
        print(json.dumps(found))
        return
    print("Attention, batch 2, 8 heads of 64, block 128, 2 threads\n tokens  standard          flash")
    for r in found["attention"]:
        print(f"{r['tokens']:7d}  {r['standard_bytes'] / MIB:5.0f} MiB {1e3 * r['standard_seconds']:6.1f} ms  "
              f"{r['flash_bytes'] / MIB:5.2f} MiB {1e3 * r['flash_seconds']:6.1f} ms")
    print("Best block size: " + ", ".join(
        f"{n} tokens {min((r for r in found['block_sizes'] if r['tokens'] == n), key=lambda r: r['seconds'])['block_size']}"
        for n in sorted({r["tokens"] for r in found["block_sizes"]})) + f"; the model takes {model.flash_block_size}")
    for r in found["cache_bytes"]:
        print(f"Cache of {r['tokens']} tokens, batch {r['batch']}: {r['bytes'] / MIB:.0f} MiB")
    for r in found["generation"]:
        print(f"Generation after {r['context']} tokens: {r['cached_tok_s']:.0f} tokens/s with the cache, {r['recomputed_tok_s']:.1f} without")
    for r in found["batches"]:
        print(f"Batch {r['batch']}: {r['tok_s']:.0f} tokens/s together")


if __name__ == "__main__":
    main()
