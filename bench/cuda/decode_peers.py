"""Our decode attention kernel next to cuDNN and FlashAttention-3, interleaved in CUDA graphs on the same keys and values; cold L2: each
call of a graph reads other keys, from several times the cache. The same over keys and values in 8 bits, where FlashAttention-3 wants its
queries so as well. One JSON line a shape: median microseconds, TB/s of keys and values."""
import ctypes
import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from graph_timing import graphed, medians

try:
    import fa3_fwd_interface as fa3
except ImportError:
    fa3 = None

lib = ctypes.CDLL(sys.argv[1])
lib.minillm_decode_scratch.restype = ctypes.c_size_t


def pointer(x):
    return ctypes.c_void_p(x.data_ptr())


def step_of(b, s, g, page):
    """Slots, lengths, where the block tables begin, and the tables, as decode_variants.cu lists them."""
    host = torch.zeros(3 * b + b * (s // page), dtype=torch.int32)
    lib.minillm_decode_table(pointer(host), b, s, g, page)
    return host.cuda()


def measure(h, g, d, b, s, pages=(None, 64, 16)):
    n_bytes = 4 * b * g * s * d
    copies = max(2, min(48, int(3e8 // n_bytes) + 1))
    caches = [[torch.empty(b, g, s, d, dtype=torch.bfloat16, device='cuda').normal_() for _ in range(2)] for _ in range(copies)]
    q = torch.randn(b, h, 1, d, dtype=torch.bfloat16, device='cuda')
    q_float, out = q.float(), torch.empty(b, h, d, device='cuda')
    scratch = torch.zeros(lib.minillm_decode_scratch(b, h, g, d), dtype=torch.uint8, device='cuda')
    tables = {page: step_of(b, s, g, page or s) for page in pages}
    small = [[x.to(torch.float8_e4m3fn) for x in pair] for pair in caches]
    small += [[x.clone() for x in pair] for pair in small] if len(small) < 48 else []  # As many bytes.

    def ours(page, f8=False):
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        for k, v in small if f8 else caches:
            lib.minillm_decode(pointer(k), pointer(v), pointer(q_float), pointer(out), pointer(scratch), pointer(tables[page]), b, s, h, g, d, page or s,
                               int(f8), stream)

    def cudnn():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            for k, v in caches:
                F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    fns = {f'pages of {page}' if page else 'contiguous': lambda page=page: ours(page) for page in pages}
    fns |= {f'f8 pages of {page}': lambda page=page: ours(page, True) for page in pages if page}
    fns['cudnn'] = cudnn
    if fa3:
        lens = torch.full((b,), s, dtype=torch.int32, device='cuda')
        meta = fa3.get_scheduler_metadata(b, 1, s, h, g, d, lens, torch.bfloat16, causal=True)
        views = [(k.transpose(1, 2), v.transpose(1, 2)) for k, v in caches]
        fns['fa3'] = lambda: [fa3.flash_attn_with_kvcache(q.transpose(1, 2), k, v, cache_seqlens=lens, causal=True, scheduler_metadata=meta) for k, v in views]
        q8, views8 = q.to(torch.float8_e4m3fn).transpose(1, 2), [(k.transpose(1, 2), v.transpose(1, 2)) for k, v in small]
        meta8 = fa3.get_scheduler_metadata(b, 1, s, h, g, d, lens, torch.float8_e4m3fn, causal=True)
        fns['f8 fa3'] = lambda: [fa3.flash_attn_with_kvcache(q8, k, v, cache_seqlens=lens, causal=True, scheduler_metadata=meta8) for k, v in views8]
    replays = {}
    for name, fn in list(fns.items()):
        try:
            replays[name] = graphed(fn)
        except Exception as error:  # A peer may refuse a shape.
            print(json.dumps(dict(h=h, g=g, d=d, b=b, s=s, peer=name, error=str(error)[:200])), flush=True)
    us = {name: ms * 1e3 / (len(small) if name.startswith('f8') else copies) for name, ms in medians(replays, 9).items()}
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        want = F.scaled_dot_product_attention(q, *caches[-1], enable_gqa=True).float().view(b, h, d)
    ours(pages[-1])
    print(json.dumps(dict(h=h, g=g, d=d, b=b, s=s, mb=round(n_bytes / 1e6), us={n: round(t, 2) for n, t in us.items()},
                          tb_s={n: round(n_bytes / (2 if n.startswith('f8') else 1) / t / 1e6, 3) for n, t in us.items()}, max_diff=round((out - want).abs().max().item(), 5))), flush=True)


if __name__ == '__main__':
    for h, g, d in ((32, 8, 128), (9, 3, 64)):
        for b in (1, 8, 64):
            for s in (1024, 8192, 32768):
                measure(h, g, d, b, s)
                torch.cuda.empty_cache()
