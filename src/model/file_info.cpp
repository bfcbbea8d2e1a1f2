// file_info.cpp - what a file holds, and the memory that running it takes.
#include "minillm/file_info.h"

#include <algorithm>
#include <sstream>

#include "backend/kv_storage.h"
#include "base/bytes.h"
#include "io/tensor_source.h"
#include "model/config_reader.h"
#include "model/model_impl.h"
#include "model/weights.h"
#include "model/workspace.h"

namespace minillm {
namespace {

constexpr size_t kLongestText = 120;
constexpr size_t kShownElements = 6;
constexpr int64_t kPanelRows = 16;  // Packed weights are stored 16 rows at a time.

/// `text` with control bytes escaped, cut at about kLongestText bytes but never inside a UTF-8 sequence.
std::string shown(const std::string& text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool starts_character = (byte & 0xC0u) != 0x80u;
    if (out.size() >= kLongestText && starts_character) return out + "... (" + std::to_string(text.size()) + " bytes)";
    if (byte == '\n')
      out += "\\n";
    else if (byte == '\t')
      out += "\\t";
    else if (byte < 0x20 || byte == 0x7F)
      (out += "\\x") += {kHex[byte >> 4], kHex[byte & 15]};
    else
      out += text[i];
  }
  return out;
}

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(const std::string& value) { return shown(value); }
template <typename Number>
requires std::is_arithmetic_v<Number> std::string text_of(Number value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

template <typename Element>
std::string text_of(const std::vector<Element>& values) {
  std::string out = "[";
  for (size_t i = 0; i < std::min(values.size(), kShownElements); ++i) (out += i == 0 ? "" : ", ") += text_of(values[i]);
  if (values.size() > kShownElements) out += ", ... (" + std::to_string(values.size()) + " elements)";
  return out + "]";
}

/// As the CPU backend holds it: matrices in panels of 16 rows, q4_k and q5_k with 4 more bytes a block; vectors in float32.
int64_t packed_bytes(const TensorInfo& tensor) {
  if (tensor.shape.size() != 2) return static_cast<int64_t>(sizeof(float)) * (tensor.shape.empty() ? 1 : tensor.shape[0]);
  const bool wider = tensor.dtype == Dtype::kQ4_K || tensor.dtype == Dtype::kQ5_K;
  const int64_t n_blocks = tensor.shape[1] / block_elements(tensor.dtype);
  return round_up(tensor.shape[0], kPanelRows) * n_blocks * (static_cast<int64_t>(block_bytes(tensor.dtype)) + (wider ? 4 : 0));
}

/// What a backend takes for a step, as the CPU does it: normalised rows, the widest product and the gated rows in float32; rows quantised
/// to two int8 terms with scales and sums; and about 128 partial results of attention for each 512 tokens of context.
int64_t backend_scratch(const ModelConfig& config, int64_t max_rows) {
  constexpr int64_t kFloat = sizeof(float);
  const int64_t hidden = config.hidden_size, ffn = config.ffn_size;
  const int64_t widest_product = std::max({config.q_size() + 2 * config.kv_size(), 2 * ffn, hidden});
  const int64_t widest_input = std::max({hidden, ffn, config.q_size()});
  return max_rows * kFloat * (hidden + widest_product + std::max(ffn, hidden)) + max_rows * (2 * widest_input + widest_input * 20 / 32) +
         ceil_div(config.context_length, 512) * 128 * config.head_dim * kFloat;
}

}  // namespace

FileInfo inspect(const std::string& path) {
  const std::unique_ptr<TensorSource> source = open_tensor_source(path);
  FileInfo info;
  info.path = path;
  info.format = source->format();
  info.config = read_config(*source);
  check_tensors(info.config, *source);
  for (const auto& [key, value] : source->metadata())
    info.metadata.emplace_back(shown(key), std::visit([](const auto& typed) { return text_of(typed); }, value));
  std::ranges::sort(info.metadata);
  for (const SourceTensor& tensor : source->tensors()) {
    const auto begin = tensor.view.shape.begin();
    info.tensors.push_back({shown(tensor.name), tensor.view.dtype, {begin, begin + tensor.view.rank}, tensor.bytes});
    info.tensor_bytes += tensor.bytes;
  }
  return info;
}

MemoryPlan plan_memory(const FileInfo& info, int64_t context, int64_t batch, Dtype kv_dtype, Device device) {
  if (context < 1 || batch < 1)
    throw Error(ErrorCode::kInvalidArgument, "plan_memory: context ", context, ", batch ", batch, ", expected at least 1 of each");
  const ModelConfig& config = info.config;
  MemoryPlan plan;
  for (const TensorInfo& tensor : info.tensors) plan.weights += packed_bytes(tensor);
  const KvShape pages{.n_layers = config.n_layers,
                      .n_kv_heads = config.n_kv_heads,
                      .head_dim = config.head_dim,
                      .page_tokens = kPageTokens,
                      .dtype = kv_dtype};
  plan.kv_cache = batch * ceil_div(context, kPageTokens) * pages.page_bytes();
  const int64_t max_rows = std::max(default_step_rows(device.kind, context), batch);
  const int64_t logit_rows = std::min(std::max<int64_t>(batch, 16), logit_rows_at_once(config, max_rows));
  plan.workspace = workspace_bytes(config, {.max_rows = max_rows, .max_logit_rows = logit_rows, .max_sequences = batch});
  plan.workspace += backend_scratch(config, max_rows);
  if (device.kind == Device::Kind::kCpu)
    plan.workspace += cpu_tile_bytes({.max_rows = max_rows,
                                      .hidden = config.hidden_size,
                                      .n_heads = config.n_heads,
                                      .head_dim = config.head_dim,
                                      .ffn = config.ffn_size});
  return plan;
}

}  // namespace minillm
