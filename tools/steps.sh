# steps.sh - sourced by quickstart, test and .ci/run: numbered steps with their time, and what to do when one fails.
#   step "Build" "what to do if it fails" command args...
# A step's output goes to the terminal as it comes; the first failing step ends the script.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; else bold='' red='' plain=''; fi
n_done=0

step() {
  local name=$1 advice=$2 started=$SECONDS status=0
  shift 2
  n_done=$((n_done + 1))
  echo "${bold}[$n_done/$n_steps] $name${plain}" >&2
  "$@" || status=$?
  if [ "$status" -ne 0 ]; then
    echo "${red}Step $n_done ($name) failed after $((SECONDS - started)) s with exit code $status.${plain}" >&2
    echo "$advice" >&2
    exit "$status"
  fi
  echo "      $name: done in $((SECONDS - started)) s" >&2
}

# Every compile goes through ccache where it is installed; it is never required.
if [ -z "${CMAKE_CXX_COMPILER_LAUNCHER:-}" ] && command -v ccache > /dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi

# Compiler processes at once: one for each core, and 1.5 GB of memory for each.
build_jobs() {
  local cores memory_kb
  cores=$(nproc)
  memory_kb=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)
  local fit=$((memory_kb / 1500000))
  [ "$fit" -lt 1 ] && fit=1
  echo $((fit < cores ? fit : cores))
}

# build PRESET TARGET [cmake option...]: configures (quietly unless it fails) and compiles.
build() {
  local preset=$1 target=$2 log
  shift 2
  log=$(mktemp)
  if ! cmake --preset "$preset" "$@" > "$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  cmake --build --preset "$preset" --target "$target" -j "$(build_jobs)"
}
