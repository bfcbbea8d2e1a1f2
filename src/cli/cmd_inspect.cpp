// cmd_inspect.cpp - `minillm inspect FILE`: metadata, tensors, sizes, quantisation, and the memory that running needs.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "commands.h"
#include "json_text.h"
#include "minillm/file_info.h"
#include "model_flags.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct InspectFlags {
  ModelFlags model;
  std::string kv_dtype;
  int64_t batch = 1;
  bool json = false;
};

struct DtypeShare {
  int64_t n_tensors = 0;
  uint64_t bytes = 0;
};

std::map<std::string, DtypeShare> by_dtype(const FileInfo& info) {
  std::map<std::string, DtypeShare> shares;
  for (const TensorInfo& tensor : info.tensors) {
    DtypeShare& share = shares[std::string(name_of(tensor.dtype))];
    share.n_tensors += 1;
    share.bytes += tensor.bytes;
  }
  return shares;
}

Json to_json(const FileInfo& info, const MemoryPlan& plan, int64_t context) {
  const ModelConfig& c = info.config;
  Json json{{"path", info.path}, {"format", info.format}, {"architecture", c.architecture}, {"name", c.name}};
  json["config"] = {
      {"n_layers", c.n_layers}, {"hidden_size", c.hidden_size}, {"n_heads", c.n_heads},       {"n_kv_heads", c.n_kv_heads},
      {"head_dim", c.head_dim}, {"ffn_size", c.ffn_size},       {"vocab_size", c.vocab_size}, {"context_length", c.context_length}};
  json["parameters"] = c.n_parameters();
  json["tensor_bytes"] = info.tensor_bytes;
  json["quantisation"] = Json::object();
  for (const auto& [dtype, share] : by_dtype(info)) json["quantisation"][dtype] = {{"tensors", share.n_tensors}, {"bytes", share.bytes}};
  json["memory"] = {
      {"context", context}, {"weights", plan.weights}, {"kv_cache", plan.kv_cache}, {"workspace", plan.workspace}, {"total", plan.total()}};
  json["metadata"] = Json::object();
  for (const auto& [key, value] : info.metadata) json["metadata"][key] = value;
  json["tensors"] = Json::array();
  for (const TensorInfo& tensor : info.tensors)
    json["tensors"].push_back({{"name", tensor.name}, {"dtype", name_of(tensor.dtype)}, {"shape", tensor.shape}, {"bytes", tensor.bytes}});
  return json;
}

template <typename... Values>
void print_line(const char* format, Values... values) {
  const int n = std::snprintf(nullptr, 0, format, values...);
  std::string line(static_cast<size_t>(std::max(n, 0)) + 1, '\0');
  std::snprintf(line.data(), line.size(), format, values...);
  line.back() = '\n';
  print(line);
}

std::string size_of(int64_t bytes) { return readable_size(static_cast<uint64_t>(std::max<int64_t>(bytes, 0))); }

void print_table(const FileInfo& info, const MemoryPlan& plan, int64_t context, int64_t batch) {
  const ModelConfig& c = info.config;
  print_line("%s", info.path.c_str());
  print_line("%s, %s, %s, %.1f million parameters", info.format.c_str(), c.architecture.c_str(),
             c.name.empty() ? "no name" : c.name.c_str(), static_cast<double>(c.n_parameters()) / 1e6);
  print_line(
      "\nshape     %lld layers, hidden %lld, %lld query and %lld key/value heads of %lld, feed-forward %lld, vocabulary %lld, context %lld",
      static_cast<long long>(c.n_layers), static_cast<long long>(c.hidden_size), static_cast<long long>(c.n_heads),
      static_cast<long long>(c.n_kv_heads), static_cast<long long>(c.head_dim), static_cast<long long>(c.ffn_size),
      static_cast<long long>(c.vocab_size), static_cast<long long>(c.context_length));
  for (const auto& [dtype, share] : by_dtype(info))
    print_line("weights   %-6s %4lld tensors  %s", dtype.c_str(), static_cast<long long>(share.n_tensors),
               readable_size(share.bytes).c_str());
  print_line("memory    %s: weights %s, cache for %lld x %lld tokens %s, scratch %s", size_of(plan.total()).c_str(),
             size_of(plan.weights).c_str(), static_cast<long long>(batch), static_cast<long long>(context), size_of(plan.kv_cache).c_str(),
             size_of(plan.workspace).c_str());
  print("\nmetadata\n");
  for (const auto& [key, value] : info.metadata) print_line("  %-48s %s", key.c_str(), value.c_str());
  print("\ntensors\n");
  for (const TensorInfo& tensor : info.tensors) {
    std::string shape;
    for (const int64_t n : tensor.shape) shape += (shape.empty() ? "" : " x ") + std::to_string(n);
    print_line("  %-40s %-5s %-18s %s", tensor.name.c_str(), std::string(name_of(tensor.dtype)).c_str(), shape.c_str(),
               readable_size(tensor.bytes).c_str());
  }
}

int run_inspect(const InspectFlags& flags) {
  const FileInfo info = inspect(find_model(flags.model));
  const int64_t context = flags.model.context > 0 ? flags.model.context : info.config.context_length;
  const Dtype kv_dtype = flags.kv_dtype.empty() ? info.config.kv_dtype : parse_dtype(flags.kv_dtype);
  const MemoryPlan plan = plan_memory(info, context, flags.batch, kv_dtype, parse_device(flags.model.device));
  if (flags.json)
    print(json_line(to_json(info, plan, context)));
  else
    print_table(info, plan, context, flags.batch);
  return kExitDone;
}

}  // namespace

Run add_inspect(CLI::App& app) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::Option* file =
      app.add_option("FILE", flags->model.model, "a GGUF or safetensors file, a folder, or a pulled name (default: smollm2)");
  app.add_option("-m,--model", flags->model.model, "the same")->excludes(file);
  app.add_option("--ctx", flags->model.context, "tokens to plan the cache for (default: the model's context)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  app.add_option("--batch", flags->batch, "sequences to plan the cache for")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--device", flags->model.device, "device to plan for: cpu, reference or cuda[:N]")->capture_default_str();
  app.add_option("--kv-dtype", flags->kv_dtype, "element type of the cache: f32, f16, bf16 or f8")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}));
  app.add_flag("--json", flags->json, "print one JSON object");
  return [flags] { return run_inspect(*flags); };
}

}  // namespace minillm::cli
