// model_flags.h - the flags that several subcommands share, and what they are turned into.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "minillm/engine.h"
#include "minillm/model.h"
#include "minillm/types.h"

namespace minillm::cli {

struct ModelFlags {
  std::string model;  ///< As given to -m; empty is the default model.
  std::string device = "cpu", dtype, kv_dtype;
  int64_t context = 0;
  int threads = 0;
  bool no_flash_attention = false;
  int64_t flash_block_size = 0;
};

/// -m/--model.
void add_model_flag(CLI::App& app, ModelFlags& flags);
/// --device --dtype --kv-dtype --ctx --threads.
void add_device_flags(CLI::App& app, ModelFlags& flags);
/// --no-flash-attention --flash-block-size.
void add_attention_flags(CLI::App& app, ModelFlags& flags);

/// -n --temperature --top-k ... --seed --stop --ignore-eos.
void add_sampling_flags(CLI::App& app, GenerationOptions& options);

LoadOptions load_options(const ModelFlags& flags);

/// Path of the model that -m names. The default model is pulled on first use, with progress; any other must be there.
std::string find_model(const ModelFlags& flags);

/// Bytes of `path`, or of standard input for "-". Throws Error{kNotFound} with the reason.
std::string read_text(const std::string& path);

/// "1,2,3" or "1 2 3". Throws UsageError naming what is no id.
std::vector<TokenId> parse_ids(const std::string& text);

/// Cores that this process may use: what --threads 0 means.
int usable_cores();

}  // namespace minillm::cli
