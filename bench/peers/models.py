"""The files that no one publishes: SmolLM2 in Q4_0 and the shape of Llama 3.2 1B with random weights, in every type.

Needs llama-quantize, and for the random weights the Python packages gguf and numpy. About 6 GB in all.
"""
import pathlib

from . import engines, rows


def random_1b(path):
    """bf16, normal with standard deviation 0.02; no vocabulary, since only ids are fed."""
    import gguf
    import numpy
    layers, width, ffn, heads, kv_heads, head, vocabulary = 16, 2048, 8192, 32, 8, 64, 128256
    noise = numpy.random.default_rng(1).standard_normal((1 << 22) + 1, dtype=numpy.float32) * 0.02
    noise = (noise.view(numpy.uint32) >> 16).astype(numpy.uint16)
    out = gguf.GGUFWriter(str(path), "llama")
    for add, value in ((out.add_block_count, layers), (out.add_context_length, 8192), (out.add_embedding_length, width),
                       (out.add_feed_forward_length, ffn), (out.add_head_count, heads), (out.add_head_count_kv, kv_heads),
                       (out.add_key_length, head), (out.add_value_length, head), (out.add_rope_dimension_count, head),
                       (out.add_rope_freq_base, 5e5), (out.add_layer_norm_rms_eps, 1e-5), (out.add_vocab_size, vocabulary),
                       (out.add_tokenizer_model, "no_vocab")):
        add(value)

    def weight(name, n, k):
        data = numpy.resize(noise, n * k).view(numpy.uint8).reshape(n, 2 * k)
        out.add_tensor(name + ".weight", data, raw_dtype=gguf.GGMLQuantizationType.BF16)

    def norm(name):
        out.add_tensor(name + ".weight", numpy.ones(width, numpy.float32))

    weight("token_embd", vocabulary, width)
    norm("output_norm")
    for i in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            norm(f"blk.{i}.{name}")
        for name, n, k in (("attn_q", heads * head, width), ("attn_k", kv_heads * head, width), ("attn_v", kv_heads * head, width),
                           ("attn_output", width, heads * head), ("ffn_gate", ffn, width), ("ffn_up", ffn, width), ("ffn_down", width, ffn)):
            weight(f"blk.{i}.{name}", n, k)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def prepare(folder, llama_bin, say=print):
    """Makes what is not there yet."""
    folder, quantize = pathlib.Path(folder), pathlib.Path(llama_bin) / "llama-quantize"
    base = folder / rows.LLAMA_1B.format("bf16")
    if not base.is_file():
        say(f"making {base.name}")
        random_1b(base)
    wanted = [(folder / rows.SMOLLM, folder / rows.SMOLLM_Q4_0, "Q4_0", ["--allow-requantize"])]
    wanted += [(base, folder / rows.LLAMA_1B.format(kind), kind.upper(), ["--pure"]) for kind in rows.TYPES if kind != "bf16"]
    for source, target, kind, flags in wanted:
        if not target.is_file():
            say(f"making {target.name}")
            engines.call([quantize, *flags, source, target, kind])
