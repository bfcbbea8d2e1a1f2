// memory_test.cpp - what reading a hostile file may cost: heap in proportion to the file, time in proportion to its keys.
// Replaces operator new for this test program, to count.
#include <gtest/gtest.h>
#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>

#include "io/gguf.h"
#include "io/limits.h"
#include "io/safetensors.h"
#include "support/gguf_writer.h"
#include "support/safetensors_writer.h"

namespace {
std::atomic<int64_t> heap_now{0}, heap_peak{0};
}

[[gnu::noinline]] void* operator new(size_t n) {
  void* memory = std::malloc(n > 0 ? n : 1);
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t now = heap_now += static_cast<int64_t>(::malloc_usable_size(memory));
  int64_t peak = heap_peak;
  while (now > peak && !heap_peak.compare_exchange_weak(peak, now)) {
  }
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  if (memory != nullptr) heap_now -= static_cast<int64_t>(::malloc_usable_size(memory));
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

namespace minillm {
namespace {

using test::GgufImage;
using test::GgufWriter;

/// The most heap that `read` holds at once, beyond what is held now.
template <typename F>
int64_t peak_heap(F&& read) {
  heap_peak = heap_now.load();
  const int64_t before = heap_now;
  try {
    read();
  } catch (const Error&) {
  }
  return heap_peak - before;
}

/// Processor time of this thread, in seconds: other programs on the machine do not count.
template <typename F>
double seconds(F&& f) {
  const auto now = [] {
    timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  double best = std::numeric_limits<double>::max();
  for (int i = 0; i < 3; ++i) {
    const double start = now();
    f();
    best = std::min(best, now() - start);
  }
  return best;
}

std::string file_of_keys(uint64_t n) {
  GgufWriter writer;
  for (uint64_t i = 0; i < n; ++i) writer.add(std::to_string(i), uint8_t{1});
  return writer.image().bytes;
}
std::string file_of_tensors(uint64_t n) {
  GgufWriter writer;
  for (uint64_t i = 0; i < n; ++i) writer.tensor(std::to_string(i), Dtype::kF32, {1}, "abcd");
  return writer.image().bytes;
}
void read(const std::string& bytes) { read_gguf(std::as_bytes(std::span(bytes.data(), bytes.size())), "test"); }

constexpr int64_t kMiB = 1 << 20;

TEST(GgufMemory, LiesCostNothing) {  // G3, G7, G8
  const GgufImage image = GgufWriter()
                              .add("text", "abc")
                              .add("list", std::vector<uint16_t>{1, 2, 3})
                              .add("words", std::vector<std::string>{"a", "bc"})
                              .random_tensor("t", Dtype::kF32, {2, 8}, 1)
                              .image();
  for (const char* field : {"n_tensors", "n_keys", "key/text/length", "key/text/value", "key/list/count", "key/words/count",
                            "key/words/elements", "tensor/t/length", "tensor/t/dim0", "tensor/t/dim1", "tensor/t/offset"})
    for (const uint64_t lie : {uint64_t{100'000}, uint64_t{1} << 24, uint64_t{1} << 30, uint64_t{1} << 40, uint64_t{1} << 63, UINT64_MAX}) {
      const std::string bytes = GgufImage(image).put(field, lie).bytes;
      EXPECT_LT(peak_heap([&] { read(bytes); }), 64 << 10) << field << " = " << lie;
    }
}

TEST(GgufMemory, HeapIsAtMostTenTimesTheFile) {  // What gguf.h promises; the worst cases are the smallest records.
  const auto check = [](const char* what, const std::string& bytes) {
    const int64_t peak = peak_heap([&] { read(bytes); });
    EXPECT_LT(peak, 10 * static_cast<int64_t>(bytes.size()) + 16 * kMiB) << what << ": " << bytes.size() << " bytes";
  };
  check("bytes", GgufWriter().add("a", std::vector<uint8_t>(limits::kArrayElements / 4)).image().bytes);
  check("empty strings", GgufWriter().add("a", std::vector<std::string>(1 << 20)).image().bytes);
  check("strings", GgufWriter().add("a", std::vector<std::string>(1 << 18, "sixteen letters.")).image().bytes);
  check("keys", file_of_keys(limits::kMetadataKeys));
  check("tensors", file_of_tensors(limits::kTensors));
}

TEST(GgufMemory, TimeGrowsWithTheNumberOfRecordsNotItsSquare) {  // G5
  for (const auto& make : {file_of_keys, file_of_tensors}) {
    const std::string few = make(12'500), many = make(100'000);
    const double few_s = seconds([&] { read(few); }), many_s = seconds([&] { read(many); });
    // Caches make it grow a little faster than linearly; comparing each with each gives an exponent of 2.
    EXPECT_LT(std::log(many_s / few_s) / std::log(8.0), 1.6) << few_s << " s and " << many_s << " s";
  }
}

TEST(SafetensorsMemory, LiesCostNothing) {  // S1, S6
  for (const int64_t n : {int64_t{100'000'000}, int64_t{100'000'001}, INT64_MAX}) {
    const std::string bytes = test::safetensors_bytes("{}", "", n);
    EXPECT_LT(peak_heap([&] { read_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), "test"); }), 64 << 10);
  }
}

TEST(SafetensorsMemory, HeapIsAtMostEightTimesTheHeader) {  // S10
  std::string header = "{";
  for (uint64_t i = 0; i < limits::kTensors; ++i)
    header.append(i > 0 ? ",\"" : "\"").append(std::to_string(i)).append(R"(":{"dtype":"F16","shape":[0],"data_offsets":[0,0]})");
  const std::string bytes = test::safetensors_bytes(header + "}", "");
  EXPECT_LT(peak_heap([&] { read_safetensors(std::as_bytes(std::span(bytes.data(), bytes.size())), "test"); }),
            8 * static_cast<int64_t>(header.size()) + kMiB);
}

}  // namespace
}  // namespace minillm
