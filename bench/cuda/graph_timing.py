"""Times CUDA graphs in turns: what the scripts beside this one share."""
import torch


def graphed(fn, repeats=1):
    """fn, `repeats` times, as a graph; returns what replays it."""
    for _ in range(2):
        fn()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            fn()
    return graph.replay


def event_ms(fn):
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a.record(); fn(); b.record(); b.synchronize()
    return a.elapsed_time(b)


def medians(replays, rounds):
    """Milliseconds of each of the named replays, all of them once a round."""
    times = {name: [] for name in replays}
    for _ in range(rounds):
        for name, replay in replays.items():
            times[name].append(event_ms(replay))
    return {name: sorted(t)[rounds // 2] for name, t in times.items()}
