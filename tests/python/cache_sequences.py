"""Random sequences of operations on a cache, the same for the recorder (tools/record_cache.py) and the replay (test_cache_replay.py).

A sequence is made from its number alone, by a generator of its own (splitmix64: Python's may change between versions). Its kind says
which transformers cache it is for. Operations stay inside what that class allows: where it raises, or loses tokens that it still
counts, there is nothing to compare (crop() of a StaticLayer; batch changes of an empty layer, whose batch is not known there yet).
"""
import dataclasses
import zlib

import numpy as np

KINDS = ("dynamic", "dynamic_sliding", "dynamic_hybrid", "static", "static_sliding", "static_hybrid")
DTYPES = ("float32", "float16", "bfloat16")
HEADS, DIM = 2, 4


class Random:
    """splitmix64, Steele et al. 2014."""

    def __init__(self, seed):
        self.state = seed & (2**64 - 1)

    def bits(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    def below(self, n):
        return self.bits() % n


@dataclasses.dataclass
class Sequence:
    number: int
    kind: str
    dtype: str
    n_layers: int
    window: int  # 0: no layer slides.
    max_length: int  # 0: dynamic.
    batch: int
    operations: list  # ("update", layer, n, seed), ("crop", n), ("reorder" | "select", rows), ("repeat", n), ("reset",)

    def slides(self, layer):
        """In a hybrid every second layer is global, as sliding_pattern 2 has it."""
        return self.window > 0 and not (self.kind.endswith("hybrid") and (layer + 1) % 2 == 0)


def sequence(number):
    random = Random(number)
    kind = KINDS[number % len(KINDS)]
    static = kind.startswith("static")
    made = Sequence(number, kind, DTYPES[random.below(3)], 1 + random.below(3), 0, 0, 1 + random.below(3), [])
    if kind.endswith("hybrid"):
        made.n_layers = max(made.n_layers, 2)
    if "sliding" in kind or "hybrid" in kind:
        made.window = 2 + random.below(9)
    if static:
        made.max_length = 4 + random.below(28)
    seen, batch, since_crop = 0, made.batch, 0
    for _ in range(8 + random.below(17)):
        choice = random.below(12)
        if choice == 0:
            made.operations.append(("reset",))
            seen, since_crop = 0, 0
        elif choice <= 2 and seen > 0 and not static:
            n = random.below(min(seen, since_crop) + 1)  # No further back than what a sliding layer recorded since it was last cropped.
            made.operations.append(("crop", -n))
            seen, since_crop = seen - n, 0
        elif choice <= 4 and seen > 0:
            rows = [random.below(batch) for _ in range(batch)]
            made.operations.append(("reorder", rows))
        elif choice == 5 and seen > 0 and not static and batch <= 4:
            n = 1 + random.below(2)
            made.operations.append(("repeat", n))
            batch *= n
        elif choice == 6 and seen > 0 and not static:
            rows = [random.below(batch) for _ in range(1 + random.below(batch))]
            made.operations.append(("select", rows))
            batch = len(rows)
        else:
            n = (1, 1, 1, 2, 3, made.window or 4, 2 * (made.window or 4))[random.below(7)]
            if static and seen + n > made.max_length:
                continue
            made.operations += [("update", layer, n, random.bits() % 2**32) for layer in range(made.n_layers)]
            seen, since_crop = seen + n, since_crop + n
    return made


def states(seed, batch, n):
    """K and V of one update: multiples of 1/8 within 16, which every dtype holds exactly."""
    shape = (2, batch, HEADS, n, DIM)
    values = np.random.Generator(np.random.Philox(seed)).integers(-127, 128, shape)
    return (values / 8).astype(np.float32)


class Observations:
    """Checksum of everything that a cache answered, and how much that was."""

    def __init__(self):
        self.checksum, self.n_tensors, self.log = 0, 0, []

    def add(self, *facts):
        for fact in facts:
            if isinstance(fact, np.ndarray):
                self.n_tensors += 1
                facts_bytes = repr(fact.shape).encode() + np.ascontiguousarray(fact, "<f4").tobytes()
            else:
                facts_bytes = repr(fact).encode()
            self.checksum = zlib.crc32(facts_bytes, self.checksum)
        self.log.append(facts)


def observe(cache, made):
    """Runs a sequence; `cache` has the transformers methods, with update() taking and giving float32 NumPy arrays."""
    seen = Observations()
    batch = made.batch
    for operation, *arguments in made.operations:
        if operation == "update":
            layer, n, seed = arguments
            seen.add(tuple(map(int, cache.get_mask_sizes(n, layer))))
            seen.add(*cache.update(*states(seed, batch, n), layer))
        elif operation == "crop":
            cache.crop(*arguments)
        elif operation == "reorder":
            cache.reorder_cache(np.array(arguments[0]))
        elif operation == "repeat":
            cache.batch_repeat_interleave(*arguments)
            batch *= arguments[0]
        elif operation == "select":
            cache.batch_select_indices(np.array(arguments[0]))
            batch = len(arguments[0])
        else:
            cache.reset()
        seen.add([int(cache.get_seq_length(layer)) for layer in range(made.n_layers)])
        seen.add([int(cache.get_query_offset(layer)) for layer in range(made.n_layers)])
    seen.add([int(cache.get_max_length(layer)) for layer in range(made.n_layers)], int(cache.get_max_length()))
    seen.add(list(map(bool, cache.is_sliding)), bool(cache.is_compileable))
    return seen
