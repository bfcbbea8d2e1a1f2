#!/usr/bin/env python3
"""Checks who includes whom, and that every header compiles alone.

check_includes.py            the layer table (ARCHITECTURE.md), in a second
check_includes.py --headers  also compiles each header by itself (CXX, default c++); those of src/python where PYTHON_INCLUDES
                             names the folders of nanobind and Python, colon-separated
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Folder of src/ -> folders it may include besides its own. "backend" means the headers directly in src/backend.
LAYERS = {
    "base": [],
    "io": ["base"],
    "backend": ["base"],
    "backend/reference": ["base", "backend"],
    "backend/cpu": ["base", "backend"],
    "backend/cuda": ["base", "backend"],
    "backend/no_cuda": ["base", "backend"],
    "kv": ["base", "backend"],
    "text": ["base", "io"],
    "model": ["base", "io", "backend", "kv"],
    "engine": ["base", "io", "backend", "kv", "text", "model"],
    "cli": [],
    "server": [],
    "python": [],
}
APPLICATIONS = {"cli", "server", "python"}  # They include public headers only: the proof that the public API is enough.

# Public header -> the layer that implements it. Those of base may be included anywhere.
PUBLIC = {
    "error": "base", "types": "base", "tensor": "base", "config": "base",
    "metrics": "backend",
    "pull": "io",
    "kv_cache": "kv", "attention": "kv", "attention": "kv",
    "tokenizer": "text", "chat": "text",
    "model": "model", "file_info": "model",
    "engine": "engine", "generator": "engine", "minillm": "engine",
}

# A library's header -> the only folders that may include it.
LIBRARIES = {
    r"curl/": {"io"},
    r"nlohmann/": {"io", "text", "model", "cli", "server"},
    r"CLI/": {"cli"},
    r"histedit": {"cli"},
    r"pcre2": {"text"},
    r"utf8proc": {"text"},
    r"\w*intrin\.h": {"backend/cpu", "base"},
    r"cuda": {"backend/cuda"},
    r"nanobind/": {"python"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def folder_of(path):
    """Longest key of LAYERS that `path` (relative to src/) lies in."""
    parts = pathlib.PurePath(path).parts[:-1]
    for n in range(len(parts), 0, -1):
        name = "/".join(parts[:n])
        if name in LAYERS:
            return name
    return None


def check_source(path, folder):
    """Problems of one file of layer `folder`."""
    problems = []
    allowed = set(LAYERS[folder]) | {folder}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path.relative_to(ROOT)}:{number}"
        if folder == "model" and re.match(r"\s*#\s*if.*MINILLM_CUDA", line):
            problems.append(f"{where}: the model layer never asks which device was built in")
        match = INCLUDE.match(line)
        if not match:
            continue
        bracket, name = match.groups()
        if bracket == "<":
            for pattern, folders in LIBRARIES.items():
                if re.match(pattern, name) and not any(folder == f or folder.startswith(f + "/") for f in folders):
                    problems.append(f"{where}: <{name}> belongs in {', '.join(sorted(folders))} only")
        elif name.startswith("minillm/"):
            layer = PUBLIC.get(pathlib.PurePath(name).stem)
            if layer is None:
                problems.append(f"{where}: {name} has no layer in tools/check_includes.py")
            elif layer != "base" and layer not in allowed and folder not in APPLICATIONS:
                problems.append(f"{where}: {name} is implemented in {layer}, which {folder} may not include")
        elif (target := folder_of(name)) is not None and target not in allowed:
            problems.append(f"{where}: {folder} may not include {target} ({name})")
        elif target is None and not (path.parent / name).exists():
            problems.append(f"{where}: {name} is in no layer")
    return problems


def check_public(path):
    """Problems of one public header: its own layer, and nothing that depends on how the library was built."""
    stem = path.stem
    if stem not in PUBLIC:
        return [f"{path.relative_to(ROOT)}: no layer in tools/check_includes.py"]
    problems = check_source(path, PUBLIC[stem])
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(r"\s*#\s*(if|ifdef|ifndef|elif)\b", line):
            problems.append(f"{path.relative_to(ROOT)}:{number}: a public header does not depend on configuration")
    return problems


def isa_flags(stem):
    """Files that are compiled once for each instruction set: the one that the name holds (vec_avx2.h), else the plainest."""
    flags = dict(re.findall(r"set\(minillm_isa_flags_(\w+) (.*)\)", (ROOT / "cmake" / "isa.cmake").read_text(encoding="utf-8")))
    isa = next((name for name in flags if name.split("_")[0] in stem.split("_")), "scalar")
    words = flags[isa]
    while (inner := re.search(r"\$\{minillm_isa_flags_(\w+)\}", words)) is not None:
        words = words.replace(inner[0], flags[inner[1]])
    words = words.strip('"').split()
    return [f"-DMINILLM_ISA={isa}", f"-DMINILLM_ISA_{isa}=1", *words]


def compile_alone(header):
    """The compiler's words about `header` by itself, or nothing."""
    command = [os.environ.get("CXX", "c++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-I", str(ROOT / "include"),
               "-I", str(ROOT / "src"), "-x", "c++"]
    entry = header
    if "/backend/cpu/" in str(header):
        command += isa_flags(header.stem)
        if header.stem.startswith("vec_"):  # The second half of vec.h, one for each instruction set: compiled through it.
            entry = header.with_name("vec.h")
    if "/src/python/" in str(header):
        for folder in os.environ.get("PYTHON_INCLUDES", "").split(":"):
            command += ["-isystem", folder]
    # Through standard input, so that "#pragma once in main file" is no warning.
    result = subprocess.run(command + ["-"], input=f'#include "{entry}"\n', capture_output=True, text=True, check=False)
    return [] if result.returncode == 0 else [f"{header.relative_to(ROOT)} does not compile alone:\n" + "\n".join(result.stderr.splitlines()[:6])]


def main():
    problems = []
    sources = sorted(p for p in (ROOT / "src").rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"})
    for path in sources:
        folder = folder_of(path.relative_to(ROOT / "src"))
        # The file that chooses a device stands above them all, and knows them through backend.h only.
        problems += check_source(path, folder) if folder else [f"{path.relative_to(ROOT)}: src/ has no such layer"]
    public = sorted((ROOT / "include" / "minillm").glob("*.h"))
    for path in public:
        problems += check_public(path)
    headers = public + [p for p in sources if p.suffix == ".h" and "cuda/" not in str(p).replace("no_cuda/", "")
                        and ("/src/python/" not in str(p) or os.environ.get("PYTHON_INCLUDES"))]
    if "--headers" in sys.argv[1:]:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(compile_alone, headers):
                problems += found
    for problem in problems:
        print(problem)
    print(f"{len(sources) + len(public)} files, {len(headers)} headers, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
