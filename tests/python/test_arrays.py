"""Arrays in and out: what is accepted, what is copied, and what is refused with which exception."""
import gc

import numpy as np
import pytest

import minillm


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type_gives_the_same_logits(model, dtype):
    rows = [[1, 2, 3], [4, 5, 6]]
    want = model(rows)
    assert want.shape == (2, 3, 300) and want.dtype == np.float32
    np.testing.assert_array_equal(model(np.array(rows, dtype)), want)
    np.testing.assert_array_equal(model(tuple(map(tuple, rows))), want)
    np.testing.assert_array_equal(model(np.array(rows, dtype, order="F")), want)


def test_results_own_their_memory_and_travel_by_dlpack_without_a_copy(model):
    logits = model([[1, 2, 3]])
    again = np.from_dlpack(logits)
    assert again.ctypes.data == logits.ctypes.data
    want = logits.copy()
    del logits
    gc.collect()
    model([[7, 8, 9]])
    np.testing.assert_array_equal(again, want)


class OnlyDlpack:
    """An array of another library."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack_arrays_are_read_in_place(model):
    q, k, v = np.random.default_rng(2).standard_normal((3, 1, 9, 2, 16), dtype=np.float32)
    want = minillm.flash_attention(q, k, v).output
    got = minillm.flash_attention(OnlyDlpack(q), OnlyDlpack(k), OnlyDlpack(v)).output
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(model(OnlyDlpack(np.array([[1, 2]], np.int32))), model([[1, 2]]))


def test_floats_of_every_width_are_accepted():
    q, k, v = np.random.default_rng(2).standard_normal((3, 1, 9, 2, 16)).astype(np.float16)
    want = minillm.flash_attention(q.astype(np.float32), k.astype(np.float32), v.astype(np.float32)).output
    np.testing.assert_array_equal(minillm.flash_attention(q.astype(np.float64), k.astype(np.float64), v.astype(np.float64)).output, want)
    np.testing.assert_array_equal(minillm.flash_attention(q.tolist(), k.tolist(), v.tolist()).output, want)
    np.testing.assert_allclose(minillm.flash_attention(q, k, v).output, want, atol=2e-3)  # The value's rounding to float16.


def test_read_only_and_strided_inputs_are_accepted_and_unchanged(model):
    ids = np.array([[9, 1, 9, 2, 9, 3]], np.int32)[:, 1::2]
    ids.flags.writeable = False
    np.testing.assert_array_equal(model(ids), model([[1, 2, 3]]))
    np.testing.assert_array_equal(ids, [[1, 2, 3]])


@pytest.mark.parametrize("ids, words", [
    ([[1.5]], "integers"),
    ([1, 2], r"expected i32 \[batch, tokens\]"),
    ([[]], "at least one token"),
    ([[300]], "expected 0 to 299"),
    ([[-1]], "expected 0 to 299"),
    ([[2**31]], "too large"),
    ([["a"]], "expected an array of numbers"),
    ("abc", "expected an array of numbers"),
])
def test_ids_that_make_no_sense_are_value_errors(model, ids, words):
    with pytest.raises(ValueError, match=words) as caught:
        model(ids)
    assert isinstance(caught.value, minillm.InvalidArgumentError) and isinstance(caught.value, minillm.Error)


def test_ragged_lists_are_refused(model):
    with pytest.raises(ValueError):
        model([[1], [2, 3]])


def test_unknown_arguments_are_type_errors(model, config):
    for call in (lambda: model([[1]], flash=True), lambda: minillm.ModelConfig(layers=3), lambda: minillm.KVCache(config, rows=3),
                 lambda: minillm.TextGenerator(model).generate([1], temprature=1), lambda: minillm.MiniLLM("small")):
        with pytest.raises(TypeError):
            call()


def test_a_config_can_be_changed_and_is_checked():
    config = minillm.Configs.small()
    config.n_layers = 3
    assert config.n_layers == 3 and "n_layers=3" in repr(config)
    config.n_heads = 0
    with pytest.raises(ValueError, match="n_heads is 0"):
        config.validate()
    with pytest.raises(ValueError, match="hidden_size is 0"):
        minillm.ModelConfig(n_layers=1)
    with pytest.raises(ValueError, match="dtype"):
        config.kv_dtype = "float33"
    config.kv_dtype = np.float16
    assert config.kv_dtype == "f16"
