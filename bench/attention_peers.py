#!/usr/bin/env python3
"""Attention beside torch's scaled_dot_product_attention, both in turn in the same minute, with the machine's limits.

  python3 bench/attention_peers.py build/release/bin/attention_bench [--threads 2] [--rounds 7] [--quick] [--json FILE]

Ours reads a cache of 16 bits (f16); torch gets float32 and bfloat16, with its heads shared (enable_gqa) and repeated, and the
fastest counts. Each round times every contender once. Decode walks copies of its keys and values that together exceed the
last-level cache, ours and torch's alike. Rates count the same work for both: the products of pairs that see each other, and
for decode the bytes of our 16-bit cache.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

PAST_CACHE = 640 << 20


class Ours:
    def __init__(self, program, threads):
        self.process = subprocess.Popen([program, str(threads), "1", "answer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def torch_cases(heads, kv_heads, width, rows, cached):
    """Name -> callable, for every way to ask torch for this attention."""
    cases = {}
    keys = rows + cached
    for dtype in (torch.float32, torch.bfloat16):
        if rows == 1 and dtype == torch.bfloat16 and keys > 8192 and heads > 9:
            continue  # Seconds a call, far behind float32.
        for shared in (True, False):
            n = kv_heads if shared else heads
            size = 2 * n * keys * width * dtype.itemsize
            copies = max(1, PAST_CACHE // size) if rows == 1 else 1
            q = torch.randn(1, heads, rows, width, dtype=dtype)
            kv = [[torch.randn(1, n, keys, width, dtype=dtype) for _ in range(2)] for _ in range(copies)]
            mask = None
            if rows > 1 and cached > 0:
                mask = torch.ones(rows, keys, dtype=torch.bool).tril(cached)
            turn = [0]

            def call(q=q, kv=kv, mask=mask, shared=shared, turn=turn):
                k, v = kv[turn[0] % len(kv)]
                turn[0] += 1
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=rows > 1 and mask is None, enable_gqa=shared)

            cases[f"{str(dtype)[6:]} {'shared' if shared else 'repeated'}"] = call
    return cases


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(ours, shape, rounds):
    name = ours.ask("f16 " + " ".join(str(x) for x in shape))
    theirs = torch_cases(*shape)
    slow = {}
    for key, call in theirs.items():
        call()
        slow[key] = seconds(call)
    best = min(slow.values())
    theirs = {key: call for key, call in theirs.items() if slow[key] < 1.4 * best}  # The others cannot win.
    times = {key: [] for key in theirs}
    mine, shares = [], []
    for _ in range(rounds):
        for key, call in theirs.items():
            times[key].append(seconds(call))
        time.sleep(0.02)  # Its threads stop spinning.
        before = [float(x) for x in ours.ask("probe").split()]
        took, flops, size = (float(x) for x in ours.ask("run").split())
        after = [float(x) for x in ours.ask("probe").split()]
        limits = [(a + b) / 2 for a, b in zip(before, after)]
        mine.append(took)
        shares.append(size / took / 1e9 / limits[1] if shape[3] == 1 else flops / took / 1e9 / limits[0])
    peer = min(theirs, key=lambda key: statistics.median(times[key]))
    ratio = statistics.median(t / m for t, m in zip(times[peer], mine))
    median = statistics.median(mine)
    row = {"case": name, "ms": 1e3 * median, "rate": (size if shape[3] == 1 else flops) / median / 1e9, "share_of_limit": statistics.median(shares),
           "peer": peer, "peer_ms": 1e3 * statistics.median(times[peer]), "ratio": ratio}
    unit = "GB/s" if shape[3] == 1 else "GF/s"
    row["shares"] = shares
    for key, seconds_of in (("rates", mine), ("peer_rates", times[peer])):
        row[key] = [(size if shape[3] == 1 else flops) / t / 1e9 for t in seconds_of]
    print(f"{name:42s} {row['ms']:9.3f} ms {row['rate']:7.1f} {unit}  {100 * row['share_of_limit']:5.1f} % of the limit  "
          f"torch {peer:17s} {row['peer_ms']:9.3f} ms  ratio {ratio:.2f}", flush=True)
    return row


def prepare(threads):
    torch.set_num_threads(threads)
    torch.manual_seed(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="without the longest cases")
    parser.add_argument("--only", help="cases of this head width and kind only: 64p, 128p, 64d, 128d")
    parser.add_argument("--json")
    args = parser.parse_args()
    prepare(args.threads)
    ours = Ours(args.program, args.threads)
    shapes = [(9, 3, 64, n, 0) for n in (512, 1024, 2048, 4096, 8192)] + [(9, 3, 64, 512, 7600)]
    shapes += [(8, 2, 128, n, 0) for n in (512, 1024, 2048, 4096, 8192)]
    shapes += [(9, 3, 64, 1, n - 1) for n in (2048, 8192, 32768)] + [(32, 8, 128, 1, 32767)]
    rows = []
    for shape in shapes:
        if args.quick and shape[3] > 2048:
            continue
        if args.only and args.only != f"{shape[2]}{'d' if shape[3] == 1 else 'p'}":
            continue
        rows.append(compare(ours, shape, args.rounds))
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"threads": args.threads, "rounds": args.rounds, "torch": torch.__version__, "rows": rows}, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
