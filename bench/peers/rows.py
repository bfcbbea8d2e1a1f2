"""What is compared: each row names our run, its peers' runs, and what the ratio must be. Rows of a group share their runs.

A group is measured in rounds; in each round every run of it is called once, ours first, for `samples` samples.
"""
import dataclasses

from .engines import Run

SMOLLM, SMOLLM_Q4_0, GEMMA = "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_0.gguf", "gemma-3-270m-q4_k_m.gguf"
LLAMA_1B = "llama-3.2-1b-{}.gguf"  # Random weights: models.py makes them.
TYPES = ("q4_0", "q8_0", "q4_k", "q6_k", "bf16")


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    group: str
    work: str
    metric: str  # prefill, decode, share (of the limit that binds), start; attention has rows of its own.
    ours: Run
    peers: tuple  # Of (name, Run); the fastest counts. None: the machine's limit.
    must: float
    aim: str = ""
    samples: int = 1  # A call; several where filling the cache takes most of it.


def ours(model=SMOLLM, **sizes):
    return Run("ours", model, **sizes)


def llama(model=SMOLLM, **sizes):
    return Run("llama", model, **sizes)


def openvino(**sizes):
    return Run("openvino", SMOLLM_Q4_0, **sizes)


def smollm_rows():
    short = {"prompt": 512, "decode": 64}
    deep, middle = {"prompt": 512, "decode": 32, "depth": 7600}, {"decode": 32, "depth": 2000}
    whole = ("OpenVINO Q4_0", openvino(prompt=7600, decode=32))
    same, repacked = ("llama.cpp Q4_1", llama(**short)), ("llama.cpp Q4_0", llama(SMOLLM_Q4_0, **short))
    vino = ("OpenVINO Q4_0", openvino(**short))
    deep_llama = ("llama.cpp Q4_1", llama(**deep))
    return [
        Row("prefill512", "short", "prefill 512", "prefill", ours(**short), (same,), 6, "10x"),
        Row("prefill512_q4_0", "short", "prefill 512, peer Q4_0", "prefill", ours(**short), (repacked,), 2, "3x"),
        Row("prefill512_openvino", "short", "prefill 512, peer OpenVINO", "prefill", ours(**short), (vino,), 1.15, "1.6x"),
        Row("decode", "short", "decode, empty cache", "decode", ours(**short), (same, repacked), 1.6, "85% of the read limit"),
        Row("decode2000", "2000", "decode at 2000", "decode", ours(**middle),
            (("llama.cpp Q4_1", llama(**middle)), ("OpenVINO Q4_0", openvino(prompt=2000, decode=32))), 2, "80% of the read limit", 2),
        Row("prefill512_7600", "7600", "prefill 512 at 7600", "prefill", ours(**deep), (deep_llama,), 4, "6x", 4),
        Row("decode7600", "7600", "decode at 7600", "decode", ours(**deep), (deep_llama,), 2.5, "80% of the read limit", 4),
        Row("prefill7600", "7600_openvino", "prefill of 7600 at once", "prefill", ours(prompt=7600), (whole,), 1.1, "1.5x", 2),
        Row("decode7600_openvino", "7600_openvino", "decode at 7600, peer OpenVINO", "decode", ours(decode=32, depth=7600), (whole,), 2.5,
            "80% of the read limit", 2),
        Row("batch16", "batch16", "decode, batch 16, total", "share", ours(decode=64, batch=16), None, 0.35, "55%"),
        Row("start", "start", "load to first token, a second", "start", ours(), (("llama.cpp Q4_1", llama()),), 1, "under 0.25 s"),
    ]


def gemma_rows():
    sizes = {"prompt": 512, "decode": 64}
    pair = (ours(GEMMA, **sizes), (("llama.cpp", llama(GEMMA, **sizes)),))
    return [Row("gemma_prefill", "gemma", "Gemma 3 270M, prefill 512", "prefill", *pair, 1.5, "2.5x"),
            Row("gemma_decode", "gemma", "Gemma 3 270M, decode", "decode", *pair, 1.5, "1.8x")]


def type_rows():
    rows = []
    for kind in TYPES:
        model = LLAMA_1B.format(kind)
        sizes = {"prompt": 512, "decode": 32}
        pair = (ours(model, **sizes), (("llama.cpp", llama(model, **sizes)),))
        name = f"1b_{kind}"
        rows += [Row(f"{name}_prefill", name, f"1B {kind.upper()}, prefill 512", "prefill", *pair, 1.5, "80% of the port limit", 4),
                 Row(f"{name}_decode", name, f"1B {kind.upper()}, decode", "decode", *pair, 1.3, "85% of the read limit", 4)]
    return rows


@dataclasses.dataclass(frozen=True)
class AttentionRow:
    """Attention alone beside torch: `shape` is heads, kv heads, width, rows, cached."""
    name: str
    group: str
    work: str
    shape: tuple
    must: float
    aim: str


def attention_rows():
    rows = []
    for width, heads in ((64, (9, 3)), (128, (8, 2))):
        for n in (512, 1024, 2048, 4096, 8192):
            rows.append(AttentionRow(f"attention_d{width}_{n}", "attention", f"attention, causal, d{width}, {n}", (*heads, width, n, 0), 1.5,
                                     "75% of the bf16 or float peak"))
    for width, heads in ((64, (9, 3)), (128, (32, 8))):
        rows.append(AttentionRow(f"decode_attention_d{width}", "decode_attention", f"decode attention {heads[0]}/{heads[1]}, d{width}, 32k",
                                 (*heads, width, 1, 32767), 1.4, "90% of the read limit"))
    return rows


def all_rows():
    return smollm_rows() + gemma_rows() + attention_rows() + type_rows()


def chosen(names, rows):
    """Rows whose name or group is among `names`, in their order; all for None. Throws ValueError for a name of neither."""
    if names is None:
        return rows
    known = {row.name for row in rows} | {row.group for row in rows}
    for name in names:
        if name not in known:
            raise ValueError(f"no row or group {name!r}; there are: {', '.join(row.name for row in rows)}")
    return [row for row in rows if row.name in names or row.group in names]
