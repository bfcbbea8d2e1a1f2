#!/usr/bin/env python3
"""Fails where the innermost loop of a CPU kernel keeps vector registers on the stack.

  python3 tools/check_spills.py BUILD_DIRECTORY [--list]

A register tile whose sums are stored and loaded at every step runs at a quarter of its speed, and compilers do this from one
version to the next without a word. So the object files of every instruction set (cmake/isa.cmake) are disassembled; in each
innermost loop with at least four vector multiply-adds, a vector register stored in the stack frame is a spill (one that is only
loaded is a constant). Only optimised builds mean anything. Exit code 77, a skipped test, where there is no objdump or no such object.
"""
import pathlib
import re
import shutil
import subprocess
import sys

ISAS = ["avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx"]
# Kernels that must be among the loops looked at, so that a change of name does not leave the check with nothing to do.
EXPECTED = {"gemm.cpp": "run_tile<", "gemm_packed.cpp": "run_strip<", "gemv.cpp": "run_group<", "attention_scores.cpp": "score_block<",
            "attention_values.cpp": "value_block<"}
ABSENT = {(isa, "gemm_packed.cpp") for isa in ("avx2", "avx_vnni")}  # Too few registers for such a tile.
# (instruction set, file, part of the function's name): most spills allowed in its loops. AVX2 has 16 registers and takes two for
# 16 lanes: decoding two panels side by side and the unrolled 2^x of gates and tanh do not quite fit.
ALLOWED = {
    ("avx2", "gemm.cpp", "run_tile<(minillm::cpu::UnitKind)3, 1, 2>"): 3,
    # Bound by memory, and two panels are two streams: one at a time spills less and is 10% slower.
    ("avx2", "gemv.cpp", "run_group<"): 10,
    ("avx2", "gemv.cpp", "run_group<(minillm::Dtype)11, 2>"): 27,
    ("avx_vnni", "gemv.cpp", "run_group<"): 3,
    **{("avx_vnni", "gemv.cpp", f"run_group<(minillm::Dtype){upper_bits}, 2>"): 37 for upper_bits in (6, 7, 10, 11)},
    ("avx_vnni", "rows.cpp", "gate_"): 6,
    ("avx_vnni", "rows.cpp", "softcap"): 6,
    ("avx2", "attention_softmax.cpp", "map_scores"): 2,
    ("avx2", "rows.cpp", "gate_"): 6,
    ("avx2", "rows.cpp", "softcap"): 6,
    # Addresses, not sums, in the narrow tiles of the last rows; and where a unit of the strip of Q5_K is fine.
    ("avx512_vnni", "gemm.cpp", ", 3, 1>"): 2,
    ("avx512_vnni", "gemm.cpp", ", 3, 2>"): 2,
    ("avx512_vnni", "gemm_packed.cpp", "run_strip<(minillm::Dtype)10, 2, 8>"): 1,
}

FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
MULTIPLY = re.compile(r"^v(fmadd|fnmadd|fmsub|pdpb|pdpw|dpbf16|pmaddubsw|pmaddwd)")
TARGET = re.compile(r"^([0-9a-f]+) <")
STACK = re.compile(r"^%[xyz]mm\d+,.*\((%rsp|%rbp)[,)]")  # The operand written is the last.


def functions(listing):
    """(name, [(address, mnemonic, operands)]) of each function."""
    name, body = None, []
    for line in listing.splitlines():
        head = FUNCTION.match(line)
        if head:
            if name is not None:
                yield name, body
            name, body = head.group(1), []
            continue
        found = INSTRUCTION.match(line)
        if found and name is not None:
            body.append((int(found.group(1), 16), found.group(2), found.group(3)))
    if name is not None:
        yield name, body


def innermost_loops(body):
    """(first, last) address of every loop that holds no other: a loop is what a jump backwards goes over."""
    start = body[0][0]
    loops = set()
    for address, mnemonic, operands in body:
        target = TARGET.match(operands) if mnemonic.startswith("j") else None
        if target and start <= int(target.group(1), 16) <= address:
            loops.add((int(target.group(1), 16), address))
    # Jumps back to one place from several are one loop.
    last = {}
    for first, end in loops:
        last[first] = max(end, last.get(first, 0))
    spans = sorted(last.items())
    return [(a, b) for a, b in spans if not any((c, d) != (a, b) and a <= c and d <= b for c, d in spans)]


def spills_of(body):
    """(loops with multiply-adds, instructions in them that store a vector register on the stack)."""
    frame_pointer = any(m == "mov" and o == "%rsp,%rbp" for _, m, o in body[:40])
    n_loops, found = 0, []
    for first, last in innermost_loops(body):
        loop = [i for i in body if first <= i[0] <= last]
        if sum(bool(MULTIPLY.match(m)) for _, m, _ in loop) < 4:
            continue
        n_loops += 1
        for address, mnemonic, operands in loop:
            place = STACK.match(operands) if mnemonic.startswith("vmov") else None
            if place and (place.group(1) == "%rsp" or frame_pointer):
                found.append(f"{address:x}: {mnemonic} {operands}")
    return n_loops, found


def allowed(isa, source, name):
    return max((n for (i, s, part), n in ALLOWED.items() if i == isa and s == source and part in name), default=0)


def short(name):
    name = re.sub(r"minillm::cpu::|\(anonymous namespace\)::", "", name)
    return name if len(name) < 110 else name[:107] + "..."


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build, objdump = pathlib.Path(sys.argv[1]), shutil.which("objdump")
    objects = [(isa, path) for isa in ISAS for path in sorted(build.glob(f"CMakeFiles/minillm_cpu_{isa}.dir/src/backend/cpu/isa/*.o"))]
    if objdump is None or not objects:
        print("skipped: no", "objdump" if objdump is None else "kernels of this processor in the build")
        return 77
    n_loops = n_bad = 0
    for isa, path in objects:
        source = path.name[: -len(".o")]
        listing = subprocess.run([objdump, "-d", "-C", "--no-show-raw-insn", "-w", str(path)], check=True, capture_output=True, text=True).stdout
        seen = False
        for name, body in functions(listing):
            loops, found = spills_of(body) if body else (0, [])
            n_loops += loops
            seen = seen or (loops > 0 and EXPECTED.get(source, "") in name)
            if "--list" in sys.argv and loops:
                print(f"{isa} {source} {short(name)}: {loops} loops, {len(found)} spills")
            if len(found) <= allowed(isa, source, name):
                continue
            n_bad += 1
            print(f"{isa}/{source}: {short(name)}: {len(found)} spills in its innermost loop, {allowed(isa, source, name)} allowed")
            for line in found[:4]:
                print("    " + line)
        if source in EXPECTED and not seen and (isa, source) not in ABSENT:
            n_bad += 1
            print(f"{isa}/{source}: no loop with multiply-adds in a function named {EXPECTED[source]}...>")
    print(f"{len(objects)} object files, {n_loops} innermost loops with multiply-adds, {n_bad} problems")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
