// allocation_test.cpp - a decode step takes no memory: counted by replacing operator new in this test program.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "minillm/engine.h"

namespace {

std::atomic<int64_t> n_allocations{0};

void* counted_or_null(size_t bytes, size_t alignment) noexcept {
  ++n_allocations;
  return alignment <= alignof(std::max_align_t) ? std::malloc(bytes)
                                                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* counted(size_t bytes, size_t alignment) {
  void* memory = counted_or_null(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Not inlined: GCC would see free() of what another operator allocated, and warn.
[[gnu::noinline]] void* operator new(size_t bytes) { return counted(bytes, 1); }
[[gnu::noinline]] void* operator new[](size_t bytes) { return counted(bytes, 1); }
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return counted_or_null(bytes, 1); }
[[gnu::noinline]] void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return counted_or_null(bytes, 1); }
[[gnu::noinline]] void* operator new(size_t bytes, std::align_val_t alignment) { return counted(bytes, static_cast<size_t>(alignment)); }
[[gnu::noinline]] void* operator new[](size_t bytes, std::align_val_t alignment) { return counted(bytes, static_cast<size_t>(alignment)); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace minillm {
namespace {

struct Case {
  const char *name, *device;
  int64_t n_sequences;
  float temperature;
};

class DecodeStep : public testing::TestWithParam<Case> {};

TEST_P(DecodeStep, AllocatesNothingButTheListOfEvents) {
  const Case& test = GetParam();
  ModelConfig config = Configs::small();
  config.n_layers = 2;
  config.hidden_size = 64;
  config.n_heads = config.n_kv_heads = 2;
  config.head_dim = 32;
  config.ffn_size = 128;
  config.vocab_size = 512;
  LoadOptions load;
  load.device = parse_device(test.device);
  load.n_threads = 2;
  MiniLLM model(config, load);
  Engine engine(model);
  GenerationOptions options;
  options.max_new_tokens = 200;
  options.temperature = test.temperature;
  options.top_p = 0.9f;
  options.repetition_penalty = 1.1f;
  options.frequency_penalty = 0.1f;
  for (int64_t i = 0; i < test.n_sequences; ++i) engine.submit(std::vector<TokenId>(static_cast<size_t>(3 + i), 7), options);
  for (int i = 0; i < 8; ++i) engine.step();  // Warm: prefill and the first decode steps.
  for (int i = 0; i < 30; ++i) {              // All within the first page of 64 tokens.
    const int64_t before = n_allocations;
    const std::vector<StepEvent> events = engine.step();
    EXPECT_EQ(n_allocations - before, 1) << "step " << i;  // The vector that step() returns.
    EXPECT_EQ(static_cast<int64_t>(events.size()), test.n_sequences);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DecodeStep,
                         testing::Values(Case{"CpuGreedy", "cpu", 1, 0.0f}, Case{"CpuSampled", "cpu", 1, 0.8f},
                                         Case{"CpuBatch", "cpu", 4, 0.8f}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace minillm
