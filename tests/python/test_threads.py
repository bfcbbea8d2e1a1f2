"""Python threads: the GIL is free while the library computes, and calls on one object wait for each other."""
import os
import signal
import threading
import time

import numpy as np
import pytest

import minillm


def test_other_threads_run_while_the_model_computes(model):
    """Counts what a second thread does during one call; with the GIL held it would do nothing."""
    ids = np.ones((4, 512), np.int32)
    done, counted = threading.Event(), 0

    def count():
        nonlocal counted
        while not done.is_set():
            counted += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counted
    model(ids)
    during = counted - before
    done.set()
    thread.join()
    assert during > 100


def test_threads_that_share_a_model_and_a_cache_wait_for_each_other(model, config):
    want = model([[5, 6, 7]])
    cache = minillm.KVCache(config)
    failures = []

    def work():
        for _ in range(20):
            try:
                np.testing.assert_array_equal(model([[5, 6, 7]]), want)
                model([[1]], kv_cache=cache)
                cache.get_seq_length()
            except BaseException as error:  # Shown by the main thread.
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert cache.lengths == [80]


def test_ctrl_c_ends_generation(model):
    generator = minillm.TextGenerator(model)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):
            generator.generate([1, 2], max_new_tokens=500, ignore_eos=True)
    assert time.monotonic() - started < 20


def test_an_exception_in_a_callback_reaches_the_caller(model):
    def fail(row, event):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        minillm.TextGenerator(model).generate_batch([[1, 2]], max_new_tokens=500, callback=fail)
