// safetensors_fuzz.cpp - any bytes read as safetensors give a source whose tensors tile the data, or an Error.
#include <cstddef>
#include <cstdint>
#include <span>

#include "io/safetensors.h"
#include "minillm/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const auto source = minillm::read_safetensors(bytes, "input");
    uint8_t sum = 0;  // Touch the first and last byte of every tensor: a view that leaves the input is a sanitizer finding.
    for (const minillm::SourceTensor& tensor : source->tensors()) {
      const auto* first = static_cast<const uint8_t*>(tensor.view.data);
      if (tensor.bytes > size) __builtin_trap();
      if (tensor.bytes == 0) continue;
      sum = static_cast<uint8_t>(sum + first[0] + first[tensor.bytes - 1]);
    }
    volatile uint8_t used = sum;
    (void)used;
  } catch (const minillm::Error& error) {
    if (error.code() == minillm::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}
