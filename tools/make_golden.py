#!/usr/bin/env python3
"""Writes tests/golden/: what Hugging Face transformers computes in float32 from a GGUF's dequantised weights.

    pip install torch transformers gguf accelerate
    tools/make_golden.py --smollm2 SmolLM2-135M-Instruct.Q4_1.gguf --gemma3 gemma-3-270m-q4_k_m.gguf

NAME_TEXT.golden, little endian, read by tests/support/golden.h:
    char[8]  magic "MLGOLD01"
    int32    T tokens, K most likely tokens a row, C fixed columns, V vocabulary
    int32    ids [T]
    int32    columns [C]            the same pseudo-random ids for every text of a model, ascending
    float32  lse [T]                log of the sum of exp(logits) of each row
    float32  nll [T]                -log p(ids[t+1] | ids[..t]); the last row has no next token and holds 0
    int32    top_ids [T, K]         most likely first
    float32  top_logits [T, K]
    float32  column_logits [T, C]

NAME_greedy.json, a list: prompt, its ids, up to 64 greedily chosen tokens, their text, and by how much each won over the
runner-up. The prompts are chosen so that no choice is near a tie: a tie proves nothing about whoever breaks it differently.
"""
import argparse
import json
import os
import struct

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = {"english": 256, "code": 64, "chinese": 64}
N_TOP, N_COLUMNS, N_GREEDY = 20, 64, 64
HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "..", "tests", "golden")


def load_tokenizer(path):
    """transformers drops the name of the pre-tokenizer when it reads a GGUF; "smollm" splits digits one by one."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    folder, name = os.path.split(os.path.abspath(path))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    fields = GGUFReader(path).fields
    pre = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else ""
    if pre == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    template = fields["tokenizer.chat_template"].contents() if "tokenizer.chat_template" in fields else None
    return tokenizer, template


def load_model(path):
    folder, name = os.path.split(os.path.abspath(path))
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float()


def write_golden(path, ids, logits, columns):
    lse = torch.logsumexp(logits.double(), dim=-1)
    nll = torch.zeros(len(ids))
    nll[:-1] = (lse[:-1] - logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].double()).float()
    top = torch.topk(logits, N_TOP, dim=-1)
    with open(path, "wb") as out:
        out.write(b"MLGOLD01" + struct.pack("<4i", len(ids), N_TOP, len(columns), logits.shape[1]))
        for array, kind in ((ids, "<i4"), (columns, "<i4"), (lse, "<f4"), (nll, "<f4"), (top.indices, "<i4"),
                            (top.values, "<f4"), (logits[:, torch.from_numpy(columns)], "<f4")):
            out.write(np.ascontiguousarray(np.asarray(array), dtype=kind).tobytes())
    print(f"{path}: {len(ids)} tokens, mean NLL {nll[:-1].mean():.6f}, {os.path.getsize(path)} bytes")


def greedy(model, tokenizer, prompt):
    """One token at a time with the cache of transformers, to the end token or N_GREEDY."""
    ends = {tokenizer.eos_token_id}
    ids = tokenizer(prompt)["input_ids"]
    cache, new, margins, step = None, [], [], torch.tensor([ids])
    while len(new) < N_GREEDY and not (new and new[-1] in ends):
        with torch.no_grad():
            out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = torch.topk(out.logits[0, -1].float(), 2)
        new.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 4))
        step = torch.tensor([[new[-1]]])
    print(f"{prompt!r}: {tokenizer.decode(new)!r}, smallest margin {min(margins)}")
    return {"prompt": prompt, "prompt_ids": ids, "new_ids": new, "new_text": tokenizer.decode(new, skip_special_tokens=True),
            "margins": margins}


def make(name, path, questions, prompts):
    tokenizer, template = load_tokenizer(path)
    model = load_model(path)
    columns = np.sort(np.random.default_rng(2026).choice(model.config.vocab_size, N_COLUMNS, replace=False))
    for text, n_tokens in TEXTS.items():
        with open(os.path.join(FOLDER, text + ".txt"), encoding="utf-8") as file:
            ids = tokenizer(file.read())["input_ids"][:n_tokens]
        if len(ids) != n_tokens:
            raise SystemExit(f"{text}.txt has {len(ids)} tokens for {name}, {n_tokens} are needed")
        write_golden(os.path.join(FOLDER, f"{name}_{text}.golden"), ids, logits_of(model, ids), columns)
    if questions:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        render = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template).render
        prompts = [render(messages=[{"role": "user", "content": q}], add_generation_prompt=True) for q in questions] + prompts
    with open(os.path.join(FOLDER, f"{name}_greedy.json"), "w", encoding="utf-8") as out:
        out.write("[" + ",\n".join(json.dumps(greedy(model, tokenizer, p), ensure_ascii=False) for p in prompts) + "]\n")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--smollm2", help="GGUF of SmolLM2-135M-Instruct")
    args.add_argument("--gemma3", help="GGUF of Gemma 3 270M")
    args.add_argument("--threads", type=int, default=2)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    if args.smollm2:
        make("smollm2", args.smollm2, ["What is the capital of France?", "Count from 1 to 20."], [])
    if args.gemma3:
        make("gemma3", args.gemma3, [], ["def fibonacci(n):\n", "Water boils at a temperature of"])


if __name__ == "__main__":
    main()
