#!/usr/bin/env python3
"""Reports files over 300 lines and functions over 70; fails over 400 and 120.

A long file or function holds more than one idea: split it by concept, not by number.
"""
import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_LINES, FILE_LIMIT = 300, 400
FUNCTION_LINES, FUNCTION_LIMIT = 70, 120
FOLDERS = ["include", "src", "tests", "bench", "examples", "python", "tools", ".ci"]
SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".py", ".sh"}

# What separates code from text: comments, raw strings, strings, characters. Kept in length so that lines stay where they are.
TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|R"([^()\\ ]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])*\'', re.S)
PREPROCESSOR = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)
CONTAINER = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def cpp_functions(text):
    """(first line, lines) of each outermost function. A brace opens one if its head has a parameter list and no type keyword."""
    text = PREPROCESSOR.sub(blank, TEXT.sub(blank, text))
    found, stack, head_start, line = [], [], 0, 1
    for at, c in enumerate(text):
        if c == "\n":
            line += 1
        elif c == "{":
            head = text[head_start:at]
            inside = any(kind == "function" for kind, _ in stack)
            is_function = not inside and "(" in head and not (CONTAINER.search(head.split("(")[0]) and ")" not in head)
            first = line - head.strip().count("\n")
            stack.append(("function" if is_function else "other", first))
            head_start = at + 1
        elif c == "}":
            kind, first = stack.pop() if stack else ("other", line)
            if kind == "function":
                found.append((first, line - first + 1))
            head_start = at + 1
        elif c == ";":
            head_start = at + 1
    return found


def python_functions(text):
    nodes = (n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
    return [(n.lineno, n.end_lineno - n.lineno + 1) for n in nodes]


def main():
    files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*")) if p.suffix in SUFFIXES and p.is_file()]
    files += [ROOT / name for name in ("quickstart", "test", ".ci/run")]
    reports, failures, n_functions = [], 0, 0
    for path in files:
        text = path.read_text(encoding="utf-8")
        n_lines = text.count("\n")
        where = path.relative_to(ROOT)
        if n_lines > FILE_LINES:
            failures += n_lines > FILE_LIMIT
            reports.append(f"{'FAIL' if n_lines > FILE_LIMIT else 'long'} {where}: {n_lines} lines")
        functions = python_functions(text) if path.suffix == ".py" else cpp_functions(text) if path.suffix[1:2] in "hc" else []
        n_functions += len(functions)
        for first, lines in functions:
            if lines > FUNCTION_LINES:
                failures += lines > FUNCTION_LIMIT
                reports.append(f"{'FAIL' if lines > FUNCTION_LIMIT else 'long'} {where}:{first}: a function of {lines} lines")
    for report in reports:
        print(report)
    print(f"{len(files)} files, {n_functions} functions; fails over {FILE_LIMIT} lines a file and {FUNCTION_LIMIT} a function: {failures}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
