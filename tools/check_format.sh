#!/bin/bash
# check_format.sh - every C++ file is as clang-format 14 writes it (other versions differ in small things, so they do not count).
# Exit code 77 means skipped.   To format: clang-format-14 -i FILE
cd "$(dirname "$0")/.." || exit 1
for tool in clang-format-14 clang-format; do
  command -v "$tool" > /dev/null && "$tool" --version | grep -q 'version 14\.' && break
  tool=''
done
[ -n "$tool" ] || { echo "SKIPPED: no clang-format 14 here"; exit 77; }
find include src tests bench examples \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0 2> /dev/null |
  xargs -0 "$tool" --dry-run -Werror
