#!/usr/bin/env python3
"""Our engine beside llama.cpp, OpenVINO GenAI and torch on this machine, by turns: a table of ratios, and JSON under bench/results.

  python3 bench/peers.py --llama-bin DIR --openvino-python PYTHON --models DIR [--rows prefill512,decode] [--repeats 7]

--llama-bin holds llama-bench, llama-completion and llama-quantize; --openvino-python has openvino_genai installed; the Python that
runs this has torch. What is missing leaves its rows without a ratio. --prepare makes the models that are not published. Rows that
are measured replace those of the same name in the JSON file, so that a table may be measured in pieces. `peers/` holds the parts.
"""
import argparse
import datetime
import json
import os
import pathlib
import sys

from peers import engines, models, report, rows

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Measurement:
    """Engines by name, and what the machine said of itself."""

    def __init__(self, options):
        self.options = options
        self.ours = engines.Ours(options)
        self.engines = {"ours": self.ours, "llama": engines.Llama(options), "openvino": engines.OpenVino(options)}

    def call(self, run, metric, samples):
        engine = self.engines[run.engine]
        if metric == "start":
            return {"start": [engine.start(run.model) for _ in range(samples)]}
        return engine.measure(run, samples)

    def group(self, group):
        """Entries of the rows of one group, whose runs are shared and take turns."""
        runs, failed = {}, {}
        for row in group:
            for run in [row.ours] + [run for _, run in row.peers or ()]:
                runs.setdefault(run, {})
        samples = group[0].samples
        rounds = -(-self.options.repeats // samples)
        for turn in range(rounds):
            for run, got in runs.items():
                if run in failed:
                    continue
                try:
                    for key, values in self.call(run, group[0].metric, samples).items():
                        got.setdefault(key, []).extend(values)
                except engines.NotMeasured as error:
                    failed[run] = str(error)
            print(f"{group[0].group}: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        self.engines["openvino"].close()
        return [self.entry(row, runs, failed) for row in group]

    @staticmethod
    def entry(row, runs, failed):
        notes = sorted({failed[run] for run in [row.ours] + [run for _, run in row.peers or ()] if run in failed})
        mine = runs[row.ours] if row.ours not in failed else {}
        if row.peers is None:  # The limit: what our rate would be at a share of 1.
            rate, share = mine.get("decode", []), mine.get("decode_share", [])
            limit = [a / b for a, b in zip(rate, share)]
            return report.finish(row, rate, {"limit": limit} if limit else {}, share, notes)
        theirs = {name: runs[run][row.metric] for name, run in row.peers if run not in failed and row.metric in runs[run]}
        return report.finish(row, mine.get(row.metric, []), theirs, mine.get(row.metric + "_share"), notes)

    def attention(self, group):
        """Attention beside torch: bench/attention_peers.py takes the turns."""
        try:
            import attention_peers
        except ImportError as error:
            return [report.finish(row, [], {}, notes=[f"peer not found: {error.name}"]) for row in group]
        if not os.access(self.options.attention_bench, os.X_OK):
            return [report.finish(row, [], {}, notes=["not found: attention_bench (cmake -DMINILLM_BENCH=ON)"]) for row in group]
        attention_peers.prepare(self.options.threads)
        ours = attention_peers.Ours(self.options.attention_bench, self.options.threads)
        entries = []
        for row in group:
            got = attention_peers.compare(ours, row.shape, self.options.repeats)
            entries.append(report.finish(row, got["rates"], {f"torch {got['peer']}": got["peer_rates"]}, got["shares"]))
        ours.close()
        return entries


def processor_word(processor):
    words = [word for word in ("xeon", "epyc", "ryzen", "core") if word in processor.lower()]
    return words[0] if words else "cpu"


def head(machine, threads, now):
    """Schema, machine, compiler, commit and day of the file, from our own bench's entry."""
    return {"schema": report.SCHEMA, "commit": machine.get("commit"), "compiler": machine.get("compiler"), "date": now,
            "machine": {"processor": machine.get("processor"), "cores": len(os.sched_getaffinity(0)), "threads": threads,
                        "device": machine.get("device"), "limits": machine.get("limits")}}


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minillm", default=ROOT / "build/release/bin/minillm")
    parser.add_argument("--attention-bench", default=ROOT / "build/release/bin/attention_bench")
    parser.add_argument("--llama-bin", default="", help="folder of llama.cpp's programs")
    parser.add_argument("--openvino-python", default="", help="a Python that has openvino_genai")
    parser.add_argument("--models", default=pathlib.Path.home() / ".cache/minillm", help="folder of the model files")
    parser.add_argument("--rows", help="names of rows or groups, with commas between; --list shows them")
    parser.add_argument("--list", action="store_true", help="print the rows' names and end")
    parser.add_argument("--repeats", type=int, default=7, help="samples of each figure")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path, help="file to write or to add to; by default under bench/results")
    parser.add_argument("--prepare", action="store_true", help="first make the model files that are not published")
    options = parser.parse_args(arguments)
    try:
        options.chosen = rows.chosen(options.rows.split(",") if options.rows else None, rows.all_rows())
    except ValueError as error:
        parser.error(str(error))
    if options.repeats < 1 or options.threads < 1:
        parser.error("--repeats and --threads must be at least 1")
    return options


def main(arguments=None):
    options = parse(arguments)
    if options.list:
        print("\n".join(f"{row.name:24s} {row.group:18s} {row.work}" for row in options.chosen))
        return 0
    if options.prepare:
        models.prepare(options.models, options.llama_bin)
    measurement = Measurement(options)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        measurement.ours.describe()
    except engines.NotMeasured as error:
        print(f"peers.py: our own program does not run: {error}", file=sys.stderr)
        return 1
    top = head(measurement.ours.machine, options.threads, now)
    path = options.json or ROOT / "bench/results" / f"{processor_word(top['machine']['processor'])}_{top['machine']['cores']}core_peers_{now[:10]}.json"
    entries = []
    for name in dict.fromkeys(row.group for row in options.chosen):
        group = [row for row in options.chosen if row.group == name]
        fresh = measurement.attention(group) if isinstance(group[0], rows.AttentionRow) else measurement.group(group)
        entries += [{**entry, "commit": top["commit"], "date": now} for entry in fresh]
        print(report.table(fresh), flush=True)
        old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        merged = report.merge(old, {**top, "rows": entries})
        path.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
