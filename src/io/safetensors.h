// safetensors.h - Hugging Face models: safetensors files with config.json, generation_config.json, tokenizer.json beside them.
// Source: the format's README and reference implementation (huggingface/safetensors). A file is
//   u64 N             length of the header in bytes, little endian; at most 100,000,000
//   header            N bytes of JSON, UTF-8, starting with '{', padded with spaces at the end:
//                       {"__metadata__": {text: text, ...},  "NAME": {"dtype": "F32", "shape": [n, ...], "data_offsets": [begin, end]},
//                       ...}
//   data              rows of elements, row-major, little endian; offsets count from here
// Rules of the reference: the tensors tile the data without hole or overlap from 0 to the end of the file, and each one's
// range is its shape times its element. A dimension may be 0; no dimension at all is one element, given as shape [1] here.
// Stricter here: spaces are the only padding and only at the end, no field or name occurs twice, no unknown field, __metadata__ is
// not null, at most 4 dimensions, each below 2^63.
// Element types: F32, F16, BF16, I32. Others are refused by name.
//
// A model is one file, or a folder with model.safetensors, or with model.safetensors.index.json:
//   {"metadata": {...}, "weight_map": {"NAME": "model-00001-of-00002.safetensors", ...}}     files of the same folder
// Cost: one pass over the header. Memory: the table of tensors; a tensor that does not lie on a multiple of its element is copied.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "io/tensor_source.h"

namespace minillm {

/// Opens a .safetensors file, an index.json, or a folder that holds one of them; config.json must lie beside it.
/// Throws Error{kNotFound, kCorruptFile, kUnsupported}.
std::unique_ptr<TensorSource> open_safetensors(const std::string& path);

/// Reads one file that is in memory, tensors only. Borrows `bytes`; `what` names it in messages.
std::unique_ptr<TensorSource> read_safetensors(std::span<const std::byte> bytes, const std::string& what);

/// True if `bytes` start as a safetensors file does.
bool looks_like_safetensors(std::span<const std::byte> bytes) noexcept;

}  // namespace minillm
