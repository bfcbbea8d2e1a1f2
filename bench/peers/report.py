"""From samples to ratios, the table and the JSON. Pure functions: the tests call them with made-up samples."""
import statistics

SCHEMA = 1


def ratio(ours, theirs):
    """Median of ours / theirs over the rounds, each of which saw the same clock and neighbours."""
    return statistics.median(a / b for a, b in zip(ours, theirs))


def finish(row, ours, peers, share=None, notes=()):
    """The entry of a row: `ours` samples, `peers` name -> samples; the fastest peer counts. None of them: no verdict."""
    entry = {"row": row.name, "work": row.work, "must": row.must, "aim": row.aim, "ours": None, "peers": [], "peer": None, "ratio": None,
             "met": None, "notes": list(notes)}
    if ours:
        entry["ours"] = {"median": statistics.median(ours), "samples": ours}
        if share:
            entry["ours"]["of_limit"] = statistics.median(share)
    for name, samples in peers.items():
        peer = {"name": name, "median": statistics.median(samples), "samples": samples}
        if ours:
            peer["ratio"] = ratio(ours, samples)
        entry["peers"].append(peer)
    if ours and peers:
        best = min(entry["peers"], key=lambda peer: peer["ratio"])
        entry.update(peer=best["name"], ratio=best["ratio"], met=best["ratio"] >= row.must)
    return entry


def figure(value):
    return "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def table(entries):
    """Markdown: a line a row."""
    lines = ["| work | ours | peer | | ratio | must | aim | of the limit | met |", "|---|---|---|---|---|---|---|---|---|"]
    for e in entries:
        best = next((peer for peer in e["peers"] if peer["name"] == e["peer"]), None)
        mine = e["ours"] or {}
        share = mine.get("of_limit")
        lines.append("| " + " | ".join([
            e["work"], figure(mine.get("median")), figure(best["median"]) if best else "-",
            e["peer"] or "; ".join(e["notes"]) or "-", "-" if e["ratio"] is None else f"{e['ratio']:.2f}", f"{e['must']:g}", e["aim"],
            "-" if share is None else f"{100 * share:.0f}%", {True: "yes", False: "no", None: "?"}[e["met"]]]) + " |")
    return "\n".join(lines)


def merge(old, new):
    """Rows of `new` in place of those of the same name in `old`, the others kept; the head is that of `new`."""
    if not old or old.get("schema") != new["schema"]:
        return new
    fresh = {entry["row"]: entry for entry in new["rows"]}
    rows = [fresh.pop(entry["row"], entry) for entry in old["rows"]]
    return {**new, "rows": rows + list(fresh.values())}
