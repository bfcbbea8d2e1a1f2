"""Model, cache, attention and generator together.    python test_integration.py"""
import numpy as np

from config import Configs
from flash_attention_kv import flash_attention_kv, standard_attention
from KVCache import KVCache
from MiniLLM import MiniLLM, TextGenerator

CONFIG = Configs.small()
CONFIG.kv_dtype = "float32"  # So that what the cache holds is what was computed, and differences are rounding alone.
MODEL = MiniLLM(CONFIG)
IDS = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, 48))
TOLERANCE = 1e-4  # float32 sums of up to 1,536 terms in another order, through eight layers, on logits of about 1.


def test_the_cache_changes_nothing():
    cache = KVCache(CONFIG, batch_size=2)
    parts = [MODEL(part, kv_cache=cache) for part in np.split(IDS, [20, 21, 40], axis=1)]
    np.testing.assert_allclose(np.concatenate(parts, 1), MODEL(IDS), atol=TOLERANCE)
    assert cache.lengths == [48, 48]


def test_flash_and_standard_attention_agree_for_every_block_size():
    want = MODEL(IDS, use_flash_attention=False)
    for block_size in (16, 64, 256, 1024):
        np.testing.assert_allclose(MODEL(IDS, flash_block_size=block_size), want, atol=TOLERANCE)


def test_rows_of_a_batch_are_independent():
    lengths = [48, 13]
    batch = MODEL(IDS, lengths=lengths)
    mask = np.arange(48) >= 48 - np.array(lengths)[:, None]
    left = np.where(mask, np.stack([np.roll(row, 48 - n) for row, n in zip(IDS, lengths)]), 0)
    left_padded = MODEL(left, attention_mask=mask)
    for row, n in enumerate(lengths):
        alone = MODEL(IDS[row:row + 1, :n])[0]
        np.testing.assert_array_equal(batch[row, :n], alone)
        np.testing.assert_array_equal(left_padded[row, 48 - n:], alone)


def test_attention_over_a_cache_is_attention_over_everything():
    rng = np.random.default_rng(1)
    q, k, v = rng.standard_normal((3, 1, CONFIG.n_heads, 30, CONFIG.head_dim), dtype=np.float32)
    for max_length in (0, 64):
        cache = KVCache(CONFIG, max_length=max_length)
        for i in range(30):
            last = flash_attention_kv(*(x[:, :, i:i + 1] for x in (q, k, v)), cache, layer_idx=0)
        want = standard_attention(*(np.swapaxes(x, 1, 2) for x in (q, k, v))).output[:, -1]
        np.testing.assert_allclose(last[:, :, 0], want, atol=1e-5)


def test_the_generator_continues_the_prompt():
    ids = TextGenerator(MODEL, use_flash_attention=True).generate(IDS[0], max_new_tokens=12, ignore_eos=True)
    assert ids[:48] == IDS[0].tolist() and len(ids) == 60
    for n in range(48, 60):  # Greedy: each id is the most likely one after those before it.
        assert ids[n] == MODEL([ids[:n]], last_logits_only=True).argmax()


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print("passed", name)
