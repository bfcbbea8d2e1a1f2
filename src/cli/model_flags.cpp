// model_flags.cpp - see model_flags.h.
#include "model_flags.h"

#include <sched.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <system_error>
#include <thread>

#include "commands.h"
#include "minillm/error.h"
#include "minillm/pull.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

/// Wraps a parser that throws Error into a check of CLI11's, so that a wrong word is wrong usage (exit code 2).
template <typename Parse>
CLI::Validator checked_by(Parse parse, const std::string& name) {
  return CLI::Validator(
      [parse](const std::string& text) {
        try {
          parse(text);
          return std::string();
        } catch (const Error& error) {
          return std::string(error.what());
        }
      },
      name);
}

void check_float_dtype(const std::string& text) {
  const Dtype dtype = parse_dtype(text);
  if (dtype != Dtype::kF32 && dtype != Dtype::kF16 && dtype != Dtype::kBF16)
    throw Error(ErrorCode::kInvalidArgument, "'", text, "': expected f32, f16 or bf16");
}
void check_cache_dtype(const std::string& text) {
  const Dtype dtype = parse_dtype(text);
  if (dtype != Dtype::kF32 && dtype != Dtype::kF16 && dtype != Dtype::kBF16 && dtype != Dtype::kF8)
    throw Error(ErrorCode::kInvalidArgument, "'", text, "': expected f32, f16, bf16 or f8");
}

void check_block_size(const std::string& text) {
  int64_t n = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  const bool power = n >= 16 && n <= 1024 && (n & (n - 1)) == 0;
  if (error != std::errc() || end != text.data() + text.size() || (n != 0 && !power))
    throw Error(ErrorCode::kInvalidArgument, "'", text, "': expected 0 or a power of two from 16 to 1024");
}

}  // namespace

void add_model_flag(CLI::App& app, ModelFlags& flags) {
  app.add_option("-m,--model", flags.model, "a GGUF or safetensors file, a folder, or a pulled name (default: smollm2)");
}

void add_device_flags(CLI::App& app, ModelFlags& flags) {
  app.add_option("--device", flags.device, "cpu, reference (slow and exact), or cuda[:N]")
      ->check(checked_by([](const std::string& text) { parse_device(text); }, "DEVICE"))
      ->capture_default_str();
  app.add_option("--dtype", flags.dtype, "store weights as f32, f16 or bf16 (default: as the file has them)")
      ->check(checked_by(check_float_dtype, "DTYPE"));
  app.add_option("--kv-dtype", flags.kv_dtype, "store keys and values as f32, f16, bf16 or f8, E4M3 (default: f16)")
      ->check(checked_by(check_cache_dtype, "DTYPE"));
  app.add_option("--ctx", flags.context, "longest text in tokens (default: what the model was made for)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  app.add_option("--threads", flags.threads, "compute threads (default: every core this process may use)")->check(CLI::Range(1, 4096));
}

void add_attention_flags(CLI::App& app, ModelFlags& flags) {
  app.add_flag("--no-flash-attention", flags.no_flash_attention, "standard attention, which stores the whole score matrix");
  app.add_option("--flash-block-size", flags.flash_block_size, "key tile in tokens, a power of two from 16 to 1024 (default: chosen)")
      ->check(checked_by(check_block_size, "N"));
}

void add_sampling_flags(CLI::App& app, GenerationOptions& options) {
  app.add_option("-n,--max-new-tokens", options.max_new_tokens, "most tokens to generate")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->capture_default_str();
  app.add_option("--temperature", options.temperature, "0 always takes the most likely token; higher is more varied")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  app.add_option("--top-k", options.top_k, "sample from the K most likely; 0 is off")->check(CLI::Range(int64_t{0}, int64_t{1} << 31));
  app.add_option("--top-p", options.top_p, "sample from the smallest set of this probability")->check(CLI::Range(1e-6, 1.0));
  app.add_option("--min-p", options.min_p, "leave out what is less likely than this share of the most likely")
      ->check(CLI::Range(0.0, 0.999999));
  app.add_option("--repetition-penalty", options.repetition_penalty, "above 1 makes seen tokens less likely")->check(CLI::Range(1e-3, 1e3));
  app.add_option("--presence-penalty", options.presence_penalty, "subtracted once from generated tokens")->check(CLI::Range(-2.0, 2.0));
  app.add_option("--frequency-penalty", options.frequency_penalty, "subtracted each time a token was generated")
      ->check(CLI::Range(-2.0, 2.0));
  app.add_option("--seed", options.seed, "same seed, same text")->capture_default_str();
  app.add_option("--stop", options.stop, "end before this text; may be given several times")->allow_extra_args(false);
  app.add_flag("--ignore-eos", options.ignore_eos, "do not end where the model would");
}

LoadOptions load_options(const ModelFlags& flags) {
  LoadOptions options;
  options.device = parse_device(flags.device);
  options.n_threads = flags.threads;
  if (!flags.dtype.empty()) options.dtype = parse_dtype(flags.dtype);
  if (!flags.kv_dtype.empty()) options.kv_dtype = parse_dtype(flags.kv_dtype);
  options.context_length = flags.context;
  options.flash_block_size = flags.flash_block_size;
  return options;
}

std::string find_model(const ModelFlags& flags) {
  if (!flags.model.empty()) return resolve_model(flags.model);
  try {
    return resolve_model("");
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
  }
  Progress progress;
  return pull(kDefaultModel, [&](const std::string& what, uint64_t done, uint64_t total) { return progress(what, done, total); });
}

std::string read_text(const std::string& path) {
  const auto fail = [&] { return Error(ErrorCode::kNotFound, path, ": cannot read: ", std::generic_category().message(errno)); };
  const bool standard_input = path == "-";
  std::FILE* file = standard_input ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) throw fail();
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> owner(standard_input ? nullptr : file, std::fclose);
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), file)) > 0;) text.append(buffer.data(), n);
  if (std::ferror(file) != 0) throw fail();  // A folder, for example: it opens, but cannot be read.
  return text;
}

std::vector<TokenId> parse_ids(const std::string& text) {
  std::vector<TokenId> ids;
  for (size_t at = 0; (at = text.find_first_not_of(", \t\n", at)) != std::string::npos;) {
    const size_t end = std::min(text.find_first_of(", \t\n", at), text.size());
    TokenId id = 0;
    const auto [rest, error] = std::from_chars(text.data() + at, text.data() + end, id);
    if (error != std::errc() || rest != text.data() + end)
      throw UsageError("'" + text.substr(at, end - at) + "' is no token id; expected numbers as in 1,2,3");
    ids.push_back(id);
    at = end;
  }
  return ids;
}

int usable_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof(cores), &cores) == 0) return CPU_COUNT(&cores);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace minillm::cli
