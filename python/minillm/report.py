"""Turns what `minillm analyze --json` measured into an HTML page and PNG plots.

    minillm analyze --json > analysis.json
    python -m minillm.report analysis.json --out report

writes report/index.html, which holds its plots and can be sent as one file, and the same plots as PNG files beside it.
Needs matplotlib: pip install "minillm[report]".
"""
import argparse
import json
import pathlib
import sys

SECTIONS = ("attention_memory", "attention_speed", "block_sizes", "cache_growth", "cache_memory", "generation", "batches")


class ReportError(Exception):
    """An analysis that cannot be drawn."""


def load(path):
    """The analysis in a file, checked as far as the page relies on it."""
    try:
        text = sys.stdin.read() if str(path) == "-" else pathlib.Path(path).read_text(encoding="utf-8")
        analysis = json.loads(text)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: {error}") from error
    if not isinstance(analysis, dict):
        raise ReportError(f"{path}: expected the JSON object of `minillm analyze --json`")
    missing = [name for name in ("minillm", "commit", "date", "machine", "model", *SECTIONS) if name not in analysis]
    missing += [f"{name}.rows" for name in SECTIONS if name in analysis and not (isinstance(analysis[name], dict) and analysis[name].get("rows"))]
    if missing:
        raise ReportError(f"{path}: not what `minillm analyze --json` prints: {', '.join(missing)} missing")
    return analysis


def write(analysis, folder):
    """Draws the plots and the page into `folder`; returns the page's path."""
    from . import _page, _plots  # Here, so that a wrong file is told before matplotlib is asked for.

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plots = {name: draw(analysis) for name, draw in _plots.PLOTS.items()}
    for name, png in plots.items():
        (folder / f"{name}.png").write_bytes(png)
    page = folder / "index.html"
    page.write_text(_page.page(analysis, plots), encoding="utf-8")
    return page


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m minillm.report", description=__doc__.splitlines()[0])
    parser.add_argument("analysis", help="a file with what `minillm analyze --json` printed; - reads standard input")
    parser.add_argument("--out", default="report", help="folder for index.html and the plots (default: report)")
    options = parser.parse_args(arguments)
    try:
        print(write(load(options.analysis), options.out))
    except ModuleNotFoundError as error:
        print(f"{error}: the plots need matplotlib: pip install 'minillm[report]'", file=sys.stderr)
        return 1
    except (ReportError, OSError, KeyError, TypeError) as error:
        print(f"minillm.report: {error!r}" if isinstance(error, (KeyError, TypeError)) else f"minillm.report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
