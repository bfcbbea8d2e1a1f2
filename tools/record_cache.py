#!/usr/bin/env python3
"""Writes tests/golden/cache_replay.json: what the caches of transformers answer to 2,000 random sequences of operations.

    pip install torch transformers numpy
    tools/record_cache.py

A sequence follows from its number (tests/python/cache_sequences.py), so the file holds only checksums: for each sequence the CRC-32 of
every tensor, length and mask size that DynamicCache or StaticCache, with full and sliding layers, returned. test_cache_replay.py plays
the same sequences on minillm.KVCache; with --live it asks transformers itself and compares tensor by tensor.
"""
import json
import pathlib
import sys

import torch
import transformers
from transformers.cache_utils import (Cache, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer)

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))
import cache_sequences  # noqa: E402

N_SEQUENCES = 2000


class Theirs:
    """A transformers Cache that takes and gives NumPy arrays."""

    def __init__(self, made):
        self.dtype = getattr(torch, made.dtype)
        layers = []
        for i in range(made.n_layers):
            if made.max_length and made.slides(i):
                layers.append(StaticSlidingWindowLayer(made.max_length, made.window))
            elif made.max_length:
                layers.append(StaticLayer(made.max_length))
            else:
                layers.append(DynamicSlidingWindowLayer(made.window) if made.slides(i) else DynamicLayer())
        self.cache = Cache(layers=layers)
        self.cache.activate_past_recording()  # Otherwise crop() raises once a window is full.

    def update(self, k, v, layer):
        k, v = (torch.from_numpy(x).to(self.dtype) for x in (k, v))
        return tuple(x.float().numpy().copy() for x in self.cache.update(k, v, layer))

    def reorder_cache(self, rows):
        self.cache.reorder_cache(torch.from_numpy(rows))

    def batch_select_indices(self, rows):
        self.cache.batch_select_indices(torch.from_numpy(rows))

    def __getattr__(self, name):
        return getattr(self.cache, name)


def main():
    checksums, n_operations, n_tensors = [], 0, 0
    for number in range(N_SEQUENCES):
        made = cache_sequences.sequence(number)
        seen = cache_sequences.observe(Theirs(made), made)
        checksums.append(seen.checksum)
        n_operations += len(made.operations)
        n_tensors += seen.n_tensors
    path = ROOT / "tests" / "golden" / "cache_replay.json"
    rows = ["[" + ", ".join(map(str, checksums[i:i + 10])) + "]" for i in range(0, N_SEQUENCES, 10)]
    path.write_text('{"transformers": "%s", "n_operations": %d, "n_tensors": %d,\n "crc32": [\n%s]}\n' %
                    (transformers.__version__, n_operations, n_tensors, ",\n".join(rows)), encoding="utf-8")
    json.loads(path.read_text(encoding="utf-8"))
    print(f"{N_SEQUENCES} sequences, {n_operations} operations, {n_tensors} tensors: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
