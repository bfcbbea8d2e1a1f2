"""The report's page: one HTML file with its plots inside, no script, nothing fetched."""
import base64
import html

from ._plots import MIB, column, source

STYLE = """
:root { --ink: #1d1d1f; --soft: #6b6b70; --rule: #e3e3e6; --blue: #1f6fb4; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 49rem; padding: 3rem 1.5rem 5rem; color: var(--ink); background: #fff;
  font: 16px/1.55 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.02em; }
h2 { font-size: 1.3rem; margin: 3.2rem 0 .3rem; letter-spacing: -.01em; }
p { max-width: 46rem; margin: .4rem 0 1rem; }
.soft { color: var(--soft); font-size: .88rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .8rem; margin: 1.8rem 0 .5rem; }
.tile { border: 1px solid var(--rule); border-radius: .6rem; padding: .9rem 1rem; }
.tile b { display: block; font-size: 1.65rem; line-height: 1.15; color: var(--blue); letter-spacing: -.02em; }
.tile span { font-size: .83rem; line-height: 1.35; color: var(--soft); display: block; margin-top: .3rem; }
img { width: 100%; max-width: 46rem; height: auto; display: block; margin: .6rem 0 .8rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { text-align: right; padding: .28rem .9rem; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); }
th:first-child, td:first-child { padding-left: 0; }
td.text, th.text { text-align: left; }
details summary { cursor: pointer; color: var(--soft); font-size: .88rem; }
@media print { body { padding: 0; } h2 { break-after: avoid; } img, table { break-inside: avoid; } }
"""


def table(columns, rows):
    """columns: (title, function of a row giving its text)."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title, _ in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(show(row)))}</td>" for _, show in columns) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def mib(key):
    return lambda row: f"{row[key] / MIB:,.2f} MiB" if row[key] < 1000 * MIB else f"{row[key] / MIB:,.0f} MiB"


def number(key, digits=0, unit=""):
    return lambda row: f"{row[key]:,.{digits}f}{unit}"


def percent(key):
    return lambda row: f"{100 * row[key]:.0f}%"


def section(title, text, picture, *tables):
    image = f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">' if picture else ""
    return f"<h2>{html.escape(title)}</h2>\n<p>{text}</p>\n{image}\n" + "\n".join(tables)


def tiles(a):
    memory, speed, generation, batches = (a[name]["rows"][-1] for name in ("attention_memory", "attention_speed", "generation", "batches"))
    fastest = max(a["generation"]["rows"], key=lambda row: row["incremental_tok_s"])
    shown = [
        (f"{memory['standard_bytes'] / memory['flash_bytes']:,.0f}×", f"less memory for attention at {memory['tokens']:,} tokens"),
        (f"{speed['ratio']:.1f}×", f"the speed of standard attention at {speed['tokens']:,} tokens"),
        (f"{fastest['incremental_tok_s']:.0f}/s", f"tokens, one sequence, after {fastest['context']:,} tokens"),
        (f"{generation['ratio']:.0f}×", f"faster with the cache than computed again, after {generation['context']:,} tokens"),
        (f"{batches['ratio']:.1f}×", f"the tokens/s of one sequence with {batches['batch']} together"),
    ]
    return '<div class="tiles">' + "".join(f'<div class="tile"><b>{b}</b><span>{html.escape(text)}</span></div>' for b, text in shown) + "</div>"


def memory_section(a, plots):
    s = a["attention_memory"]
    return section(
        "Memory of attention",
        f"Standard attention stores a score for each pair of tokens; flash attention works in tiles of {s['block']} keys and keeps a running "
        f"maximum and sum instead. Batch {s['batch']}, {s['heads']} heads of {s['head_dim']}, {s['threads']} threads; bytes that the "
        "allocator counted beyond inputs and output.",
        plots["attention_memory"],
        table([("tokens", number("tokens")), ("standard", mib("standard_bytes")), ("flash", mib("flash_bytes"))], s["rows"]))


def speed_section(a, plots):
    s = a["attention_speed"]
    return section(
        "Speed of attention",
        f"One causal sequence with the model's {s['heads']} query and {s['kv_heads']} key heads of {s['head_dim']}, both kinds by turns, "
        "medians. The limit is what float32 multiply-adds reached in the same minute.",
        plots["attention_speed"],
        table([("tokens", number("tokens")), ("flash", lambda r: f"{1e3 * r['flash_seconds']:.2f} ms"),
               ("standard", lambda r: f"{1e3 * r['standard_seconds']:.2f} ms"), ("flash is faster by (median of rounds)", number("ratio", 2, "×")),
               ("flash of limit", percent("of_peak"))], s["rows"]))


def block_section(a, plots):
    s = a["block_sizes"]
    verdicts = "; ".join(f"{x['range']}, {' to '.join(map(str, x['blocks']))} keys: {x['verdict']}, "
                         f"in the worst case {100 * x['of_best']:.0f}% of the best" for x in s["advice"])
    lengths = sorted(set(column(s, "tokens")))
    blocks = sorted(set(column(s, "block")))
    cells = {(row["tokens"], row["block"]): row for row in s["rows"]}
    return section(
        "Block sizes",
        f"Every tile at every length, as a share of the best tile there. Best over all lengths: {s['best']['block']} "
        f"({100 * s['best']['of_best']:.0f}% of each length's best on average); the model takes {s['resolved']['block']} "
        f"({100 * s['resolved']['of_best']:.0f}%). The rule of thumb, measured here: {html.escape(verdicts)}.",
        plots["block_sizes"],
        "<details><summary>All rates in GFLOP/s</summary>" +
        table([("tokens", str)] + [(str(b), lambda n, b=b: f"{cells[n, b]['gflop_s']:.0f}" if (n, b) in cells else "") for b in blocks], lengths) +
        "</details>")


def cache_section(a, plots):
    growth, memory = a["cache_growth"], a["cache_memory"]
    return section(
        "Memory of the cache",
        f"Pages are taken as a sequence grows ({growth['token_bytes']:,} bytes a token in {growth['dtype']}) and given back by crop and reset.",
        plots["cache_growth"],
        f"<p>Preallocated for {memory['tokens']:,} tokens, twice the context of <code>{html.escape(memory['model'])}</code>:</p>" +
        table([("batch", number("batch")), ("dtype", lambda r: r["dtype"]), ("computed", mib("computed_bytes")),
               ("measured", mib("measured_bytes"))], memory["rows"]))


def generation_section(a, plots):
    s = a["generation"]
    return section(
        "Generation, with the cache and without",
        "With the cache a new token costs one pass over the weights; without it the whole sequence is computed again. The limit is the time "
        "in which this machine reads the weights and the cache, or does the arithmetic, whichever is longer.",
        plots["generation"],
        table([("tokens before", number("context")), ("with the cache", number("incremental_tok_s", 1, " /s")),
               ("computed again", number("recomputed_tok_s", 2, " /s")), ("faster by", number("ratio", 1, "×")),
               ("of limit", percent("of_peak"))], s["rows"]))


def batch_section(a, plots):
    s = a["batches"]
    low, high = s["prompt_tokens"]
    return section(
        "Sequences together",
        f"Rows after prompts of {low} to {high} tokens, {s['new_tokens']} new tokens each. The weights are read once for all rows, so the "
        "total grows until the arithmetic is the limit.",
        plots["batches"],
        table([("sequences", number("batch")), ("together", number("tok_s", 1, " /s")), ("against one", number("ratio", 2, "×")),
               ("of limit", percent("of_peak"))], s["rows"]))


def page(a, plots):
    machine, model = a["machine"], a["model"]
    limits = machine["limits"]
    facts = [
        f"{model['name']}: {model['parameters'] / 1e6:.0f} million weights in {model['weight_bytes'] / MIB:.0f} MiB, {model['n_layers']} layers",
        f"{machine['processor']}, {machine['device']}, {machine['memory_bytes'] / 2**30:.0f} GiB",
        f"reads {limits['read_gb_s']:.1f} GB/s, {limits['float_gflop_s']:.0f} GFLOP/s in float32, {limits['quantised_gflop_s']:.0f} in int8",
        f"{a['date'].replace('T', ' ')} · MiniLLM {a['minillm']} · commit {a['commit']} · {a.get('compiler', '')}",
    ]
    parts = [show(a, plots) for show in (memory_section, speed_section, block_section, cache_section, generation_section, batch_section)]
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
            f"<title>MiniLLM, measured: {html.escape(source(a))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            "<h1>What attention, the cache and generation cost here</h1>\n"
            f'<p class="soft">{"<br>".join(map(html.escape, facts))}</p>\n{tiles(a)}\n' + "\n".join(parts) +
            '\n<p class="soft" style="margin-top:3rem">Made by <code>minillm analyze --json</code> and <code>python -m minillm.report</code>. '
            "Medians; limits are measured beside each section.</p>\n</body>\n</html>\n")
