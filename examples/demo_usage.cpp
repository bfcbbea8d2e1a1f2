// demo_usage.cpp - MiniLLM in five steps: forward, cache, generator, batch, memory. Runs in seconds, with random weights where no model
// has been pulled (minillm pull smollm2).
//   cmake --build --preset release --target demo_usage && build/release/bin/demo_usage
#include <cstdio>
#include <exception>
#include <optional>

#include <minillm/minillm.h>

using namespace minillm;

namespace {

double megabytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

/// The id of the largest of the last V logits: the model's own choice of the next token.
TokenId best_of_last(const Tensor& logits) {
  const auto values = logits.values<float>().last(static_cast<size_t>(logits.dim(-1)));
  size_t best = 0;
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i] > values[best]) best = i;
  return static_cast<TokenId>(best);
}

/// 1. Ids in, logits out: [B, S] to [B, S, V]. Flash attention and standard attention agree.
void forward(MiniLLM& model, const Tensor& input_ids) {
  std::printf("1. Forward\n");
  const Tensor flash = model.forward(input_ids);
  const Tensor standard = model.forward(input_ids, {.use_flash_attention = false});
  float largest = 0;
  for (size_t i = 0; i < flash.values<float>().size(); ++i) {
    const float difference = flash.values<float>()[i] - standard.values<float>()[i];
    largest = difference > largest ? difference : -difference > largest ? -difference : largest;
  }
  std::printf("   ids [%lld, %lld] gave logits [%lld, %lld, %lld]; flash and standard attention differ by at most %.1e\n",
              static_cast<long long>(input_ids.dim(0)), static_cast<long long>(input_ids.dim(1)), static_cast<long long>(flash.dim(0)),
              static_cast<long long>(flash.dim(1)), static_cast<long long>(flash.dim(2)), static_cast<double>(largest));
}

/// 2. A cache keeps what has been computed: each further token costs one row, not the whole sequence again.
void cache(MiniLLM& model, const Tensor& input_ids) {
  std::printf("2. Cache\n");
  KVCache kv_cache(model.config());
  Tensor logits = model.forward(input_ids, {.kv_cache = &kv_cache, .use_flash_attention = true, .flash_block_size = 128});
  std::printf("   next ids:");
  for (int i = 0; i < 8; ++i) {
    const TokenId next = best_of_last(logits);
    std::printf(" %d", next);
    logits = model.forward(Tensor::from_ids({{next}}), {.kv_cache = &kv_cache});
  }
  std::printf("\n   the cache holds %lld tokens in %.1f MiB", static_cast<long long>(kv_cache.get_seq_length()),
              megabytes(kv_cache.bytes()));
  kv_cache.crop(4);
  std::printf(", after crop(4) %lld in %.1f MiB\n", static_cast<long long>(kv_cache.get_seq_length()), megabytes(kv_cache.bytes()));
}

/// 3. The short way: sampling, end tokens and stop texts are the generator's business.
void generator(MiniLLM& model, const Tokenizer* tokenizer, const std::vector<TokenId>& prompt_ids) {
  std::printf("3. Generator\n");
  TextGenerator text_generator(model, {.use_flash_attention = true, .tokenizer = tokenizer});
  const auto ids = text_generator.generate(prompt_ids, {.max_new_tokens = 20, .temperature = 0.8f});
  if (tokenizer != nullptr)
    std::printf("   %s\n", tokenizer->decode(ids).c_str());
  else
    std::printf("   %zu ids of a model that knows nothing yet\n", ids.size());
}

/// 4. Prompts of different lengths together: the weights are read once for all of them, and each gets what it gets alone.
void batch(MiniLLM& model, const std::vector<TokenId>& prompt_ids) {
  std::printf("4. Batch\n");
  std::vector<std::vector<TokenId>> prompts;
  for (size_t n = 1; n <= prompt_ids.size() && n <= 4; ++n)
    prompts.emplace_back(prompt_ids.begin(), prompt_ids.begin() + static_cast<ptrdiff_t>(n));
  TextGenerator text_generator(model);
  const std::vector<Generation> together = text_generator.generate_batch(prompts, {.max_new_tokens = 8});
  for (size_t row = 0; row < prompts.size(); ++row) {
    const bool same = together[row].ids == text_generator.generate_batch({prompts[row]}, {.max_new_tokens = 8})[0].ids;
    std::printf("   row of %zu ids: %zu new ones, %s\n", prompts[row].size(), together[row].ids.size(), same ? "as alone" : "NOT AS ALONE");
  }
}

/// 5. What attention needs beside its inputs and output, measured.
void memory(const MiniLLM& model) {
  std::printf("5. Memory\n");
  for (const int64_t tokens : {256, 1024}) {
    const Tensor x({2, tokens, 8, 64});
    std::printf("   attention over %4lld tokens: standard %6.1f MiB, flash %.1f MiB\n", static_cast<long long>(tokens),
                megabytes(standard_attention(x, x, x, {.n_threads = 2}).peak_bytes),
                megabytes(flash_attention(x, x, x, {.n_threads = 2}).peak_bytes));
  }
  std::printf("   this model: weights %.1f MiB, workspace %.1f MiB, on %s\n", megabytes(model.memory().weights),
              megabytes(model.memory().workspace), model.device_description().c_str());
}

void run() {
  std::string path;
  try {
    path = resolve_model("smollm2");
  } catch (const Error&) {
    std::printf("No model has been pulled (minillm pull smollm2): going on with random weights.\n");
  }
  auto config = Configs::small();
  MiniLLM model = path.empty() ? MiniLLM(config) : MiniLLM::load(path);
  std::optional<Tokenizer> tokenizer;
  if (!path.empty()) tokenizer = Tokenizer::load(path);
  const std::vector<TokenId> prompt_ids = tokenizer ? tokenizer->encode("Once upon a time") : std::vector<TokenId>{11, 22, 33, 44};
  const Tensor input_ids = Tensor::from_ids({prompt_ids});

  forward(model, input_ids);
  cache(model, input_ids);
  generator(model, tokenizer ? &*tokenizer : nullptr, prompt_ids);
  batch(model, prompt_ids);
  memory(model);
}

}  // namespace

int main() {
  try {
    run();
    return 0;
  } catch (const std::exception& error) {  // Every Error says what was met, what was expected, and where.
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
