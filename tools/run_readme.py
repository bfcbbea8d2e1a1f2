#!/usr/bin/env python3
"""Runs the ```sh blocks of a Markdown file, line by line, in this folder; stops at the first command that fails."""
import subprocess
import sys
import time


def commands(path):
    inside = False
    for line in open(path, encoding="utf-8"):
        if line.startswith("```"):
            inside = not inside and line.strip() == "```sh"
        elif inside and line.strip() and not line.startswith("#"):
            yield line.strip()


def main():
    n = 0
    for command in commands(sys.argv[1]):
        started = time.monotonic()
        print(f"$ {command}", flush=True)
        status = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, check=False).returncode
        print(f"  exit code {status}, {time.monotonic() - started:.1f} s", flush=True)
        if status:
            return status
        n += 1
    print(f"{n} commands ran")
    return 0 if n else 1


if __name__ == "__main__":
    sys.exit(main())
