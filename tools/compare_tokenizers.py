#!/usr/bin/env python3
"""compare_tokenizers.py - our tokenizer against the references, string by string.

    tools/compare_tokenizers.py MODEL.gguf [--pipe build/release/bin/tokenizer_pipe] [--count 100000] [--seed 1]
    tools/compare_tokenizers.py MODEL.gguf --golden tests/golden/X.tokens --count 1500       stores the reference's answers
    tools/compare_tokenizers.py MODEL.gguf --speed TEXT                                      times ours and Hugging Face's, interleaved
    tools/compare_tokenizers.py tokenizer.json                                               against Hugging Face's reading of the same file
    tools/compare_tokenizers.py - --families FOLDER --train TEXT     trains a small tokenizer.json of each family, with answers

References, both built from the GGUF file's own vocabulary:
  gpt2   (SmolLM2) Hugging Face tokenizers: BPE with the file's merges; its pre-tokenizer as in the model's tokenizer.json
         (transformers drops the name of it when it reads a GGUF): digits one by one, then ByteLevel with the GPT-2 pattern.
  llama  (Gemma 3) SentencePiece, which the model was trained with: a ModelProto of the file's pieces, scores and types.

Invalid UTF-8 goes to the references as Python's errors="replace" gives it.

Where the references for Gemma disagree (SentencePiece, Hugging Face's conversion to BPE with merges, llama.cpp), SentencePiece's
rule is followed:
  - runs of more than 31 spaces (newlines, tabs): SentencePiece cuts user-defined pieces from the left, longest first; the converted BPE joins
    pairs by rank and meets in other places;
  - U+2581 in the text is a space to SentencePiece; added tokens of the conversion match it before spaces are marked;
  - control tokens ("<bos>") are text unless asked for; Hugging Face reads them unless encode_special_tokens is set.
Where Hugging Face's tokenizers are followed no further:
  - NFKC and NFC of characters newer than its table (U+10781..., Unicode 14);
  - it decodes an added token with "normalized" as the normalizer leaves it, we as it is written.
Decoding: a wrong byte sequence is one U+FFFD for each maximal subpart here (as in Hugging Face's ByteLevel), one for each byte in
SentencePiece and in Hugging Face's ByteFallback.
"""
import argparse
import json
import random
import struct
import subprocess
import sys
import time

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers


class Vocabulary:
    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields
        get = lambda key: fields["tokenizer.ggml." + key].contents() if "tokenizer.ggml." + key in fields else None
        self.model, self.pre = get("model"), get("pre")
        self.tokens, self.types, self.scores, self.merges = get("tokens"), get("token_type"), get("scores"), get("merges")


class JsonVocabulary:
    def __init__(self, path):
        self.path, self.model = path, "json"
        tokenizer = Tokenizer.from_file(path)
        added = tokenizer.get_added_tokens_decoder()
        self.tokens = [t for t, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
        self.types = [3 if i in added and added[i].special else 4 if i in added else 1 for i in range(len(self.tokens))]


class HuggingFace:
    """Byte-level BPE of a GGUF file, or any tokenizer.json."""

    def __init__(self, vocabulary):
        if vocabulary.model == "json":
            self.tokenizer = Tokenizer.from_file(vocabulary.path)
            return
        steps = {"smollm": [pre_tokenizers.Digits(individual_digits=True)], "gpt-2": []}[vocabulary.pre]
        vocab = {token: i for i, token in enumerate(vocabulary.tokens)}
        self.tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in vocabulary.merges]))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False)])
        self.tokenizer.decoder = decoders.ByteLevel()
        self.tokenizer.add_special_tokens([t for t, kind in zip(vocabulary.tokens, vocabulary.types) if kind == 3])

    def encode(self, texts, special):
        self.tokenizer.encode_special_tokens = not special
        return [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids):
        return self.tokenizer.decode_batch(ids, skip_special_tokens=False)


class SentencePiece:
    def __init__(self, vocabulary):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2 as pb

        proto = pb.ModelProto()
        for piece, score, kind in zip(vocabulary.tokens, vocabulary.scores, vocabulary.types):
            piece = piece.replace(" ", "\u2581") if kind == 4 else piece
            proto.pieces.add(piece=piece, score=score, type=kind)
        unknown = vocabulary.types.index(2) if 2 in vocabulary.types else vocabulary.tokens.index("<unk>")
        proto.pieces[unknown].type = 2  # GGUF files mark it a control token; SentencePiece demands one unknown.
        proto.trainer_spec.model_type = pb.TrainerSpec.BPE
        proto.trainer_spec.byte_fallback = True
        proto.trainer_spec.unk_id = unknown
        proto.normalizer_spec.name = "identity"
        proto.normalizer_spec.add_dummy_prefix = False
        proto.normalizer_spec.remove_extra_whitespaces = False
        proto.normalizer_spec.escape_whitespaces = True
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.special = sorted((t for t, k in zip(vocabulary.tokens, vocabulary.types) if k in (2, 3)), key=len, reverse=True)
        self.ids = {t: i for i, t in enumerate(vocabulary.tokens)}

    def encode(self, texts, special):
        if not special:
            return self.processor.encode(texts)
        import re

        pattern = re.compile("(" + "|".join(map(re.escape, self.special)) + ")")
        out = []
        for text in texts:
            ids = []
            for i, part in enumerate(pattern.split(text)):
                ids += [self.ids[part]] if i % 2 else self.processor.encode(part) if part else []
            out.append(ids)
        return out

    def decode(self, ids):
        return None


class Pipe:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def encode(self, data):
        p = self.process
        p.stdin.write(struct.pack("<I", len(data)) + data)
        p.stdin.flush()
        n = struct.unpack("<I", p.stdout.read(4))[0]
        ids = list(struct.unpack(f"<{n}i", p.stdout.read(4 * n)))
        size = struct.unpack("<I", p.stdout.read(4))[0]
        return ids, p.stdout.read(size)


def random_character(rng):
    kind = rng.random()
    if kind < 0.35:
        return chr(rng.randrange(0x20, 0x7F))
    if kind < 0.45:
        return chr(rng.randrange(0x80, 0x800))
    if kind < 0.60:
        c = rng.randrange(0x800, 0x10000)
        return chr(c) if not 0xD800 <= c < 0xE000 else "\ufffd"
    if kind < 0.70:
        return chr(rng.randrange(0x4E00, 0x9FFF))
    if kind < 0.80:
        return chr(rng.randrange(0x1F300, 0x1FB00))
    if kind < 0.90:
        return chr(rng.randrange(0x10000, 0x20000))
    return chr(rng.randrange(0x20000, 0x110000))


SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u200b", "\u2028", "\u202f", "\u3000", "\ufeff"]
PARTS = ["'s", "'S", "'ll", "'LL", "'re", "\u2019s", "'\u017f", "n't", "\u0301", "\u200d", "\u2581", "\u2581\u2581", "\u0120", "\u010a", "\x00", "\x7f", "\ufffd", "<0x0A>", "<0x", "</s>",
         "1\u0663\u00bd\u2167", "\U0001F469\u200d\U0001F4BB", "\U0001F1E9\U0001F1EA", "e\u0301", "\uac00\u1100\u1161"]


def random_strings(count, seed, vocabulary, lengths=(1, 2, 3, 5, 8, 13)):
    """Every kind the contract names; a fixed seed gives fixed strings. Yields bytes."""
    rng = random.Random(seed)
    words = [t.replace("\u0120", " ").replace("\u2581", " ") for t in rng.sample(vocabulary.tokens, min(5000, len(vocabulary.tokens)))]
    special = [t for t, k in zip(vocabulary.tokens, vocabulary.types) if k in (3, 4)]
    special = special[:300] + special[-300:] if len(special) > 600 else special
    look_alikes = lambda: (lambda t: rng.choice([t, t[:-1], t[1:], t.upper(), t + t, "<" + t, t + ">", " " + t + " "]))(rng.choice(special))
    for _ in range(count):
        out = []
        for _ in range(rng.choice(lengths)):
            kind = rng.random()
            if kind < 0.25:
                out += [random_character(rng) for _ in range(rng.randrange(1, 12))]
            elif kind < 0.50:
                out += [rng.choice(words) for _ in range(rng.randrange(1, 6))]
            elif kind < 0.62:
                out += [rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 7, 33]) for _ in range(rng.randrange(1, 4))]
            elif kind < 0.70:
                out.append("".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 9))))
            elif kind < 0.78:
                out.append(look_alikes())
            elif kind < 0.90:
                out += [rng.choice(PARTS) for _ in range(rng.randrange(1, 4))]
            elif kind < 0.95:
                out.append(random_character(rng) * rng.choice([2, 5, 40]))
            else:
                out.append(bytes(rng.randrange(256) for _ in range(rng.randrange(1, 8))))
        yield b"".join(p if isinstance(p, bytes) else p.encode() for p in out)


def compare(pipe, reference, strings, special):
    wrong = decoded_wrong = 0
    for begin in range(0, len(strings), 2000):
        batch = strings[begin:begin + 2000]
        texts = [s.decode("utf-8", "replace") for s in batch]
        want = reference.encode(texts, special)
        back = reference.decode(want)
        for i, data in enumerate(batch):
            ids, decoded = pipe.encode(data)
            if ids != want[i]:
                wrong += 1
                if wrong <= 10:
                    print("DIFFERENT", json.dumps(texts[i]), "\n  ours", ids, "\n  want", want[i])
            elif (back[i] if back else texts[i].replace("\u2581", " ")).encode() != decoded:
                decoded_wrong += 1
                if decoded_wrong <= 10:
                    print("DECODED", json.dumps(texts[i]), "\n  ours", decoded, "\n  want", back[i].encode() if back else "")
    return wrong, decoded_wrong


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def store(path, strings, reference):
    """For each string, in varints: how many ids, the ids, and 1 + how many bytes with the bytes, or 0 where decoding the ids gives them."""
    texts = [s.decode("utf-8", "replace") for s in strings]
    ids = reference.encode(texts, special=False)
    back = reference.decode(ids) or [t.replace("\u2581", " ") for t in texts]
    with open(path, "wb") as out:
        for data, row, decoded in zip(strings, ids, back):
            out.write(varint(len(row)) + b"".join(map(varint, row)))
            out.write(varint(0) if decoded.encode() == data else varint(len(data) + 1) + data)
    print(f"{path}: {len(strings)} strings")


GOLDEN_LENGTHS = (1, 1, 2, 3)
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
             r"\s*[\r\n]+|\s+(?!\S)|\s+")


def make_families(arguments):
    """Small tokenizers of every shape that tokenizer.json files take, for tests without a model."""
    p, n, d = pre_tokenizers, normalizers, decoders
    split = lambda pattern, behavior="isolated", invert=False: p.Split(Regex(pattern), behavior, invert)
    bytes_only = p.ByteLevel(add_prefix_space=False, use_regex=False)
    marked = d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse()])
    families = {  # name: (normalizer, pre-tokenizer, decoder, options of BPE)
        "gpt2": (None, p.ByteLevel(add_prefix_space=True), d.ByteLevel(), {}),
        "smollm": (None, p.Sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)]), d.ByteLevel(), {}),
        "llama3": (None, p.Sequence([split(LLAMA3), bytes_only]), d.ByteLevel(), {"ignore_merges": True}),
        "qwen2": (n.NFC(), p.Sequence([split(LLAMA3.replace("{1,3}", "")), bytes_only]), d.ByteLevel(), {}),
        "gpt4o": (None, p.Sequence([split(GPT4O, "removed", True), bytes_only]), d.ByteLevel(), {}),
        "deepseek3": (None, p.Sequence([split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK3), bytes_only]), d.ByteLevel(), {}),
        "digits": (n.NFKC(), p.Sequence([p.Digits(individual_digits=False), split(r"\w+", "merged_with_next"), p.Split(",", "contiguous"), bytes_only]), d.ByteLevel(), {}),
        "llama2": (n.Sequence([n.Prepend("\u2581"), n.Replace(" ", "\u2581")]), None, d.Sequence([d.Replace("\u2581", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)]),
                   {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}),
        "gemma": (n.Replace(" ", "\u2581"), p.Split(" ", "merged_with_previous"), marked, {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}),
        "metaspace": (n.NFD(), p.Metaspace(prepend_scheme="first"), d.Metaspace(prepend_scheme="first"), {"fuse_unk": True, "unk_token": "<unk>"}),
    }
    text = open(arguments.train, encoding="utf-8").read()[:300000]
    for name, (normalizer, pre_tokenizer, decoder, options) in families.items():
        tokenizer = Tokenizer(models.BPE(**{k: v for k, v in options.items() if k != "ignore_merges"}))
        if normalizer:
            tokenizer.normalizer = normalizer
        if pre_tokenizer:
            tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoder
        special = ["<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if "byte_fallback" in options else [])
        alphabet = [] if "unk_token" in options else p.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=len(special) + 500, special_tokens=special, initial_alphabet=alphabet, max_token_length=12, show_progress=False)
        tokenizer.train_from_iterator(text.splitlines() + SPACES + PARTS, trainer)
        saved = json.loads(tokenizer.to_str())
        saved["model"]["ignore_merges"] = options.get("ignore_merges", False)
        saved["model"]["merges"] = [" ".join(m) for m in saved["model"]["merges"]] if name == "gpt2" else saved["model"]["merges"]
        saved["added_tokens"] = [t for t in saved["added_tokens"] if t["content"] == "<unk>"]
        tokenizer = Tokenizer.from_str(json.dumps(saved))
        tokenizer.add_special_tokens(["<|im_start|>", AddedToken("<|im_end|>", rstrip=True), AddedToken("<mask>", lstrip=True)])
        tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("\n\n\n", normalized=False), AddedToken("Hello", normalized=name not in ("llama2", "metaspace"))])
        path = f"{arguments.families}/{name}.json"
        with open(path, "w", encoding="utf-8") as out:
            json.dump(json.loads(tokenizer.to_str()), out, ensure_ascii=False, separators=(",", ":"))
        vocabulary = JsonVocabulary(path)
        store(f"{arguments.families}/{name}.tokens", list(random_strings(arguments.count, arguments.seed, vocabulary, GOLDEN_LENGTHS)), HuggingFace(vocabulary))


def speed(arguments, vocabulary):
    text = open(arguments.speed, encoding="utf-8").read()
    hf = HuggingFace(vocabulary).tokenizer if vocabulary.model == "gpt2" else gemma_bpe(vocabulary)
    data = text.encode()
    ratios = []
    for _ in range(7):
        process = subprocess.run([arguments.pipe, arguments.model, "time"], input=struct.pack("<I", len(data)) + data, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        ours = float(process.stderr) / 1e3
        start = time.perf_counter()
        hf.encode(text, add_special_tokens=False)
        theirs = time.perf_counter() - start
        ratios.append(theirs / ours)
        print(f"{len(data)} bytes: ours {1e3 * ours:.1f} ms ({len(data) / ours / 1e6:.1f} MB/s), Hugging Face {1e3 * theirs:.1f} ms, ratio {ratios[-1]:.2f}")
    print(f"median ratio {sorted(ratios)[len(ratios) // 2]:.2f}")


def gemma_bpe(vocabulary):
    """Gemma as Hugging Face's converter writes it: BPE with merges made from the scores, and byte fallback."""
    tokens = [t.replace(" ", "\u2581") if k == 4 else t for t, k in zip(vocabulary.tokens, vocabulary.types)]
    vocab = {t: i for i, t in enumerate(tokens)}
    scores = {t: s for t, s in zip(tokens, vocabulary.scores)}
    merges = []
    for token, kind in zip(tokens, vocabulary.types):
        if kind in (1, 4):
            local = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in vocab and token[i:] in vocab]
            merges += [(scores[token] if kind == 1 else 0.0, pair) for pair in sorted(local, key=lambda p: (vocab[p[0]], vocab[p[1]]))]
    merges.sort(key=lambda m: m[0], reverse=True)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[m[1] for m in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, k in zip(tokens, vocabulary.types) if k == 4])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--pipe", default="build/release/bin/tokenizer_pipe")
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--golden")
    parser.add_argument("--speed")
    parser.add_argument("--families")
    parser.add_argument("--train")
    arguments = parser.parse_args()
    if arguments.families:
        return make_families(arguments)
    vocabulary = JsonVocabulary(arguments.model) if arguments.model.endswith(".json") else Vocabulary(arguments.model)
    if arguments.speed:
        return speed(arguments, vocabulary)
    reference = SentencePiece(vocabulary) if vocabulary.model == "llama" else HuggingFace(vocabulary)
    if arguments.golden:
        strings = list(random_strings(arguments.count, arguments.seed, vocabulary, GOLDEN_LENGTHS))
        return store(arguments.golden, strings, reference)
    strings = list(random_strings(arguments.count, arguments.seed, vocabulary))
    failed = 0
    for special in (False, True):
        pipe = Pipe([arguments.pipe, arguments.model] + (["special"] if special else []))
        wrong, decoded_wrong = compare(pipe, reference, strings, special)
        print(f"{len(strings)} strings, special tokens {'read' if special else 'as text'}: {wrong} differ, {decoded_wrong} decode differently")
        failed += wrong
    return sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
