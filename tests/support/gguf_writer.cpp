// gguf_writer.cpp - writes the format that src/io/gguf.h describes.
#include "support/gguf_writer.h"

#include <cstdio>

#include "base/dtype.h"
#include "base/half.h"
#include "support/random.h"

namespace minillm::test {
namespace {

/// Where the 16-bit scales of a block lie, and how large its integer weights are: weight = d * q, or d * scale * q (K formats).
struct BlockScales {
  std::vector<size_t> positive;  ///< Offsets of scales that multiply.
  std::vector<size_t> offsets;   ///< Offsets of 16-bit values that are added or subtracted (m, dmin).
  double typical;                ///< Standard deviation of weight / d with uniform bits.
  double centre;                 ///< Offset / d that brings the mean of the weights to zero.
};

BlockScales block_scales(Dtype dtype) {
  switch (dtype) {
    case Dtype::kQ4_0:
      return {{0}, {}, 4.6, 0.0};
    case Dtype::kQ4_1:
      return {{0}, {2}, 4.6, -7.5};
    case Dtype::kQ5_0:
      return {{0}, {}, 9.2, 0.0};
    case Dtype::kQ5_1:
      return {{0}, {2}, 9.2, -15.5};
    case Dtype::kQ8_0:
      return {{0}, {}, 74.0, 0.0};
    case Dtype::kQ4_K:
      return {{0}, {2}, 258.0, 7.5};
    case Dtype::kQ5_K:
      return {{0}, {2}, 527.0, 15.5};
    case Dtype::kQ6_K:
      return {{208}, {}, 1370.0, 0.0};
    default:
      throw std::invalid_argument("not a block format");
  }
}

void put_half(std::string& bytes, size_t at, double value) {
  const uint16_t half = float_to_half(static_cast<float>(value));
  std::memcpy(bytes.data() + at, &half, sizeof(half));
}

template <typename T, typename F>
std::string floats(int64_t count, uint64_t seed, double spread, F narrow) {
  std::string bytes;
  bytes.reserve(static_cast<size_t>(count) * sizeof(T));
  for (const float value : randn(seed, count, spread)) {
    const T narrowed = narrow(value);
    bytes.append(reinterpret_cast<const char*>(&narrowed), sizeof(T));
  }
  return bytes;
}

}  // namespace

uint32_t gguf_tensor_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return 0;
    case Dtype::kF16:
      return 1;
    case Dtype::kQ4_0:
      return 2;
    case Dtype::kQ4_1:
      return 3;
    case Dtype::kQ5_0:
      return 6;
    case Dtype::kQ5_1:
      return 7;
    case Dtype::kQ8_0:
      return 8;
    case Dtype::kQ4_K:
      return 12;
    case Dtype::kQ5_K:
      return 13;
    case Dtype::kQ6_K:
      return 14;
    case Dtype::kI32:
      return 26;
    case Dtype::kBF16:
      return 30;
    case Dtype::kF8:
      break;  // Of caches only.
  }
  throw std::invalid_argument("no such dtype");
}

std::string tensor_bytes(Dtype dtype, int64_t n_rows, int64_t n, uint64_t seed, double spread) {
  const int64_t count = n_rows * n;
  if (dtype == Dtype::kF32) return floats<float>(count, seed, spread, [](float f) { return f; });
  if (dtype == Dtype::kF16) return floats<uint16_t>(count, seed, spread, float_to_half);
  if (dtype == Dtype::kBF16) return floats<uint16_t>(count, seed, spread, float_to_bfloat16);
  if (dtype == Dtype::kI32) return floats<int32_t>(count, seed, 100.0 * spread, [](float f) { return static_cast<int32_t>(f); });

  Random random(seed);
  const size_t block = block_bytes(dtype);
  std::string bytes(static_cast<size_t>(n_rows) * row_bytes(dtype, n), '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.bits());
  const BlockScales scales = block_scales(dtype);
  for (size_t at = 0; at < bytes.size(); at += block) {
    const double d = spread / scales.typical * (0.5 + random.uniform());
    for (const size_t offset : scales.positive) put_half(bytes, at + offset, d);
    for (const size_t offset : scales.offsets) put_half(bytes, at + offset, d * scales.centre);
  }
  return bytes;
}

GgufWriter& GgufWriter::add_bytes(const std::string& key, uint32_t type, std::string value) {
  if (key == "general.alignment" && type == gguf_type<uint32_t>()) std::memcpy(&alignment_, value.data(), sizeof(alignment_));
  keys_.push_back({key, type, std::move(value)});
  return *this;
}

GgufWriter& GgufWriter::tensor(const std::string& name, Dtype dtype, std::vector<int64_t> shape, std::string data) {
  tensors_.push_back({name, dtype, std::move(shape), std::move(data)});
  return *this;
}

GgufWriter& GgufWriter::random_tensor(const std::string& name, Dtype dtype, std::vector<int64_t> shape, uint64_t seed, double spread) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  std::string data = tensor_bytes(dtype, rows, shape.back(), seed, spread);
  return tensor(name, dtype, std::move(shape), std::move(data));
}

GgufImage GgufWriter::build(const std::vector<Key>& keys, std::span<const TensorRecord> tensors) const {
  GgufImage image;
  std::string& out = image.bytes;
  const auto field = [&](const std::string& name, const std::string& bytes) {
    image.fields.emplace(name, out.size());
    out += bytes;
  };
  const size_t alignment = alignment_ == 0 ? 32 : alignment_;  // A test may ask for zero; the file must still be laid out.
  const auto padded = [&](size_t n) { return (n + alignment - 1) / alignment * alignment; };

  field("magic", "GGUF");
  field("version", encode(version_));
  field("n_tensors", encode(uint64_t{tensors.size()}));
  field("n_keys", encode(uint64_t{keys.size()}));
  for (const Key& key : keys) {
    const std::string prefix = "key/" + key.name + "/";
    field(prefix + "length", encode(uint64_t{key.name.size()}));
    field(prefix + "name", key.name);
    field(prefix + "type", encode(key.type));
    image.fields.emplace(prefix + "value", out.size());
    if (key.type == kGgufArray) {
      image.fields.emplace(prefix + "element_type", out.size());
      image.fields.emplace(prefix + "count", out.size() + 4);
      image.fields.emplace(prefix + "elements", out.size() + 12);
    }
    out += key.value;
  }
  size_t offset = 0;
  for (const TensorRecord& tensor : tensors) {
    const std::string prefix = "tensor/" + tensor.name + "/";
    field(prefix + "length", encode(uint64_t{tensor.name.size()}));
    field(prefix + "name", tensor.name);
    field(prefix + "rank", encode(static_cast<uint32_t>(tensor.shape.size())));
    for (size_t i = 0; i < tensor.shape.size(); ++i)
      field(prefix + "dim" + std::to_string(i), encode(static_cast<uint64_t>(tensor.shape[tensor.shape.size() - 1 - i])));
    field(prefix + "type", encode(gguf_tensor_type(tensor.dtype)));
    field(prefix + "offset", encode(uint64_t{offset}));
    offset += padded(tensor.data.size());
  }
  out.resize(padded(out.size()));
  image.fields.emplace("data", out.size());
  for (const TensorRecord& tensor : tensors) {
    out.resize(padded(out.size()));
    field("tensor/" + tensor.name + "/data", tensor.data);
  }
  return image;
}

GgufImage GgufWriter::image() const { return build(keys_, tensors_); }

std::vector<GgufImage> GgufWriter::split(int n) const {
  std::vector<GgufImage> shards;
  const size_t count = static_cast<size_t>(n);
  for (size_t i = 0; i < count; ++i) {
    std::vector<Key> keys;
    if (i == 0) keys = keys_;
    keys.push_back({"split.no", gguf_type<uint16_t>(), encode(static_cast<uint16_t>(i))});
    keys.push_back({"split.count", gguf_type<uint16_t>(), encode(static_cast<uint16_t>(n))});
    keys.push_back({"split.tensors.count", gguf_type<int32_t>(), encode(static_cast<int32_t>(tensors_.size()))});
    const size_t begin = tensors_.size() * i / count, end = tensors_.size() * (i + 1) / count;
    shards.push_back(build(keys, std::span(tensors_).subspan(begin, end - begin)));
  }
  return shards;
}

std::string GgufWriter::shard_name(const std::string& stem, int index, int n) {
  char suffix[64];
  std::snprintf(suffix, sizeof(suffix), "-%05d-of-%05d.gguf", index + 1, n);
  return stem + suffix;
}

}  // namespace minillm::test
