#!/bin/bash
# bench/gpu_suite.sh PART [large] - tests and measurements that need an NVIDIA GPU: correct, sanitize, attention, decode, models or peers.
# Each command has a time limit, so that a kernel that hangs ends; results are lines of JSON in build/gpu/PART.jsonl. docs/TESTING.md
# says what each part shows.
set -uo pipefail
cd "$(dirname "$0")/.."
source tools/steps.sh
part=${1:-} large=${2:-}
out=build/gpu/$part.jsonl bin=build/cuda/bin
nvidia-smi -L > /dev/null || { echo "no NVIDIA GPU here" >&2; exit 1; }
mkdir -p build/gpu
: > "$out"
failed=0
fail() { echo "FAILED: $1" >&2; failed=1; }

text() {  # text DEVICE MODEL PROMPT: 64 token ids
  timeout 60 "$bin/minillm" generate --device "$1" --json -n 64 --ignore-eos -m "$2" -p "$3" | python3 -c 'import json, sys; print(json.load(sys.stdin)["ids"])'
}

hopper() { nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -Isrc -Iinclude bench/cuda/prefill_variants.cu "$@" -lcuda; }

decode() { nvcc -std=c++20 -O3 -gencode arch=compute_90,code=sm_90 -Isrc -Iinclude bench/cuda/decode_variants.cu src/backend/cuda/attention_decode.cu src/backend/cuda/driver.cpp "$@"; }

case $part in
  correct)
    build cuda conformance_tests -DMINILLM_BENCH=ON && build cuda engine_tests && build cuda minillm_cli || exit 1
    timeout 240 "$bin/conformance_tests" --gtest_brief=1 '--gtest_filter=*/cuda' && result=true || { result=false; fail conformance; }
    echo "{\"test\": \"conformance\", \"passed\": $result}" >> "$out"
    timeout 60 "$bin/engine_tests" --gtest_brief=1 '--gtest_filter=*OnCuda*' && result=true || { result=false; fail engine; }
    echo "{\"test\": \"engine\", \"passed\": $result}" >> "$out"
    for model in smollm2 gemma3-270m; do
      "$bin/minillm" inspect -m "$model" > /dev/null 2>&1 || { echo "$model has not been pulled: skipped"; continue; }
      for prompt in "Count from 1 to 20." "Water boils at a temperature of" "def fibonacci(n):"; do
        [ "$(text cuda "$model" "$prompt")" = "$(text reference "$model" "$prompt")" ] && result=true || { result=false; fail "$model: $prompt"; }
        echo "{\"test\": \"greedy text\", \"model\": \"$model\", \"prompt\": \"$prompt\", \"equal\": $result}" >> "$out"
      done
    done
    ;;
  sanitize)
    build cuda conformance_tests -DMINILLM_BENCH=ON || exit 1
    tests='*Attention.Match*/cuda:*Products.MatchTheOracleForLong*/cuda:*AttentionOutputAndFeed*/cuda:*AttentionInput*/cuda:*ChoiceOn.Takes*/cuda:*ChoiceOn.Refuses*/cuda'
    for tool in memcheck racecheck initcheck synccheck; do
      timeout 110 compute-sanitizer --error-exitcode 1 --tool $tool "$bin/conformance_tests" "--gtest_filter=$tests" > "build/gpu/$tool.log" 2>&1 &&
        result=true || { result=false; fail $tool; }
      echo "{\"test\": \"$tool\", \"clean\": $result}" >> "$out"
    done
    ;;
  attention)
    hopper -o build/gpu/prefill_variants || exit 1
    timeout 300 build/gpu/prefill_variants | tee -a "$out" || fail attention
    ;;
  decode)
    decode -o build/gpu/decode_variants && decode -shared -Xcompiler -fPIC -o build/gpu/libdecode.so || exit 1
    timeout 200 build/gpu/decode_variants time | tee -a "$out" || fail decode_variants
    ! python3 -c 'import torch' 2> /dev/null || timeout 120 python3 bench/cuda/decode_peers.py build/gpu/libdecode.so | tee -a "$out" || fail decode_peers
    ;;
  models)
    build cuda decode_bench -DMINILLM_BENCH=ON || exit 1
    timeout 120 "$bin/decode_bench" llama-3.2-1b bf16 1:16:96 8:16:48 32:576:160 1:4096:48 1:8192:48 1:16:48:0:0.8 32:64:48:0:0.8 | tee -a "$out" || fail llama-3.2-1b
    timeout 60 "$bin/decode_bench" smollm2-135m bf16 1:16:96 1:8000:48 | tee -a "$out" || fail smollm2-135m
    [ "$large" != large ] || timeout 200 "$bin/decode_bench" llama-3.1-8b bf16 1:16:64 32:16:48 1:4096:20 | tee -a "$out" || fail llama-3.1-8b
    ;;
  peers)
    hopper -shared -Xcompiler -fPIC -o build/gpu/libprefill.so || exit 1
    timeout 400 python3 bench/cuda/prefill_peers.py build/gpu/libprefill.so | tee -a "$out" || fail peers
    ;;
  *) echo "usage: bench/gpu_suite.sh correct|sanitize|attention|decode|models|peers [large]" >&2; exit 2 ;;
esac
exit $failed
