// gguf.h - GGUF files, versions 2 and 3, little endian. Source: the GGUF specification (ggml-org/ggml, docs/gguf.md).
//   header    u32 magic "GGUF" · u32 version · u64 n_tensors · u64 n_keys
//   key       n_keys times: string key · u32 type · value
//     string  u64 length · bytes
//     value   0 u8 · 1 i8 · 2 u16 · 3 i16 · 4 u32 · 5 i32 · 6 f32 · 7 bool (a byte, 0 or 1) · 8 string · 9 array
//             · 10 u64 · 11 i64 · 12 f64
//     array   u32 element type (no array) · u64 n · n values
//   tensor    n_tensors times: string name · u32 rank · rank times u64 dimension, INNERMOST first · u32 type · u64 offset
//   padding   to a multiple of general.alignment (32 if the key is absent)
//   data      tensor i at data + offset, rows of blocks, innermost dimension contiguous
// A split model is files NAME-00001-of-0000N.gguf to NAME-0000N-of-0000N.gguf in one folder. Each has the keys split.no (from 0),
// split.count and split.tensors.count (of the whole model); all other keys stand in the first.
//
// Strict where a difference could hide something: keys and names are unique, a bool is 0 or 1, no dimension is zero, offsets are
// aligned, and no two tensors share a byte. Gaps, any order of offsets, padding of any value and bytes after the end are accepted.
// Cost: one pass over the header; tensor bytes are not touched. Memory: metadata only, at most 10 times the header and 16 MiB.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "io/tensor_source.h"

namespace minillm {

/// Opens the file at `path` and, if it is one shard of a split model, all its siblings.
/// Throws Error{kNotFound, kCorruptFile, kUnsupported}.
std::unique_ptr<TensorSource> open_gguf(const std::string& path);

/// Reads a file that is in memory. Borrows `bytes`, which must be aligned to 64 bytes if the tensors' elements are to be read
/// in place. `what` names it in messages. A shard of a split model is refused: its siblings are not there.
std::unique_ptr<TensorSource> read_gguf(std::span<const std::byte> bytes, const std::string& what);

/// True if `bytes` start as a GGUF file does.
bool looks_like_gguf(std::span<const std::byte> bytes) noexcept;

}  // namespace minillm
