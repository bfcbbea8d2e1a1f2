"""The plots of the report. Each says machine, date and commit at its foot, and draws the limit where there is one.

Colours mean the same everywhere: blue is flash attention or the cache in use, orange what it is compared with, dashed grey a limit.
"""
import io

import matplotlib

matplotlib.use("Agg")  # Files, no window.
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

OURS, OTHER, LIMIT, GOAL = "#1f6fb4", "#d9772b", "#555555", "#3b8f4e"
SHADES = ["#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b"]
MIB = 2**20


def source(analysis):
    """Where the numbers come from, in one line."""
    machine = analysis["machine"]
    return f"{machine['processor']}, {machine['device']}  ·  {analysis['date'][:10]}  ·  MiniLLM {analysis['minillm']} {analysis['commit'][:12]}"


def short(number):
    """1536 as 1.5 k, 48.0 as 48."""
    return f"{number:g}" if number < 10000 else f"{number / 1000:g} k"


def figure(title, x, y, x_values, log_y=False):
    """Axes with a logarithmic x axis ticked at the measured values."""
    fig, axes = plt.subplots(figsize=(7.6, 4.3), dpi=150)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=12)
    axes.set_xscale("log", base=2)
    axes.set_xticks(x_values, [short(v) for v in x_values])
    axes.xaxis.set_minor_locator(NullLocator())
    if log_y:
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return fig, axes


def png(fig, analysis):
    """The figure as bytes, with its source at the foot."""
    fig.tight_layout(rect=(0, 0.045, 1, 1))
    fig.text(0.012, 0.014, source(analysis), fontsize=7, color="#666666")
    data = io.BytesIO()
    fig.savefig(data, format="png", metadata={"Software": None})
    plt.close(fig)
    return data.getvalue()


def line(axes, x, y, label, color, **style):
    axes.plot(x, y, **{"marker": "o", "markersize": 4.5, "linewidth": 2, "color": color, "label": label, **style})


def limit(axes, x, y, text, color=LIMIT, style="--"):
    """A limit, given at each x or as one number."""
    values = y if isinstance(y, list) else [y] * len(x)
    axes.plot(x, values, style, color=color, linewidth=1.4, label=text)


def column(section, key):
    return [row[key] for row in section["rows"]]


def attention_memory(analysis):
    section = analysis["attention_memory"]
    tokens = column(section, "tokens")
    fig, axes = figure("Memory that attention allocates", "tokens", "MiB at its highest", tokens, log_y=True)
    standard, flash = ([n / MIB for n in column(section, f"{kind}_bytes")] for kind in ("standard", "flash"))
    line(axes, tokens, standard, "standard attention: the whole score matrix", OTHER)
    line(axes, tokens, flash, f"flash attention, tiles of {section['block']} keys", OURS)
    limit(axes, tokens, 1.0, "promised for flash attention: 1 MiB", GOAL)
    for x, y in zip(tokens, standard):
        axes.annotate(f"{y:.1f}", (x, y), textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8, color=OTHER)
    for x, y in zip(tokens, flash):
        axes.annotate(f"{y:.2f}", (x, y), textcoords="offset points", xytext=(0, -13), ha="center", fontsize=8, color=OURS)
    axes.set_ylim(min(flash) / 2.2, max(standard) * 2)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return png(fig, analysis)


def attention_speed(analysis):
    section = analysis["attention_speed"]
    tokens = column(section, "tokens")
    fig, axes = figure("Speed of attention, one causal sequence", "tokens", "GFLOP/s", tokens)
    line(axes, tokens, column(section, "flash_gflop_s"), "flash attention", OURS)
    line(axes, tokens, column(section, "standard_gflop_s"), "standard attention", OTHER)
    peak = section["limits"]["float_gflop_s"]
    limit(axes, tokens, peak, f"what the cores reach in float32: {peak:.0f} GFLOP/s")
    top = max(peak, *column(section, "flash_gflop_s"), *column(section, "standard_gflop_s"))
    axes.set_ylim(0, top * 1.42)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return png(fig, analysis)


def block_sizes(analysis):
    section = analysis["block_sizes"]
    blocks = sorted({row["block"] for row in section["rows"]})
    lengths = sorted({row["tokens"] for row in section["rows"]})
    fig, axes = figure("Flash attention by block size", "block size in keys", "share of the best block at that length", blocks)
    for i, length in enumerate(lengths):
        rows = sorted((row for row in section["rows"] if row["tokens"] == length), key=lambda row: row["block"])
        shade = SHADES[i * (len(SHADES) - 1) // max(len(lengths) - 1, 1)]
        line(axes, [row["block"] for row in rows], [row["of_best"] for row in rows], f"{length} tokens", shade, markersize=4, linewidth=1.8)
    resolved = section["resolved"]["block"]
    axes.axvline(resolved, color=GOAL, linewidth=1.4, linestyle=":")
    axes.annotate(f"the model takes {resolved}", (resolved, 0.03), rotation=90, fontsize=8, color=GOAL, xytext=(4, 0), textcoords="offset points")
    limit(axes, blocks, 1.0, "the best")
    axes.set_ylim(0, 1.08)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
    axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png(fig, analysis)


def cache_growth(analysis):
    section = analysis["cache_growth"]
    rows = section["rows"]
    labels = [{"start": "start", "growth": "", "crop": "crop to ", "reset": "reset"}[row["after"]] +
              (short(row["tokens"]) if row["after"] in ("growth", "crop") else "") for row in rows]
    fig, axes = plt.subplots(figsize=(7.6, 4.3), dpi=150)
    axes.set_title("Memory that the cache holds while it grows and shrinks", loc="left", fontsize=12, fontweight="bold", pad=12)
    x = range(len(rows))
    axes.bar(x, [row["bytes"] / MIB for row in rows], color=OURS, width=0.62, label=f"held, {section['dtype']}, in pages")
    axes.plot(x, [row["needed_bytes"] / MIB for row in rows], "_", color=LIMIT, markersize=24, markeredgewidth=1.8,
              label="what its tokens need at least")
    for i, row in enumerate(rows):
        axes.annotate(f"{row['bytes'] / MIB:.1f}", (i, row["bytes"] / MIB), textcoords="offset points", xytext=(0, 4), ha="center", fontsize=8)
    axes.set_xticks(x, labels)
    axes.set_xlabel("tokens, from left to right in time")
    axes.set_ylabel("MiB")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return png(fig, analysis)


def generation(analysis):
    section = analysis["generation"]
    context = column(section, "context")
    fast = column(section, "incremental_tok_s")
    fig, axes = figure("One more token: with the cache, and computing everything again", "tokens before it", "tokens/s", context, log_y=True)
    line(axes, context, fast, "with the cache", OURS)
    line(axes, context, column(section, "recomputed_tok_s"), "computed again", OTHER)
    limit(axes, context, [rate / share for rate, share in zip(fast, column(section, "of_peak"))],
          f"the machine's limit: {section['limits']['read_gb_s']:.1f} GB/s, {section['limits']['float_gflop_s']:.0f} GFLOP/s")
    limit(axes, context, 148, "promised: 148 tokens/s", GOAL, ":")
    axes.set_ylim(min(column(section, "recomputed_tok_s")) / 1.6, max(fast) * 9)
    axes.legend(frameon=False, fontsize=8.5, loc="upper right", ncols=2)
    return png(fig, analysis)


def batches(analysis):
    section = analysis["batches"]
    batch, rates = column(section, "batch"), column(section, "tok_s")
    fig, axes = figure("Sequences decoded together", "sequences", "tokens/s of all together", batch)
    line(axes, batch, rates, "measured", OURS)
    for x, y, ratio in zip(batch, rates, column(section, "ratio")):
        axes.annotate(f"{ratio:.1f}×", (x, y), textcoords="offset points", xytext=(0, 8), ha="center", fontsize=8.5, color=OURS)
    limit(axes, batch, [rate / share for rate, share in zip(rates, column(section, "of_peak"))], "the machine's limit for this batch")
    limit(axes, batch, 4 * rates[0], "promised for 16: 4 times one sequence", GOAL, ":")
    axes.set_ylim(0, max(4.6 * rates[0], 1.25 * max(rates), 1.08 * max(rate / share for rate, share in zip(rates, column(section, "of_peak")))))
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return png(fig, analysis)


PLOTS = {"attention_memory": attention_memory, "attention_speed": attention_speed, "block_sizes": block_sizes, "cache_growth": cache_growth,
         "generation": generation, "batches": batches}
