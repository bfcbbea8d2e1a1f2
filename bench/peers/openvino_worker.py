"""OpenVINO GenAI behind a pipe: openvino_worker.py MODEL.gguf THREADS. A line "PROMPT DECODE" is answered by "answer JSON".

Each prompt is of new random ids, or the prefix cache would answer. prefill: tokens a second until the first token is there;
decode: tokens a second after it.
"""
import json
import sys

import numpy
import openvino
import openvino_genai

pipe = openvino_genai.LLMPipeline(sys.argv[1], "CPU", INFERENCE_NUM_THREADS=int(sys.argv[2]))
random = numpy.random.default_rng()
for line in sys.stdin:
    n_prompt, n_decode = (int(x) for x in line.split())
    ids = random.integers(100, 40000, (1, n_prompt)).astype(numpy.int64)
    inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
    config = openvino_genai.GenerationConfig(max_new_tokens=n_decode, min_new_tokens=n_decode, ignore_eos=True, do_sample=False)
    metrics = pipe.generate(inputs, config).perf_metrics
    answer = {"prefill": 1e3 * n_prompt / metrics.get_ttft().mean, "decode": 1e3 / metrics.get_tpot().mean}
    print("answer " + json.dumps(answer), flush=True)
