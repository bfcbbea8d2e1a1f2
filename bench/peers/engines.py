"""How each engine is run. An engine measures a Run and returns samples, metric -> list; a larger figure is a faster one.

Every call is a fresh process with a warm-up of its own, except OpenVINO, which takes too long to start: it stays, asleep.
"""
import dataclasses
import json
import os
import pathlib
import subprocess
import time

CALL_SECONDS = 900  # No call takes a third of this.


class NotMeasured(Exception):
    """A peer or file that is not there, or a program that failed: the row says so, the others go on."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Tokens computed at once after `depth` cached ones, then tokens written one by one; 0 leaves a part out."""
    engine: str
    model: str  # File name.
    prompt: int = 0
    decode: int = 0
    depth: int = 0
    batch: int = 1


def call(command, stdin=None):
    """Standard output of a program that must succeed."""
    if not pathlib.Path(command[0]).is_file():
        raise NotMeasured(f"peer not found: {pathlib.Path(command[0]).name}")
    try:
        done = subprocess.run([str(x) for x in command], stdin=stdin or subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=CALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"{pathlib.Path(command[0]).name} took more than {CALL_SECONDS} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NotMeasured(f"{pathlib.Path(command[0]).name} failed ({done.returncode}): {said}")
    return done.stdout


def wall_rate(command):
    """Starts a second: the whole process, from nothing to its end."""
    start = time.perf_counter()
    call(command)
    return 1 / (time.perf_counter() - start)


def file_in(folder, name):
    path = pathlib.Path(folder) / name
    if not path.is_file():
        raise NotMeasured(f"model not found: {name}")
    return path


def parse_ours(text):
    """(samples, machine entry) of what `minillm bench --json` printed."""
    samples, machine = {}, {}
    for entry in json.loads(text):
        if entry["test"] in ("prefill", "decode"):
            samples[entry["test"]] = entry["samples"]
            # The share of the limit goes with the rate, since both are of the same bytes and operations.
            samples[entry["test"] + "_share"] = [x * entry["of_peak"] / entry["tok_s"] for x in entry["samples"]]
        elif entry["test"] == "machine":
            machine = entry
    return samples, machine


def parse_llama(text):
    """Samples of what `llama-bench -o json` printed."""
    samples = {}
    for entry in json.loads(text):
        samples["prefill" if entry["n_prompt"] > 0 else "decode"] = entry["samples_ts"]
    return samples


class Ours:
    def __init__(self, options):
        self.program, self.models, self.threads = options.minillm, options.models, options.threads
        self.machine = {}

    def measure(self, run, samples):
        text = call([self.program, "bench", "-m", file_in(self.models, run.model), "--prompt-tokens", run.prompt, "--decode-tokens",
                     run.decode, "--depth", run.depth, "--batch", run.batch, "--repeats", samples, "--threads", self.threads, "--json"])
        measured, self.machine = parse_ours(text)
        return measured

    def describe(self):
        """Fills `machine` from a bench of a made-up model of four layers."""
        text = call([self.program, "bench", "--random", "small", "--prompt-tokens", 0, "--decode-tokens", 1, "--repeats", 1, "--threads",
                     self.threads, "--json"])
        self.machine = parse_ours(text)[1]

    def start(self, model):
        return wall_rate([self.program, "generate", "-m", file_in(self.models, model), "-p", "The capital of France is", "-n", "1",
                          "--threads", self.threads])


class Llama:
    """Writes its tokens at the depth and fills the cache once a process."""

    def __init__(self, options):
        self.folder, self.models, self.threads = pathlib.Path(options.llama_bin), options.models, options.threads

    def measure(self, run, samples):
        return parse_llama(call([self.folder / "llama-bench", "-m", file_in(self.models, run.model), "-p", run.prompt, "-n", run.decode,
                                 "-d", run.depth, "-r", samples, "-t", self.threads, "-o", "json"]))

    def start(self, model):
        return wall_rate([self.folder / "llama-completion", "-m", file_in(self.models, model), "-p", "The capital of France is", "-n", "1",
                          "-no-cnv", "--no-warmup", "-t", self.threads])


class OpenVino:
    """A process that stays, bench/peers/openvino_worker.py: a line of numbers asks, a line of JSON answers."""

    def __init__(self, options):
        self.python, self.models, self.threads = options.openvino_python, options.models, options.threads
        self.processes, self.warm = {}, set()

    def ask(self, model, prompt, decode):
        if model not in self.processes:
            if not os.access(self.python, os.X_OK):
                raise NotMeasured("peer not found: a Python with openvino_genai")
            worker = pathlib.Path(__file__).with_name("openvino_worker.py")
            self.processes[model] = subprocess.Popen([self.python, worker, file_in(self.models, model), str(self.threads)], text=True,
                                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process = self.processes[model]
        try:
            process.stdin.write(f"{prompt} {decode}\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # It ended: the next line is empty.
        for line in process.stdout:
            if line.startswith("answer "):
                return json.loads(line[7:])
        raise NotMeasured("peer not found: OpenVINO GenAI did not start or failed")

    def measure(self, run, samples):
        prompt = run.prompt + run.depth
        if run not in self.warm:
            self.ask(run.model, prompt, 2)
            self.warm.add(run)
        answers = [self.ask(run.model, prompt, max(run.decode, 2)) for _ in range(samples)]
        return {key: [answer[key] for answer in answers] for key in ("prefill", "decode")}

    def close(self):
        for process in self.processes.values():
            process.stdin.close()
            process.wait()
        self.processes.clear()
