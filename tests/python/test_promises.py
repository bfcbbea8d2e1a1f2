"""What the system promises, from Python; the numbers are those of the original description. The rest is tested in C++, and
6 (transformers' cache interface) in test_cache_replay.py."""
import numpy as np
import pytest

import minillm
from minillm import Configs, KVCache, MiniLLM, TextGenerator

MIB = 2**20


def softmax_attention(q, k, v):
    """Plain causal attention in double; [B, S, H, D], as many key heads as query heads."""
    q, k, v = (x.astype(np.float64).swapaxes(1, 2) for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(*scores.shape[2:], k=scores.shape[3] - scores.shape[2], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True) @ v).swapaxes(1, 2)


def randn(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("tokens, standard", [(256, 4), (512, 16), (1024, 64), (2048, 256)])
def test_01_block_wise_attention_needs_less_memory(tokens, standard):
    q = randn(1, 2, tokens, 8, 64)
    whole = minillm.standard_attention(q, q, q, n_threads=2)
    tiles = minillm.flash_attention(q, q, q, block_size=128, n_threads=2)
    assert 0 < tiles.peak_bytes <= MIB
    assert whole.peak_bytes == standard * MIB + tiles.peak_bytes  # The scores, and the tiles that flash has, too.
    np.testing.assert_allclose(tiles.output, whole.output, atol=2e-5)


def test_02_online_softmax_is_numerically_stable():
    q, k, v = randn(2, 3, 1, 200, 2, 32)
    large = q * np.float32(1e4 / np.abs(np.einsum("bqhd,bkhd->bhqk", q, k)).max() * np.sqrt(32))  # Scores up to 1e4.
    for queries, keys in ((large, k), (q, np.zeros_like(k)), (q, np.repeat(k[:, :1], 200, 1))):  # The last two: rows of equal scores.
        got = minillm.flash_attention(queries, keys, v, block_size=16).output
        want = softmax_attention(queries, keys, v)
        # A score of 1e4 has a rounding of 1e4 * 2^-24 * a few in float32, and moves its weight by as much.
        np.testing.assert_allclose(got, want, atol=2e-2 if queries is large else 2e-5)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("heads", [1, 3, 8, 12])
def test_03_multi_head_causal_attention_with_a_configurable_block_size(heads):
    q, k, v = randn(3, 3, 2, 150, heads, 16)
    want = softmax_attention(q, k, v)
    for block_size in (16, 32, 64, 128, 256, 512, 1024):
        np.testing.assert_allclose(minillm.flash_attention(q, k, v, block_size=block_size).output, want, atol=2e-5)
    for block_size in (8, 48, 2048, -1):
        with pytest.raises(ValueError):
            minillm.flash_attention(q, k, v, block_size=block_size)


def test_04_steps_with_the_cache_equal_one_full_pass(model, config, ids):
    cache = KVCache(config, batch_size=2)
    steps = [model(ids[:, i:i + 1], kv_cache=cache) for i in range(ids.shape[1])]
    np.testing.assert_allclose(np.concatenate(steps, 1), model(ids), atol=1e-5)


def test_05_variable_length_batches_with_independent_rows(model, config, ids):
    """Bitwise, with padding on either side, with and without a cache, over two calls."""
    lengths = np.array([40, 11])
    alone = [model(row[None, :n])[0] for row, n in zip(ids, lengths)]
    right = np.arange(40) < lengths[:, None]
    left = right[:, ::-1]
    left_ids = np.zeros_like(ids)
    for row, n in enumerate(lengths):
        left_ids[row, 40 - n:] = ids[row, :n]
    for inputs, mask in ((ids, right), (left_ids, left)):
        for cache in (None, KVCache(config, batch_size=2)):
            logits = model(inputs, attention_mask=mask, kv_cache=cache)
            for row in range(2):
                np.testing.assert_array_equal(logits[row][mask[row]], alone[row])
                assert not logits[row][~mask[row]].any()
            last = model(inputs, attention_mask=mask, last_logits_only=True)
            np.testing.assert_array_equal(last[:, 0], [alone[0][-1], alone[1][-1]])
    assert cache.lengths == lengths.tolist()
    mask = np.concatenate([left, np.ones((2, 1), bool)], 1)  # As transformers does: the mask covers what is cached, too.
    more = model([[7], [8]], attention_mask=mask, kv_cache=cache)
    for row, token in enumerate((7, 8)):
        np.testing.assert_array_equal(more[row, 0], model([[*ids[row, :lengths[row]], token]])[0, -1])


@pytest.mark.parametrize("mask, words", [
    ([[1, 0, 1]], "hole"), ([[1, 1]], "expected the shape"), ([1, 1, 1], "expected the shape"), ([[1, 2, 1]], "expected 0 and 1"),
    ([[1, 1, 1, 1]], "the cache holds 0"), ([[0.5, 1, 1]], "integers")])
def test_05_masks_that_are_no_padding_are_refused(model, mask, words):
    with pytest.raises(ValueError, match=words):
        model([[1, 2, 3]], attention_mask=mask)
    with pytest.raises(ValueError, match="not both"):
        model([[1]], attention_mask=[[1]], lengths=[1])


def test_07_a_preallocated_cache_has_a_fixed_size():
    cache = KVCache(Configs.small(), batch_size=2, max_length=2048)
    assert cache.bytes == 64 * MIB and cache.dtype == "f16"
    k = np.zeros((2, 8, 2048, 64), np.float16)
    cache.update(k, k, 0)
    assert cache.bytes == 64 * MIB
    with pytest.raises(minillm.CapacityError):
        cache.update(k[:, :, :1], k[:, :, :1], 0)
    cache.reset()
    assert cache.bytes == 64 * MIB


def test_08_one_forward_interface(model, config, ids):
    want = model(ids)
    np.testing.assert_array_equal(model.forward(ids), want)
    for cache in (None, KVCache):
        for flash in (True, False):
            for block_size in (0, 16, 128):
                kv_cache = cache and cache(config, batch_size=2)
                got = model(ids, kv_cache=kv_cache, use_flash_attention=flash, flash_block_size=block_size)
                np.testing.assert_allclose(got, want, atol=1e-5)


def test_09_dtypes_are_managed(ids):
    """Caches of 16 bits against one of 32: the error is that of rounding K and V, and bfloat16's is eight times float16's."""
    config = Configs.small()
    model = MiniLLM(config)
    assert KVCache(config).dtype == "f16"
    logits = {dtype: model(ids, kv_cache=KVCache(config, 2, dtype=dtype)) for dtype in ("float32", "float16", "bfloat16")}
    error = {dtype: np.abs(x - logits["float32"]).max() for dtype, x in logits.items()}
    assert 0 < error["float16"] < 2e-2 and error["float16"] < error["bfloat16"] < 2e-1
    for dtype in ("f32", "bf16"):
        assert MiniLLM(config, dtype=dtype)(ids[:, :4]).dtype == np.float32


def test_10_the_memory_plan_is_what_is_used(default_model):
    info = minillm.inspect(default_model)
    model = MiniLLM.load(default_model)
    plan = info.plan_memory(context=1024, batch=4, kv_dtype="float16")
    assert plan.weights == pytest.approx(model.weight_bytes, rel=0.01)
    assert plan.kv_cache == pytest.approx(KVCache(model.config, 4, max_length=1024, dtype="float16").bytes, rel=0.01)
    assert plan.total == plan.weights + plan.kv_cache + plan.workspace
    # A GPU takes more rows a step.
    assert info.plan_memory(context=4096, device="cuda").workspace > info.plan_memory(context=4096).workspace
    assert model.step_rows == 512


@pytest.mark.parametrize("name", ["small", "medium", "large"])
def test_11_every_config_builds_runs_and_generates(name):
    config = getattr(Configs, name)()
    if name == "large":
        config.n_layers = 4  # All 24 take a second each.
    model = MiniLLM(config)
    assert model([[1, 2, 3]]).shape == (1, 3, 32000)
    assert len(TextGenerator(model).generate([1, 2, 3], max_new_tokens=3, ignore_eos=True)) == 6


def test_12_the_generator_with_the_default_model(default_model):
    tokenizer = minillm.Tokenizer.load()
    prompt_ids = tokenizer.encode("Once upon a time")
    generator = TextGenerator(use_flash_attention=True)
    ids = generator.generate(prompt_ids, max_new_tokens=50, temperature=0.8)
    assert ids[:len(prompt_ids)] == prompt_ids and len(ids) > len(prompt_ids)
    assert generator.generate(prompt_ids, max_new_tokens=50, temperature=0.8) == ids  # The same seed.
    generation = generator.generate_batch([prompt_ids], max_new_tokens=12)[0]
    assert generation.finish_reason == "length" and generation.text == tokenizer.decode(generation.ids)


def test_14_sixteen_sequences_at_once(model):
    prompts = [list(range(1, 4 + 5 * row)) for row in range(16)]
    generator = TextGenerator(model, max_batch=16)
    events = []

    def callback(row, event):
        events.append(row)
        return events.count(row) < 4 + row  # Each stops at another point.

    together = generator.generate_batch(prompts, max_new_tokens=24, ignore_eos=True, callback=callback)
    for row, (prompt, got) in enumerate(zip(prompts, together)):
        alone = generator.generate(prompt, max_new_tokens=24, ignore_eos=True)[len(prompt):]
        assert got.ids == alone[:len(got.ids)] and len(got.ids) >= 4 + row
        assert got.finish_reason == "cancelled"


@pytest.mark.parametrize("batch", [4, 8, 16])
def test_16_caches_of_twice_the_context(batch):
    config = Configs.small()
    assert KVCache(config, batch, max_length=2 * config.context_length).bytes == batch * 64 * MIB


def test_17_the_cache_grows_and_shrinks(config):
    cache = KVCache(config)
    assert cache.bytes == 0
    k = np.zeros((1, 2, 128, 16), np.float32)
    sizes = []
    for _ in range(3):
        for layer in range(2):
            cache.update(k, k, layer)
        sizes.append(cache.bytes)
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    cache.crop(-256)
    assert cache.get_seq_length() == 128 and cache.bytes == sizes[0]
    cache.reset()
    assert cache.bytes == 0


def test_18_grouped_query_attention_in_bfloat16():
    q, k, v = randn(5, 1, 33, 8, 16), randn(6, 1, 33, 2, 16), randn(7, 1, 33, 2, 16)
    grouped = minillm.flash_attention(q, k, v).output
    np.testing.assert_array_equal(grouped, minillm.flash_attention(q, np.repeat(k, 4, 2), np.repeat(v, 4, 2)).output)
    cache = KVCache(Configs.medium(), dtype="bfloat16")
    ones = np.full((1, 4, 1, 64), 1.01, np.float32)
    assert cache.update(ones, ones, 0)[0][0, 0, 0, 0] == np.float32(1.0078125)  # bfloat16 has eight bits.
