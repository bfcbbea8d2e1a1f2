"""bench/peers.py without a peer: parsing, ratios, the table, merging, the choice of rows, and what a missing program does."""
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))

from peers import engines, report, rows  # noqa: E402


def row(**changes):
    fields = {"name": "decode", "group": "short", "work": "decode, empty cache", "metric": "decode", "ours": rows.ours(), "peers": (), "must": 2.0,
              "aim": "3x"}
    return rows.Row(**{**fields, **changes})


def test_llama_bench_is_read():
    text = json.dumps([{"n_prompt": 512, "n_gen": 0, "samples_ts": [10.5, 11.0]}, {"n_prompt": 0, "n_gen": 64, "samples_ts": [3.0, 4.0]}])
    assert engines.parse_llama(text) == {"prefill": [10.5, 11.0], "decode": [3.0, 4.0]}


def test_our_bench_is_read_with_its_share_of_the_limit():
    text = json.dumps([{"test": "decode", "tok_s": 100.0, "of_peak": 0.5, "samples": [80.0, 100.0, 120.0]}, {"test": "load", "seconds": 1},
                       {"test": "machine", "commit": "abc"}])
    samples, machine = engines.parse_ours(text)
    assert samples == {"decode": [80.0, 100.0, 120.0], "decode_share": [0.4, 0.5, 0.6]} and machine["commit"] == "abc"


def test_the_ratio_is_of_rounds_not_of_medians():
    assert report.ratio([100, 10, 40], [50, 5, 20]) == 2  # A machine that changes speed between rounds.
    assert report.ratio([30, 10, 100], [10, 10, 10]) == 3


def test_the_fastest_peer_decides():
    entry = report.finish(row(), [40.0, 40.0, 40.0], {"slow": [10.0, 10.0, 10.0], "fast": [25.0, 16.0, 20.0]}, share=[0.5, 0.7, 0.6])
    assert entry["peer"] == "fast" and entry["ratio"] == 2 and entry["met"] is True
    assert [peer["ratio"] for peer in entry["peers"]] == [4, 2]
    assert entry["ours"] == {"median": 40, "samples": [40.0, 40.0, 40.0], "of_limit": 0.6}
    assert report.finish(row(must=2.1), [40.0], {"fast": [20.0]})["met"] is False


def test_a_missing_peer_gives_no_verdict():
    entry = report.finish(row(), [40.0], {}, notes=["peer not found: llama-bench"])
    assert entry["ratio"] is None and entry["met"] is None
    line = report.table([entry]).splitlines()[-1]
    assert "peer not found: llama-bench" in line and line.endswith("| ? |")


def test_the_table_shows_ratio_must_and_share():
    entry = report.finish(row(), [1234.0], {"llama.cpp": [500.0]}, share=[0.755])
    assert report.table([entry]).splitlines()[-1] == "| decode, empty cache | 1,234 | 500.0 | llama.cpp | 2.47 | 2 | 3x | 76% | yes |"


def test_new_rows_replace_those_of_their_name():
    old = {"schema": report.SCHEMA, "commit": "a", "rows": [{"row": "x", "ratio": 1}, {"row": "y", "ratio": 2}]}
    new = {"schema": report.SCHEMA, "commit": "b", "rows": [{"row": "y", "ratio": 3}, {"row": "z", "ratio": 4}]}
    assert report.merge(None, new) == new
    assert report.merge(old, new) == {"schema": report.SCHEMA, "commit": "b",
                                      "rows": [{"row": "x", "ratio": 1}, {"row": "y", "ratio": 3}, {"row": "z", "ratio": 4}]}
    assert report.merge({**old, "schema": 0}, new) == new  # Of another form: begun anew.


def test_rows_are_chosen_by_name_or_group():
    everything = rows.all_rows()
    names = [r.name for r in everything]
    assert len(set(names)) == len(names)
    assert [r.name for r in rows.chosen(["decode", "gemma"], everything)] == ["decode", "gemma_prefill", "gemma_decode"]
    assert rows.chosen(None, everything) == everything
    with pytest.raises(ValueError, match="no row or group 'nothing'; there are: prefill512,"):
        rows.chosen(["nothing"], everything)


def test_rows_of_a_group_take_as_many_samples_a_call():
    groups = {}
    for r in rows.all_rows():
        groups.setdefault(r.group, set()).add(getattr(r, "samples", 1))
    assert all(len(samples) == 1 for samples in groups.values())


def test_what_is_missing_or_fails_is_a_note():
    with pytest.raises(engines.NotMeasured, match="peer not found: llama-bench"):
        engines.call(["/nowhere/llama-bench", "-p", 1])
    with pytest.raises(engines.NotMeasured, match=r"python.* failed \(3\): why"):
        engines.call([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(engines.NotMeasured, match="model not found: none.gguf"):
        engines.file_in("/nowhere", "none.gguf")


@pytest.fixture
def fake_minillm(tmp_path):
    """A program that answers as `minillm bench --json` does."""
    answer = [{"test": test, "tok_s": 10.0, "of_peak": 0.25, "samples": [10.0]} for test in ("prefill", "decode")]
    answer.append({"test": "machine", "commit": "abc", "compiler": "gcc", "processor": "A Xeon", "device": "cpu (scalar, 1 threads)",
                   "limits": {"read_gb_s": 1.0}})
    program = tmp_path / "minillm"
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{json.dumps(answer)}\nE\n", encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / rows.SMOLLM).touch()
    return program


def test_without_peers_the_table_is_still_written(fake_minillm, tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, ROOT / "bench/peers.py", "--minillm", fake_minillm, "--models", tmp_path, "--json", out, "--repeats", "2"]
    done = subprocess.run(command + ["--rows", "short,start"], capture_output=True, text=True, check=True)
    assert done.stdout.count("peer not found: llama-bench") == 2 and "peer not found: a Python with openvino_genai" in done.stdout
    subprocess.run(command + ["--rows", "batch16"], capture_output=True, check=True)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["schema"] == report.SCHEMA and written["commit"] == "abc" and written["machine"]["processor"] == "A Xeon"
    assert [r["row"] for r in written["rows"]] == ["prefill512", "prefill512_q4_0", "prefill512_openvino", "decode", "start", "batch16"]
    limited = written["rows"][-1]
    assert limited["ours"]["samples"] == [10.0, 10.0] and limited["ratio"] == 0.25 and limited["met"] is False
    assert written["rows"][0]["ours"]["median"] == 10 and written["rows"][0]["met"] is None


def test_an_unknown_row_is_refused():
    done = subprocess.run([sys.executable, ROOT / "bench/peers.py", "--rows", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no row or group 'nothing'" in done.stderr


def test_without_our_own_program_nothing_is_written(tmp_path):
    command = [sys.executable, ROOT / "bench/peers.py", "--minillm", tmp_path / "minillm", "--json", tmp_path / "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "does not run: peer not found: minillm" in done.stderr and not (tmp_path / "out.json").exists()
