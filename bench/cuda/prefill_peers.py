"""Our Hopper prefill kernel next to FlashAttention-3 and cuDNN, interleaved in CUDA graphs on the same tensors. One JSON line a shape.

    prefill_peers.py LIBRARY [LENGTHS [WIDTHS]]     comma-separated; pages are the same memory taken as pages in scattered order
"""
import ctypes
import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import fa3_fwd_interface as fa3

from graph_timing import event_ms, graphed, medians

lib = ctypes.CDLL(sys.argv[1])


def ours(name, q, k, v, out, tickets, causal):
    b, s, h, d = q.shape
    status = lib.minillm_prefill(name.encode(), *(ctypes.c_void_p(x.data_ptr()) for x in (q, k, v, out, tickets)), b, s, k.shape[1], h, k.shape[2], d, int(causal),
                                 ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
    assert status == 0, name


def cudnn(q, k, v, causal):
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


LENGTHS = [int(s) for s in sys.argv[2].split(',')] if len(sys.argv) > 2 else [512, 1024, 2048, 4096, 8192, 16384, 32768]
WIDTHS = [int(d) for d in sys.argv[3].split(',')] if len(sys.argv) > 3 else [128, 64, 256]
PAGED = {128: ['128x128 pages of 64', '128x128 pages of 16'], 64: ['128x128 pages of 64', '192x128 pages of 64', '128x128 pages of 16'],
         256: ['128x64 pages of 64', '128x80 pages of 16']}
VARIANTS = {(128, True): ['128x128', '128x176'], (128, False): ['128x176', '128x128'], (64, True): ['192x128', '128x128', '128x192'], (64, False): ['192x128'],
            (256, True): ['128x80'], (256, False): ['128x80']}
m, n = (torch.randn(8192, 8192, dtype=torch.bfloat16, device='cuda') for _ in range(2))
gemm = graphed(lambda: m @ n, 2)
for d in WIDTHS:
    for s in LENGTHS:
        for causal in (True, False):
            if not causal and s not in (512, 4096, 16384):
                continue
            b = max(1, 16384 // s)
            q, k, v = (torch.randn(b, s, 2048 // d, d, dtype=torch.bfloat16, device='cuda') for _ in range(3))
            qt, kt, vt = (x.transpose(1, 2).contiguous() for x in (q, k, v))
            out, tickets = torch.empty_like(q), torch.zeros(2, dtype=torch.int32, device='cuda')
            names = VARIANTS[d, causal] + (PAGED[d] if causal else [])
            fns = {name: lambda name=name: ours(name, q, k, v, out, tickets, causal) for name in names}
            fns['fa3'] = lambda: fa3.flash_attn_func(q, k, v, causal=causal)
            if s <= 2048:
                fns['cudnn'] = lambda: cudnn(qt, kt, vt, causal)
            flop = 4 * b * (2048 // d) * s * s * d * (0.5 if causal else 1)
            repeats = max(1, int(6e12 / flop))
            replays = {name: graphed(fn, repeats) for name, fn in fns.items()}
            fns[VARIANTS[d, causal][0]]()
            want = fa3.flash_attn_func(q, k, v, causal=causal)
            want = want[0] if isinstance(want, tuple) else want
            error = (out.float() - want.float()).abs().max().item()
            tf = {name: round(flop * repeats / ms / 1e9) for name, ms in medians(replays, 7).items()}
            g = round(2 * 2 * 8192**3 / event_ms(gemm) / 1e9)
            print(json.dumps(dict(d=d, s=s, causal=causal, tflops=tf, gemm=g, max_diff=round(error, 4))), flush=True)
