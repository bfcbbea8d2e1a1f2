// gguf_fuzz.cpp - any bytes read as GGUF give a source whose tensors lie inside the bytes, or an Error.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>

#include "fuzz/gguf_fields.h"
#include "io/gguf.h"
#include "minillm/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const auto source = minillm::read_gguf(bytes, "input");
    uint8_t sum = 0;  // Touch the first and last byte of every tensor: a view that leaves the input is a sanitizer finding.
    for (const minillm::SourceTensor& tensor : source->tensors()) {
      const auto* first = static_cast<const uint8_t*>(tensor.view.data);
      if (tensor.bytes == 0 || tensor.bytes > size) __builtin_trap();
      sum = static_cast<uint8_t>(sum + first[0] + first[tensor.bytes - 1]);
    }
    volatile uint8_t used = sum;
    (void)used;
  } catch (const minillm::Error& error) {
    if (error.code() == minillm::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}

#ifdef MINILLM_LIBFUZZER
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

/// Half of the time one to three of the file's numbers become a border value; else libFuzzer's own mutation.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  std::minstd_rand random(seed);
  const minillm::fuzz::GgufFields numbers(data, size);
  if (random() % 2 == 0 || numbers.fields().empty()) return LLVMFuzzerMutate(data, size, max_size);
  const uint64_t borders[] = {0,          1,          2,          31,         32,         33,    64,   65,
                              0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1ull << 62, 1ull << 63, ~0ull, size, size - 1};
  for (unsigned n = 1 + static_cast<unsigned>(random() % 3); n > 0; --n) {
    const minillm::fuzz::Field field = numbers.fields()[random() % numbers.fields().size()];
    const uint64_t value = random() % 3 == 0 ? random() % 48 : borders[random() % std::size(borders)] + random() % 3 - 1;
    std::memcpy(data + field.at, &value, field.width);
  }
  return size;
}
#endif
