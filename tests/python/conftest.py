"""What the Python tests share: a model of a few kilobytes, and the default model where it was pulled."""
import numpy as np
import pytest

import minillm


@pytest.fixture(scope="session")
def config():
    """Two layers of four heads in two groups: every switch of the small models, in a thousandth of the time."""
    return minillm.ModelConfig(n_layers=2, hidden_size=64, n_heads=4, n_kv_heads=2, head_dim=16, ffn_size=96, vocab_size=300,
                               context_length=512, kv_dtype="float32")


@pytest.fixture(scope="session")
def model(config):
    return minillm.MiniLLM(config, seed=1)


@pytest.fixture
def ids():
    return np.random.default_rng(1).integers(0, 300, (2, 40), dtype=np.int32)


@pytest.fixture(scope="session")
def default_model():
    """Path of SmolLM2."""
    try:
        return minillm.resolve_model()
    except minillm.NotFoundError as error:
        pytest.skip(str(error))


def pytest_addoption(parser):
    parser.addoption("--live", action="store_true", help="replay caches against the transformers that is installed")
