"""A user's program, type-checked strictly by .ci/run against the installed package's stubs, and run."""
import numpy as np

import minillm
from minillm import ChatTemplate, Configs, KVCache, MiniLLM, TextGenerator

config: minillm.ModelConfig = Configs.small()
config.n_layers = 2
model = MiniLLM(config, seed=7)
cache = KVCache(config, batch_size=2)
logits = model(np.array([[1, 2, 3], [4, 5, 0]]), kv_cache=cache, lengths=[3, 2], use_flash_attention=True, flash_block_size=64)
assert logits.shape == (2, 3, 32000) and cache.lengths == [3, 2]

generator = TextGenerator(model, use_flash_attention=True)
ids: list[int] = generator.generate([1, 2, 3], max_new_tokens=5, temperature=0.8)
generations: list[minillm.Generation] = generator.generate_batch([[1, 2], [3]], max_new_tokens=2, callback=lambda row, event: True)
assert len(ids) >= 4 and all(generation.finish_reason in ("length", "stop") for generation in generations)

text: str = ChatTemplate("{{ messages[0].content }}").render([{"role": "user", "content": "hello"}])
assert text == "hello"
try:
    minillm.MiniLLM.load("/nowhere")
except FileNotFoundError as error:
    assert isinstance(error, minillm.Error)
print("the installed package works")
