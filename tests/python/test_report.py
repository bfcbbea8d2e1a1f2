"""The report: what `minillm analyze` printed as a page and plots, from the results committed under bench/results."""
import copy
import json
import os
import pathlib
import re
import subprocess

import pytest

from minillm import report

pytest.importorskip("matplotlib")

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RESULTS = sorted((ROOT / "bench" / "results").glob("*_analysis_*.json"))
PLOTS = {"attention_memory", "attention_speed", "block_sizes", "cache_growth", "generation", "batches"}


@pytest.fixture(scope="module")
def analysis():
    return report.load(RESULTS[-1])


def test_the_page_holds_every_plot_and_every_number(analysis, tmp_path):
    assert report.main([str(RESULTS[-1]), "--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.png")} == PLOTS
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and path.stat().st_size > 10_000
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == len(PLOTS)
    assert not re.search(r'(src|href)="(?!data:)', page)  # Nothing is fetched.
    for fact in (analysis["commit"], analysis["machine"]["processor"], analysis["date"][:10], analysis["model"]["name"]):
        assert fact in page
    for row in analysis["attention_memory"]["rows"]:
        assert f"<td>{row['tokens']:,}</td>" in page
    for row in analysis["batches"]["rows"]:
        assert f"<td>{row['tok_s']:,.1f} /s</td>" in page


def test_every_plot_names_machine_date_and_commit(analysis):
    from minillm import _plots

    source = _plots.source(analysis)
    assert analysis["machine"]["processor"] in source and analysis["date"][:10] in source and analysis["commit"][:12] in source
    assert set(_plots.PLOTS) == PLOTS


def test_names_in_the_analysis_are_text_and_not_markup(analysis, tmp_path):
    changed = copy.deepcopy(analysis)
    changed["machine"]["processor"] = changed["model"]["name"] = "<script>alert(1)</script>"
    page = report.write(changed, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("text, words", [("{", "Expecting"), ("[]", "expected the JSON object"), ("{}", "attention_memory"), (None, "No such file")])
def test_what_is_no_analysis_is_refused(text, words, tmp_path, capsys):
    path = tmp_path / "analysis.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert report.main([str(path), "--out", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_section_without_rows_is_refused(analysis, tmp_path, capsys):
    changed = dict(analysis, batches={})
    (tmp_path / "analysis.json").write_text(json.dumps(changed), encoding="utf-8")
    assert report.main([str(tmp_path / "analysis.json")]) == 1
    assert "batches.rows missing" in capsys.readouterr().err


def test_what_analyze_prints_becomes_a_page(tmp_path):
    program = os.environ.get("MINILLM_PROGRAM", str(ROOT / "build" / "release" / "bin" / "minillm"))
    if not os.access(program, os.X_OK):
        pytest.skip(f"{program} is not built")
    printed = subprocess.run([program, "analyze", "--random", "small", "--max-tokens", "256", "--repeats", "1", "--json"], capture_output=True,
                             text=True, check=True).stdout
    (tmp_path / "analysis.json").write_text(printed, encoding="utf-8")
    assert report.write(report.load(tmp_path / "analysis.json"), tmp_path / "out").exists()
