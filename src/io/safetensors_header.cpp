// safetensors_header.cpp - reads the header as a stream of JSON events, not as a document: duplicate keys are seen, and memory is
// taken only for what the table may hold.
#include "io/safetensors_header.h"

#include <nlohmann/json.hpp>
#include <string_view>
#include <unordered_set>

#include "io/printable.h"
#include "minillm/error.h"

namespace minillm {
namespace {

std::optional<Dtype> dtype_of(std::string_view name) noexcept {
  if (name == "F32") return Dtype::kF32;
  if (name == "F16") return Dtype::kF16;
  if (name == "BF16") return Dtype::kBF16;
  if (name == "I32") return Dtype::kI32;
  return std::nullopt;
}

/// Receives the header's JSON and fills `entries`. A state says what may come next; anything else is an Error.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(std::string_view what) : what_(what) {}
  std::vector<SafetensorsEntry> entries;

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool binary(binary_t&) override { unexpected("binary"); }
  bool number_integer(int64_t value) override {  // Called for what has a minus sign, also -0.
    if (state_ == State::kShapeElement || state_ == State::kOffsetElement) corrupt("met a negative number (", value, ")");
    unexpected("a number");
  }
  bool number_float(double, const std::string& text) override {  // Also whole numbers above 2^64 - 1.
    if (state_ == State::kShapeElement || state_ == State::kOffsetElement)
      corrupt("met ", printable(text), ", expected an integer below 2^64");
    unexpected("a number");
  }
  bool number_unsigned(uint64_t value) override;
  bool string(std::string& text) override;
  bool start_object(size_t) override;
  bool key(std::string& text) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    throw Error(ErrorCode::kCorruptFile, what_, ": header: not JSON at byte ", position, ": ", printable(error.what()));
  }

 private:
  enum class State : uint8_t {
    kStart,          ///< The outer object.
    kName,           ///< A tensor's name, __metadata__, or the end.
    kMetadata,       ///< The metadata's object.
    kMetadataKey,    ///< One of its keys, or its end.
    kMetadataValue,  ///< The text of that key.
    kTensor,         ///< A tensor's object.
    kField,          ///< One of its fields, or its end.
    kDtype,          ///< The text of dtype.
    kShape,          ///< The array of shape.
    kShapeElement,   ///< A dimension, or the array's end.
    kOffsets,        ///< The array of data_offsets.
    kOffsetElement,  ///< An offset, or the array's end.
    kEnd,
  };

  static std::string_view expected(State state) {
    constexpr std::array<std::string_view, 13> kExpected{"an object",
                                                         "a tensor's name",
                                                         "an object for __metadata__",
                                                         "a key of __metadata__",
                                                         "text as metadata",
                                                         "an object with dtype, shape and data_offsets",
                                                         "dtype, shape or data_offsets",
                                                         "text as dtype",
                                                         "an array as shape",
                                                         "a dimension",
                                                         "an array as data_offsets",
                                                         "an offset",
                                                         "the end"};
    return kExpected[static_cast<size_t>(state)];
  }
  template <typename... Parts>
  [[noreturn]] void corrupt(const Parts&... parts) const {
    const bool in_tensor = state_ >= State::kTensor && state_ <= State::kOffsetElement;
    throw Error(ErrorCode::kCorruptFile, what_, in_tensor ? ": tensor " + printable(entries.back().name) + ": " : ": header: ", parts...);
  }
  [[noreturn]] void unexpected(std::string_view met) const { corrupt("met ", met, ", expected ", expected(state_)); }
  void once(bool& seen, std::string_view field) const {
    if (seen) corrupt(field, " occurs twice");
    seen = true;
  }

  std::string what_;
  State state_ = State::kStart;
  std::unordered_set<std::string> names_, metadata_keys_;
  bool seen_metadata_ = false, seen_dtype_ = false;
};

bool HeaderReader::number_unsigned(uint64_t value) {
  if (state_ == State::kShapeElement) {
    SafetensorsEntry& entry = entries.back();
    if (entry.rank == limits::kRank)
      throw Error(ErrorCode::kUnsupported, what_, ": tensor ", printable(entry.name), ": more than ", limits::kRank, " dimensions");
    entry.shape[static_cast<size_t>(entry.rank++)] = value;
    return true;
  }
  if (state_ == State::kOffsetElement) {
    SafetensorsEntry& entry = entries.back();
    if (entry.n_offsets == 2) corrupt("data_offsets has more than 2 elements");
    entry.offsets[static_cast<size_t>(entry.n_offsets++)] = value;
    return true;
  }
  unexpected("a number");
}

bool HeaderReader::string(std::string& text) {
  if (state_ == State::kMetadataValue) {
    state_ = State::kMetadataKey;
    return true;
  }
  if (state_ == State::kDtype) {
    entries.back().dtype = dtype_of(text);
    if (!entries.back().dtype)
      throw Error(ErrorCode::kUnsupported, what_, ": tensor ", printable(entries.back().name), ": dtype ", printable(text),
                  ", expected F32, F16, BF16 or I32");
    state_ = State::kField;
    return true;
  }
  unexpected("text");
}

bool HeaderReader::start_object(size_t) {
  switch (state_) {
    case State::kStart:
      state_ = State::kName;
      return true;
    case State::kMetadata:
      state_ = State::kMetadataKey;
      return true;
    case State::kTensor:
      state_ = State::kField;
      return true;
    default:
      unexpected("an object");
  }
}

bool HeaderReader::key(std::string& text) {
  if (state_ == State::kName) {
    if (text == "__metadata__") {
      once(seen_metadata_, "__metadata__");
      state_ = State::kMetadata;
      return true;
    }
    if (!names_.insert(text).second) corrupt("tensor ", printable(text), " occurs twice");
    if (entries.size() == limits::kTensors) corrupt("more than ", limits::kTensors, " tensors");
    entries.emplace_back().name = text;
    seen_dtype_ = false;
    state_ = State::kTensor;
    return true;
  }
  if (state_ == State::kMetadataKey) {
    if (!metadata_keys_.insert(text).second) corrupt("key ", printable(text), " of __metadata__ occurs twice");
    if (metadata_keys_.size() > limits::kSafetensorsMetadata) corrupt("more than ", limits::kSafetensorsMetadata, " keys in __metadata__");
    state_ = State::kMetadataValue;
    return true;
  }
  SafetensorsEntry& entry = entries.back();  // The parser gives keys inside objects only, so this is a tensor's.
  if (text == "dtype") {
    once(seen_dtype_, "dtype");
    state_ = State::kDtype;
  } else if (text == "shape") {
    once(entry.has_shape, "shape");
    state_ = State::kShape;
  } else if (text == "data_offsets") {
    once(entry.has_offsets, "data_offsets");
    state_ = State::kOffsets;
  } else {
    corrupt("field ", printable(text), ", expected dtype, shape or data_offsets");
  }
  return true;
}

bool HeaderReader::end_object() {
  if (state_ == State::kField) {
    const SafetensorsEntry& entry = entries.back();
    if (!entry.dtype || !entry.has_shape || !entry.has_offsets)
      corrupt(!entry.dtype ? "dtype" : !entry.has_shape ? "shape" : "data_offsets", " is missing");
    if (entry.n_offsets != 2) corrupt("data_offsets has ", entry.n_offsets, " elements, expected 2");
    state_ = State::kName;
  } else {
    state_ = state_ == State::kMetadataKey ? State::kName : State::kEnd;
  }
  return true;
}

bool HeaderReader::start_array(size_t) {
  if (state_ == State::kShape)
    state_ = State::kShapeElement;
  else if (state_ == State::kOffsets)
    state_ = State::kOffsetElement;
  else
    unexpected("an array");
  return true;
}

bool HeaderReader::end_array() {
  state_ = State::kField;
  return true;
}

/// The header's bytes, checked up to being JSON.
std::string_view header_of(ByteReader& in) {
  const auto length = in.read<uint64_t>("header length");
  if (length > limits::kSafetensorsHeaderBytes)
    throw Error(ErrorCode::kCorruptFile, in.what(), ": a header of ", length, " bytes, the limit is ", limits::kSafetensorsHeaderBytes);
  std::string_view header = in.text(length, "header");
  if (!header.starts_with('{')) throw Error(ErrorCode::kCorruptFile, in.what(), ": header: expected '{' as its first byte");
  header = header.substr(0, header.find_last_not_of(' ') + 1);
  if (!header.ends_with('}'))
    throw Error(ErrorCode::kCorruptFile, in.what(), ": header: ends in ", printable(header.substr(header.size() - 1)),
                ", expected '}' and spaces");
  if (const size_t zero = header.find('\0'); zero != std::string_view::npos)  // The JSON parser would stop there, content.
    throw Error(ErrorCode::kCorruptFile, in.what(), ": header: a zero byte at ", zero);
  return header;
}

}  // namespace

std::vector<SafetensorsEntry> read_safetensors_header(ByteReader& in) {
  const std::string_view header = header_of(in);
  HeaderReader reader(in.what());
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  return std::move(reader.entries);
}

}  // namespace minillm
