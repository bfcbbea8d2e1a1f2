#!/usr/bin/env python3
"""How far `minillm score` is from the model in float32: mean KL divergence, same most likely token, ratio of perplexities.

    pip install torch transformers gguf accelerate
    tools/kl_divergence.py MODEL.gguf [--windows 20] [--folder FOLDER] [-- MORE FLAGS FOR minillm score]

The text is cut into windows of 512 tokens, each starting with BOS in place of its first token where the model wants one, and
positions 256 to 511 are compared, as `llama-perplexity --kl-divergence` does. The baseline (Hugging Face in float32 on the
dequantised weights) is computed once and kept in FOLDER as float32 logits: 50 MB a window for a vocabulary of 49,152.
Mean KL is in nats, KL(float32 || ours).
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

WINDOW, FIRST = 512, 256


def windows_of(path, text, n_windows):
    from make_golden import load_tokenizer

    tokenizer, _ = load_tokenizer(path)
    with open(text, encoding="utf-8") as file:
        ids = tokenizer(file.read())["input_ids"]
    wants_bos = ids[0] == tokenizer.bos_token_id
    rows = [ids[i:i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)][:n_windows]
    return [[tokenizer.bos_token_id] + row[1:] if wants_bos else row for row in rows]


def baseline(args):
    """Token ids [W, 512], and float32 logits [W, 256, V] mapped from the file."""
    name = os.path.join(args.folder, os.path.splitext(os.path.basename(args.model))[0])
    if os.path.exists(name + ".ids.npy") and len(np.load(name + ".ids.npy")) >= args.windows:
        return np.load(name + ".ids.npy")[:args.windows], np.load(name + ".logits.npy", mmap_mode="r")
    import torch
    from make_golden import load_model, logits_of

    torch.set_num_threads(args.threads)
    rows = windows_of(args.model, args.text, args.windows)
    model = load_model(args.model)
    os.makedirs(args.folder, exist_ok=True)
    shape = (len(rows), WINDOW - FIRST, model.config.vocab_size)
    logits = np.lib.format.open_memmap(name + ".logits.npy", mode="w+", dtype=np.float32, shape=shape)
    for i, row in enumerate(rows):
        logits[i] = logits_of(model, row)[FIRST:].numpy()
        print(f"baseline: window {i + 1} of {len(rows)}", file=sys.stderr, flush=True)
    logits.flush()
    np.save(name + ".ids.npy", np.array(rows, np.int32))
    return np.array(rows, np.int32), logits


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def compare(reference, ours, next_ids):
    """Per position: KL, whether the most likely token is the same; and the NLL of both where the next token is known."""
    kl, same, nll_reference, nll_ours = [], [], [], []
    for at in range(0, len(reference), 32):  # 32 rows of 262,144 doubles: 67 MB.
        p, q = log_softmax(reference[at:at + 32]), log_softmax(ours[at:at + 32])
        kl.extend((np.exp(p) * (p - q)).sum(axis=-1))
        same.extend(p.argmax(axis=-1) == q.argmax(axis=-1))
        ids = next_ids[at:at + 32]
        nll_reference.extend(-p[np.arange(len(ids)), ids])
        nll_ours.extend(-q[np.arange(len(ids)), ids])
    return kl, same, nll_reference, nll_ours


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--minillm", default="build/release/bin/minillm")
    parser.add_argument("--text", default="/usr/share/common-licenses/GPL-3")
    parser.add_argument("--windows", type=int, default=14)
    parser.add_argument("--folder", default=os.path.join(tempfile.gettempdir(), "minillm-kl"))
    parser.add_argument("--threads", type=int, default=2, help="for the baseline")
    parser.add_argument("--baseline-only", action="store_true")
    parser.add_argument("flags", nargs="*", help="after --: flags for minillm score, such as --kv-dtype f32")
    args = parser.parse_args()
    rows, reference = baseline(args)
    if args.baseline_only:
        return
    totals = [[], [], [], []]
    for i, row in enumerate(rows):
        with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
            file = os.path.join(scratch, "logits.npy")
            command = [args.minillm, "score", "-m", args.model, "--ids", ",".join(map(str, row)), "--logits", file, "--json"]
            subprocess.run(command + args.flags, check=True, stdout=subprocess.DEVNULL)
            ours = np.load(file)
        if ours.shape != (WINDOW, reference.shape[2]):
            raise SystemExit(f"minillm score wrote {ours.shape}, expected {(WINDOW, reference.shape[2])}")
        for total, values in zip(totals, compare(reference[i], ours[FIRST:], row[FIRST + 1:])):
            total.extend(values)
        print(f"window {i + 1} of {len(rows)}: mean KL so far {np.mean(totals[0]):.6f}", file=sys.stderr, flush=True)
    kl, same, nll_reference, nll_ours = map(np.array, totals)
    print(json.dumps({"windows": len(rows), "positions": len(kl), "mean_kl": kl.mean(), "mean_kl_error": kl.std() / len(kl) ** 0.5,
                      "max_kl": kl.max(), "same_top": same.mean(), "perplexity_ratio": float(np.exp(nll_ours.mean() - nll_reference.mean())),
                      "perplexity_float32": float(np.exp(nll_reference.mean()))}))


if __name__ == "__main__":
    main()
