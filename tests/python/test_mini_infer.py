"""The original project's snippets, character by character, and its commands, in examples/mini_infer."""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import minillm

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "examples" / "mini_infer"

FORWARD = """\
from minillm import MiniLLM, KVCache, Configs, TextGenerator
config = Configs.small(); model = MiniLLM(config)
kv_cache = KVCache(config, batch_size=2)
output = model(input_ids, kv_cache=kv_cache, use_flash_attention=True, flash_block_size=128)
"""
FORWARD_FROM_FILES = """\
from MiniLLM import MiniLLM
from KVCache import KVCache
from config import Configs

config = Configs.small()
model = MiniLLM(config)
kv_cache = KVCache(config, batch_size=2)
output = model(input_ids, kv_cache=kv_cache, use_flash_attention=True, flash_block_size=128)
"""
GENERATE = """\
generator = TextGenerator(use_flash_attention=True)
generated_ids = generator.generate(prompt_ids, max_new_tokens=50, temperature=0.8)
"""


def run(code_or_file, *arguments):
    """Runs in the folder, as a reader would."""
    command = [sys.executable, *([code_or_file] if code_or_file.endswith(".py") else ["-c", code_or_file]), *arguments]
    environment = dict(os.environ, PYTHONPATH=str(pathlib.Path(minillm.__file__).parent.parent))
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("snippet", [FORWARD, FORWARD_FROM_FILES])
def test_the_forward_snippet_runs_as_written(snippet):
    preamble = "import numpy as np\ninput_ids = np.arange(32).reshape(2, 16)\n"
    checks = "assert output.shape == (2, 16, 32000) and kv_cache.lengths == [16, 16]\nprint('fine')"
    assert run(preamble + snippet + checks) == "fine\n"


@pytest.mark.parametrize("imports", ["from minillm import TextGenerator\n", "from MiniLLM import TextGenerator\n"])
def test_the_generator_snippet_runs_as_written(imports, default_model):
    preamble = "prompt_ids = [9707, 11, 335]\n"
    checks = "assert generated_ids[:3] == prompt_ids and 4 <= len(generated_ids) <= 53\nprint('fine')"
    assert run(imports + preamble + GENERATE + checks) == "fine\n"


def test_the_generator_snippet_runs_with_a_model_given():
    scope = {"prompt_ids": np.array([[1, 2, 3], [4, 5, 6]])}
    model = minillm.MiniLLM(minillm.Configs.small())
    scope["TextGenerator"] = lambda **arguments: minillm.TextGenerator(model, **arguments)
    exec(GENERATE, scope)  # The lambda stands for the model; the call is the snippet's.
    assert [row[:3] for row in scope["generated_ids"]] == [[1, 2, 3], [4, 5, 6]]
    assert all(4 <= len(row) <= 53 for row in scope["generated_ids"])


def test_test_integration_runs():
    assert run("test_integration.py").count("passed") == 5


def test_demo_usage_runs():
    told = run("demo_usage.py")
    assert "each as if it were alone: True" in told and "after reset() 0 bytes" in told


def test_performance_analysis_runs_and_measures_the_memory_table():
    found = json.loads(run("performance_analysis.py", "--json"))
    for row, standard in zip(found["attention"], (4, 16, 64, 256)):
        assert row["flash_bytes"] <= 2**20
        assert row["standard_bytes"] == standard * 2**20 + row["flash_bytes"]  # The matrix, and the scratch that both have.
    assert [row["batch"] for row in found["batches"]] == [1, 4, 16]
