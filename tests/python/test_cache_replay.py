"""The transformers Cache interface: 2,000 random sequences of operations, answered as transformers itself answered them.

    pytest -k replay            against tests/golden/cache_replay.json
    pytest -k replay --live     against the transformers that is installed, tensor by tensor
"""
import json
import pathlib

import numpy as np
import pytest

import cache_sequences
import minillm

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def ours(made):
    config = minillm.ModelConfig(n_layers=made.n_layers, hidden_size=16, n_heads=4, n_kv_heads=cache_sequences.HEADS,
                                 head_dim=cache_sequences.DIM, ffn_size=16, vocab_size=32, context_length=4096,
                                 sliding_window=made.window, sliding_pattern=2 if made.kind.endswith("hybrid") else 0)
    return minillm.KVCache(config, batch_size=made.batch, max_length=made.max_length, dtype=made.dtype, page_tokens=16)


def test_transformers_style_update_interface_replays_2000_sequences(request):
    if request.config.getoption("--live"):
        pytest.skip("see the live test")
    recorded = json.loads((ROOT / "tests" / "golden" / "cache_replay.json").read_text(encoding="utf-8"))
    want = [checksum for row in recorded["crc32"] for checksum in row]
    assert len(want) == 2000
    n_operations = n_tensors = 0
    different = []
    for number, checksum in enumerate(want):
        made = cache_sequences.sequence(number)
        seen = cache_sequences.observe(ours(made), made)
        n_operations, n_tensors = n_operations + len(made.operations), n_tensors + seen.n_tensors
        if seen.checksum != checksum:
            different.append(f"{number} ({made.kind})")
    assert (n_operations, n_tensors) == (recorded["n_operations"], recorded["n_tensors"])
    assert not different, f"{len(different)} sequences differ, show where with --live: {different[:10]}"


def test_transformers_style_update_interface_replays_live(request):
    if not request.config.getoption("--live"):
        pytest.skip("needs --live, and transformers with torch")
    import sys
    sys.path.insert(0, str(ROOT / "tools"))
    import record_cache

    for number in range(record_cache.N_SEQUENCES):
        made = cache_sequences.sequence(number)
        want = cache_sequences.observe(record_cache.Theirs(made), made).log
        got = cache_sequences.observe(ours(made), made).log
        assert len(got) == len(want)
        for step, (a, b) in enumerate(zip(got, want)):
            for x, y in zip(a, b):
                np.testing.assert_array_equal(x, y, err_msg=f"sequence {number}, {made}, observation {step}")


def test_every_method_of_the_interface_is_there():
    made = cache_sequences.Sequence(0, "dynamic_hybrid", "float32", 3, 4, 0, 2, [])
    cache = ours(made)
    k = np.ones((2, cache_sequences.HEADS, 5, cache_sequences.DIM), np.float32)
    assert not cache.is_initialized and len(cache) == 3 and cache.batch_size == 2
    for layer in range(3):
        cache.update(k, k, layer)
    assert cache.is_initialized and cache.is_croppable and cache.is_linear == [False] * 3 and cache.is_sliding == [True, False, True]
    assert cache.get_max_cache_shape() == cache.get_max_length() == 4
    assert cache.get_max_length(1) == -1
    cache.activate_past_recording()
    assert cache.is_recording_past(0)
    cache.offload(0)
    cache.prefetch(2)
    cache.early_initialization(2, cache_sequences.HEADS, cache_sequences.DIM, "float32", "cpu")
    with pytest.raises(ValueError, match="early_initialization"):
        cache.early_initialization(3)
    for call in (cache.offload, cache.prefetch, cache.is_recording_past, cache.get_seq_length, cache.get_max_length):
        with pytest.raises(ValueError, match="layer 3"):
            call(3)


def test_crop_with_a_length_keeps_that_many_tokens():
    """transformers before 5.18 took a positive number as the length to keep; here it goes on doing so."""
    cache = ours(cache_sequences.Sequence(0, "dynamic", "float32", 1, 0, 0, 1, []))
    k = np.arange(cache_sequences.HEADS * 6 * cache_sequences.DIM, dtype=np.float32).reshape(1, cache_sequences.HEADS, 6, -1)
    cache.update(k, k, 0)
    cache.crop(4)
    assert cache.get_seq_length() == 4
    np.testing.assert_array_equal(cache.read(0, 0)[0], k[0, :, :4])


@pytest.mark.parametrize("shape", [(1, 2, 3, 5), (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 3)])
def test_update_refuses_another_shape(shape):
    cache = ours(cache_sequences.Sequence(0, "dynamic", "float32", 1, 0, 0, 1, []))
    with pytest.raises(ValueError, match=r"expected \[1, 2, n, 4\]"):
        cache.update(np.zeros(shape, np.float32), np.zeros(shape, np.float32), 0)
    assert cache.get_seq_length() == 0
