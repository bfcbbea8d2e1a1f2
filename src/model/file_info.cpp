// file_info.cpp - what a file holds, and the memory that running it takes.
#include "minillm/file_info.h"

#include <algorithm>
#include <sstream>

#include "backend/footprint.h"
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

/// Vectors are held in float32.
int64_t packed_bytes(Device::Kind kind, const TensorInfo& tensor) {
  if (tensor.shape.size() != 2) return static_cast<int64_t>(sizeof(float)) * (tensor.shape.empty() ? 1 : tensor.shape[0]);
  return weight_footprint(kind, tensor.dtype, tensor.shape[0], tensor.shape[1]);
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
  for (const TensorInfo& tensor : info.tensors) plan.weights += packed_bytes(device.kind, tensor);
  const KvShape pages{.n_layers = config.n_layers,
                      .n_kv_heads = config.n_kv_heads,
                      .head_dim = config.head_dim,
                      .page_tokens = kPageTokens,
                      .max_pages = batch * ceil_div(context, kPageTokens),
                      .dtype = kv_dtype};
  plan.kv_cache = pages.max_pages * pages.page_bytes();
  const int64_t max_rows = std::max(default_step_rows(device.kind, context), batch);
  const int64_t logit_rows = std::min(std::max<int64_t>(batch, 16), logit_rows_at_once(config, max_rows));
  const WorkspaceShape shape{.max_rows = max_rows,
                             .max_logit_rows = logit_rows,
                             .hidden = config.hidden_size,
                             .n_heads = config.n_heads,
                             .n_kv_heads = config.n_kv_heads,
                             .head_dim = config.head_dim,
                             .ffn = config.ffn_size,
                             .vocab = config.vocab_size,
                             .max_context = config.context_length,
                             .max_sequences = batch};
  const bool has_quantised = std::ranges::any_of(info.tensors, [](const TensorInfo& tensor) { return is_quantised(tensor.dtype); });
  plan.workspace = workspace_bytes(config, {.max_rows = max_rows, .max_logit_rows = logit_rows, .max_sequences = batch}) +
                   step_footprint(device.kind, shape, has_quantised, pages);
  if (device.kind == Device::Kind::kCpu) plan.workspace += cpu_tile_bytes(shape);
  return plan;
}

}  // namespace minillm
