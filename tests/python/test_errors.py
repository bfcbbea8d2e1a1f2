"""Every code of the library's Error as the built-in exception that fits."""
import pytest

import minillm


def test_a_missing_model_is_a_file_not_found_error():
    with pytest.raises(FileNotFoundError, match="no model '/nowhere.gguf'") as caught:
        minillm.MiniLLM.load("/nowhere.gguf")
    assert isinstance(caught.value, minillm.NotFoundError)
    with pytest.raises(LookupError, match="small, medium, large"):
        minillm.Configs.by_name("tiny")


def test_the_default_model_missing_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLM_HOME", str(tmp_path))
    with pytest.raises(minillm.NotFoundError, match="pull smollm2"):
        minillm.TextGenerator(use_flash_attention=True)


def test_a_broken_file_is_a_value_error(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 16)
    with pytest.raises(ValueError) as caught:
        minillm.inspect(str(path))
    assert isinstance(caught.value, minillm.CorruptFileError)


def test_too_little_memory_is_a_memory_error():
    huge = minillm.Configs.large()
    huge.n_layers, huge.context_length = 2**20, 2**30
    with pytest.raises(MemoryError) as caught:
        minillm.KVCache(huge, batch_size=2**20)
    assert isinstance(caught.value, minillm.OutOfMemoryError)


def test_what_is_not_implemented_is_a_not_implemented_error(config):
    with pytest.raises(NotImplementedError, match="expected f32, f16, bf16 or f8") as caught:
        minillm.KVCache(config, dtype="q8_0")
    assert isinstance(caught.value, minillm.UnsupportedError)


def test_past_the_context_is_a_capacity_error(model):
    with pytest.raises(minillm.CapacityError) as caught:
        model([[1] * 513])
    assert isinstance(caught.value, ValueError)


def test_another_device_is_refused(model, config):
    cache = minillm.KVCache(config, device="reference")
    with pytest.raises(ValueError, match="kv_cache is on reference"):
        model([[1]], kv_cache=cache)
    with pytest.raises(ValueError, match="expected cpu, reference"):
        minillm.KVCache(config, device="tpu")
