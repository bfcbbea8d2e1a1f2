"""Saved caches and talks that go on, from Python."""
import numpy as np
import pytest

import minillm
from minillm import CachedText, KVCache, TextGenerator


def test_a_saved_cache_goes_on_with_the_same_bits(model, config, ids, tmp_path):
    path = str(tmp_path / "talk.cache")
    cache = KVCache(config, batch_size=2)
    model(ids[:, :30], kv_cache=cache)
    cache.save(path, model.fingerprint, b"mine\0")
    loaded, attachment = KVCache.load(path, config, model.fingerprint)
    assert attachment == b"mine\0" and loaded.lengths == [30, 30] and loaded.dtype == cache.dtype
    np.testing.assert_array_equal(model(ids[:, 30:], kv_cache=loaded), model(ids[:, 30:], kv_cache=cache))


def test_damaged_files_and_those_of_another_model_are_refused(model, config, tmp_path):
    path = tmp_path / "talk.cache"
    cache = KVCache(config)
    model([[1, 2, 3]], kv_cache=cache)
    cache.save(str(path), model.fingerprint)
    with pytest.raises(minillm.InvalidArgumentError):
        KVCache.load(str(path), config, minillm.MiniLLM(config, seed=2).fingerprint)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(minillm.CorruptFileError):
        KVCache.load(str(path), config, model.fingerprint)
    with pytest.raises(FileNotFoundError):
        KVCache.load(str(tmp_path / "none"), config, model.fingerprint)


def test_a_talk_computes_only_what_is_new(model, config):
    generator = TextGenerator(model)
    text = CachedText(config)
    first = generator.generate_cached(text, [1, 2, 3], max_new_tokens=5, ignore_eos=True)
    talk = [1, 2, 3, *first.ids]
    assert text.tokens == talk[:-1]
    more = talk + [7, 8]
    second = generator.generate_cached(text, more, max_new_tokens=5, ignore_eos=True)
    assert generator.timings.prefill_tokens == 3  # The last id of the first answer, and the two new ones.
    assert second.ids == generator.generate(more, max_new_tokens=5, ignore_eos=True)[len(more):]
    with pytest.raises(RuntimeError, match="enough"):
        generator.generate_cached(text, [5], max_new_tokens=5, callback=lambda row, event: (_ for _ in ()).throw(RuntimeError("enough")))
