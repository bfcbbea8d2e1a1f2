// gguf_file.cpp - parses one GGUF file (format in gguf.h). Each length, count and offset is compared with what is left of the
// file before anything is reserved or read for it.
#include "io/gguf_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "base/bytes.h"
#include "base/dtype.h"
#include "io/byte_reader.h"
#include "io/gguf.h"
#include "io/gguf_types.h"
#include "io/limits.h"
#include "io/printable.h"

namespace minillm {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kSmallestKey = 8 + 1 + 4 + 1;             // Length, one byte of key, type, a value of one byte.
constexpr uint64_t kSmallestTensor = 8 + 1 + 4 + 8 + 4 + 8;  // Length, one byte of name, rank, a dimension, type, offset.

enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64, kEnd };
constexpr std::array<std::string_view, kEnd> kTypeNames{"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                        "bool", "string", "array", "u64", "i64", "f64"};
/// The fewest bytes that an element of an array takes; 0 for an array, which may not be an element.
constexpr std::array<uint64_t, kEnd> kSmallestElement{1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};

/// How far [offset, offset + bytes) reaches past `end`, for a message; saturates.
uint64_t missing_bytes(uint64_t offset, uint64_t bytes, uint64_t end) noexcept {
  return checked_add(offset, bytes).value_or(UINT64_MAX) - end;
}

template <typename... Parts>
[[noreturn]] void corrupt(const ByteReader& in, const Parts&... parts) {
  throw Error(ErrorCode::kCorruptFile, in.what(), ": ", parts...);
}

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, std::string_view what) : in_(bytes, what), bytes_(bytes) {}

  GgufFile parse() {
    read_header();
    for (uint64_t i = 0; i < n_keys_; ++i) read_pair(i);
    offsets_.reserve(n_tensors_);
    file_.tensors.reserve(n_tensors_);
    for (uint64_t i = 0; i < n_tensors_; ++i) read_tensor(i);
    place_tensors();
    return std::move(file_);
  }

 private:
  void read_header();
  void read_pair(uint64_t index);
  MetadataValue read_scalar(uint32_t type, const std::string& field);
  MetadataValue read_array(const std::string& field);
  std::string read_string(const std::string& field);
  bool read_bool(const std::string& field);
  void read_tensor(uint64_t index);
  Dtype read_tensor_type(const std::string& field);
  void place_tensors();
  void check_overlaps(uint64_t data_start) const;

  template <typename T>
  MetadataValue numbers(uint64_t n, const std::string& field) {
    using Wide = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;
    std::vector<Wide> values;
    values.reserve(n);
    for (uint64_t i = 0; i < n; ++i) {
      const T value = in_.read<T>(field);
      if constexpr (std::is_same_v<T, uint64_t>)
        if (value > INT64_MAX)
          throw Error(ErrorCode::kUnsupported, in_.what(), ": ", field, ": element ", i, " is ", value, ", above the signed 64-bit range");
      values.push_back(static_cast<Wide>(value));
    }
    return values;
  }

  ByteReader in_;
  std::span<const std::byte> bytes_;
  GgufFile file_;
  uint64_t n_tensors_ = 0, n_keys_ = 0, n_elements_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<uint64_t> offsets_;  ///< Of each tensor, from the start of the data.
};

void Parser::read_header() {
  const std::string_view magic = in_.text(kMagic.size(), "magic");
  if (magic != kMagic) corrupt(in_, "magic: met ", printable(magic), ", expected 'GGUF'");
  file_.version = in_.read<uint32_t>("version");
  if (file_.version == 0x0200'0000 || file_.version == 0x0300'0000)
    throw Error(ErrorCode::kUnsupported, in_.what(), ": a big-endian GGUF file (version bytes swapped); only little endian is read");
  if (file_.version != 2 && file_.version != 3)
    throw Error(ErrorCode::kUnsupported, in_.what(), ": GGUF version ", file_.version, ", expected 2 or 3");
  n_tensors_ = in_.read<uint64_t>("tensor count");
  n_keys_ = in_.read<uint64_t>("key count");
  if (n_keys_ > limits::kMetadataKeys) corrupt(in_, "key count: met ", n_keys_, ", the limit is ", limits::kMetadataKeys);
  if (n_tensors_ > limits::kTensors) corrupt(in_, "tensor count: met ", n_tensors_, ", the limit is ", limits::kTensors);
  if (n_keys_ * kSmallestKey + n_tensors_ * kSmallestTensor > in_.left())  // Both are below the limits: no overflow.
    corrupt(in_, n_keys_, " keys and ", n_tensors_, " tensors do not fit into the ", in_.left(), " bytes left");
}

std::string Parser::read_string(const std::string& field) {
  const auto length = in_.read<uint64_t>(field);
  return std::string(in_.text(length, field));
}

bool Parser::read_bool(const std::string& field) {
  const auto byte = in_.read<uint8_t>(field);
  if (byte > 1) corrupt(in_, field, ": a bool of ", static_cast<int>(byte), ", expected 0 or 1");
  return byte == 1;
}

void Parser::read_pair(uint64_t index) {
  const std::string where = "key " + std::to_string(index);
  const auto length = in_.read<uint64_t>(where);
  if (length == 0 || length > limits::kKeyBytes) corrupt(in_, where, ": a name of ", length, " bytes, expected 1 to ", limits::kKeyBytes);
  std::string key(in_.text(length, where));
  const std::string field = "key " + printable(key);
  if (key.find('\0') != std::string::npos) corrupt(in_, field, ": holds a zero byte");
  const auto type = in_.read<uint32_t>(field);
  if (type >= kEnd) corrupt(in_, field, ": value type ", type, ", expected 0 to ", kEnd - 1);
  MetadataValue value = type == kArray ? read_array(field) : read_scalar(type, field);
  if (key == "general.alignment") {
    if (type != kU32) corrupt(in_, field, ": of type ", kTypeNames[type], ", expected u32");
    alignment_ = static_cast<uint64_t>(std::get<int64_t>(value));
    if (!std::has_single_bit(alignment_) || alignment_ < 8 || alignment_ > 65536)
      corrupt(in_, field, ": met ", alignment_, ", expected a power of two from 8 to 65536");
  }
  if (!file_.metadata.emplace(std::move(key), std::move(value)).second) corrupt(in_, field, ": occurs twice");
}

MetadataValue Parser::read_scalar(uint32_t type, const std::string& field) {
  switch (type) {
    case kU8:
      return int64_t{in_.read<uint8_t>(field)};
    case kI8:
      return int64_t{in_.read<int8_t>(field)};
    case kU16:
      return int64_t{in_.read<uint16_t>(field)};
    case kI16:
      return int64_t{in_.read<int16_t>(field)};
    case kU32:
      return int64_t{in_.read<uint32_t>(field)};
    case kI32:
      return int64_t{in_.read<int32_t>(field)};
    case kI64:
      return in_.read<int64_t>(field);
    case kF32:
      return double{in_.read<float>(field)};
    case kF64:
      return in_.read<double>(field);
    case kBool:
      return read_bool(field);
    case kString:
      return read_string(field);
    case kU64: {
      const auto value = in_.read<uint64_t>(field);
      if (value <= INT64_MAX) return static_cast<int64_t>(value);
      return value;
    }
    default:
      break;
  }
  corrupt(in_, field, ": value type ", type, " is no scalar");
}

MetadataValue Parser::read_array(const std::string& field) {
  const auto type = in_.read<uint32_t>(field);
  if (type >= kEnd || type == kArray)
    corrupt(in_, field, ": an array of type ", type, ", expected 0 to ", kEnd - 1, " but ", kArray, " (array)");
  const auto n = in_.read<uint64_t>(field);
  if (n > in_.left() / kSmallestElement[type])
    corrupt(in_, field, ": an array of ", n, " ", kTypeNames[type], " does not fit into the ", in_.left(), " bytes left");
  if (n > limits::kArrayElements - n_elements_)
    corrupt(in_, field, ": an array of ", n, " elements brings the file's arrays above the limit of ", limits::kArrayElements);
  n_elements_ += n;
  switch (type) {
    case kU8:
      return numbers<uint8_t>(n, field);
    case kI8:
      return numbers<int8_t>(n, field);
    case kU16:
      return numbers<uint16_t>(n, field);
    case kI16:
      return numbers<int16_t>(n, field);
    case kU32:
      return numbers<uint32_t>(n, field);
    case kI32:
      return numbers<int32_t>(n, field);
    case kU64:
      return numbers<uint64_t>(n, field);
    case kI64:
      return numbers<int64_t>(n, field);
    case kF32:
      return numbers<float>(n, field);
    case kF64:
      return numbers<double>(n, field);
    case kBool: {
      std::vector<int64_t> values(n);
      for (int64_t& value : values) value = read_bool(field) ? 1 : 0;
      return values;
    }
    default:
      break;
  }
  std::vector<std::string> values;
  values.reserve(n);
  for (uint64_t i = 0; i < n; ++i) values.push_back(read_string(field));
  return values;
}

Dtype Parser::read_tensor_type(const std::string& field) {
  const auto id = in_.read<uint32_t>(field);
  const auto* const known = std::ranges::find(kGgufTensorTypes, id, &GgufTensorType::id);
  if (known == kGgufTensorTypes.end())
    throw Error(ErrorCode::kUnsupported, in_.what(), ": ", field, ": tensor type ", static_cast<int32_t>(id), " is not known");
  if (!known->dtype)
    throw Error(ErrorCode::kUnsupported, in_.what(), ": ", field, ": tensor type ", id, " (", known->name,
                ") is not supported; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K and I32 are");
  return *known->dtype;
}

void Parser::read_tensor(uint64_t index) {
  const std::string where = "tensor " + std::to_string(index);
  const auto length = in_.read<uint64_t>(where);
  if (length == 0 || length > limits::kTensorNameBytes)
    corrupt(in_, where, ": a name of ", length, " bytes, expected 1 to ", limits::kTensorNameBytes);
  SourceTensor tensor;
  tensor.name = in_.text(length, where);
  const std::string field = "tensor " + printable(tensor.name);
  if (tensor.name.find('\0') != std::string::npos) corrupt(in_, field, ": the name holds a zero byte");

  const auto rank = in_.read<uint32_t>(field);
  if (rank < 1 || rank > limits::kRank) corrupt(in_, field, ": ", rank, " dimensions, expected 1 to ", limits::kRank);
  std::array<uint64_t, limits::kRank> dims{};  // Innermost first, as in the file.
  uint64_t n_elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    dims[i] = in_.read<uint64_t>(field);
    const auto product = checked_mul(n_elements, dims[i]);
    if (dims[i] == 0) corrupt(in_, field, ": dimension ", i, " is zero");
    if (!product) corrupt(in_, field, ": dimension ", i, " of ", dims[i], " makes more than 2^64 elements");
    n_elements = *product;
  }
  tensor.view.dtype = read_tensor_type(field);
  const auto block = static_cast<uint64_t>(block_elements(tensor.view.dtype));
  if (dims[0] % block != 0)
    corrupt(in_, field, ": rows of ", dims[0], " elements in ", name_of(tensor.view.dtype), ", expected a multiple of ", block);
  const auto bytes = checked_mul(n_elements / block, block_bytes(tensor.view.dtype));
  if (!bytes) corrupt(in_, field, ": ", n_elements, " elements are more than 2^64 bytes");
  tensor.bytes = *bytes;
  tensor.view.rank = static_cast<int>(rank);
  for (uint32_t i = 0; i < rank; ++i) tensor.view.shape[i] = static_cast<int64_t>(dims[rank - 1 - i]);

  offsets_.push_back(in_.read<uint64_t>(field));
  file_.tensors.push_back(std::move(tensor));
}

void Parser::place_tensors() {
  if (file_.tensors.empty()) return;  // A file of metadata only may end without padding.
  const uint64_t padding = (alignment_ - in_.at() % alignment_) % alignment_;
  in_.take(padding, "padding before the tensors");
  const uint64_t data_start = in_.at(), data_bytes = in_.left();
  for (size_t i = 0; i < offsets_.size(); ++i) {
    SourceTensor& tensor = file_.tensors[i];
    const uint64_t offset = offsets_[i];
    if (offset % alignment_ != 0) corrupt(in_, "tensor ", printable(tensor.name), ": offset ", offset, " is no multiple of ", alignment_);
    if (offset > data_bytes || tensor.bytes > data_bytes - offset)
      corrupt(in_, "tensor ", printable(tensor.name), ": ", tensor.bytes, " bytes at offset ", offset, " of the data, which ends at ",
              data_bytes, " (", missing_bytes(offset, tensor.bytes, data_bytes), " bytes are missing: was the file cut short?)");
    tensor.view.data = bytes_.subspan(data_start + offset, tensor.bytes).data();
  }
  check_overlaps(data_start);
}

void Parser::check_overlaps(uint64_t data_start) const {
  std::vector<size_t> order(offsets_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, {}, [&](size_t i) { return offsets_[i]; });
  for (size_t i = 1; i < order.size(); ++i) {
    const size_t before = order[i - 1], after = order[i];
    if (offsets_[before] + file_.tensors[before].bytes > offsets_[after])  // Both are inside the file: no overflow.
      corrupt(in_, "tensors ", printable(file_.tensors[before].name), " and ", printable(file_.tensors[after].name),
              " share the byte at offset ", data_start + offsets_[after]);
  }
}

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, std::string_view what) { return Parser(bytes, what).parse(); }

bool looks_like_gguf(std::span<const std::byte> bytes) noexcept {
  return bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

}  // namespace minillm
