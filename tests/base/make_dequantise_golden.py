#!/usr/bin/env python3
"""Writes dequantise_golden.bin: 256 weights of each block format, random bits, as the `gguf` package dequantises them.

Layout, for each format: u32 name length, name, u32 n bytes, the blocks, 256 x float32.
"""
import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

SIZES = {T.Q4_0: 18, T.Q4_1: 20, T.Q5_0: 22, T.Q5_1: 24, T.Q8_0: 34, T.Q4_K: 144, T.Q5_K: 176, T.Q6_K: 210}
SCALES_AT = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}


def main() -> None:
    rng = np.random.default_rng(1)
    with open(pathlib.Path(__file__).with_name("dequantise_golden.bin"), "wb") as out:
        for kind, size in SIZES.items():
            blocks = rng.integers(0, 256, (256 // (256 if size > 100 else 32), size), dtype=np.uint8)
            for at in SCALES_AT[kind]:  # Finite scales of both signs, one of them subnormal.
                scales = rng.normal(0, 0.1, len(blocks)).astype(np.float16)
                if len(blocks) > 1:
                    scales[1] = np.float16(3e-7)
                blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
            values = dequantize(blocks, kind).astype(np.float32)
            assert values.size == 256
            name = kind.name.lower().encode()
            out.write(struct.pack("<I", len(name)) + name + struct.pack("<I", blocks.size) + blocks.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
