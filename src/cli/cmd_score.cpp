// cmd_score.cpp - `minillm score -f FILE`: how likely the model finds a text, token by token.
// A text longer than the context is scored in windows that overlap by half: every token but the first is scored once, with at
// least half a context before it. Logits come in slices of rows, so memory does not grow with the text.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>

#include "commands.h"
#include "json_text.h"
#include "minillm/error.h"
#include "minillm/tokenizer.h"
#include "model_flags.h"
#include "npy.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct ScoreFlags {
  ModelFlags model;
  std::string file, ids, logits;
  int64_t top_logprobs = 0;
  bool json = false;
};

struct Scored {
  double logprob = 0;
  std::vector<std::pair<TokenId, double>> top;  ///< The most likely tokens at this place, best first.
};

/// log(sum(exp(row))), in double: V terms of very different size.
double log_sum_exp(std::span<const float> row) {
  const float max = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(static_cast<double>(x) - static_cast<double>(max));
  return static_cast<double>(max) + std::log(sum);
}

Scored score_row(std::span<const float> row, TokenId next, int64_t n_top) {
  const double lse = log_sum_exp(row);
  Scored scored{.logprob = static_cast<double>(row[static_cast<size_t>(next)]) - lse, .top = {}};
  if (n_top == 0) return scored;
  std::vector<TokenId> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](TokenId id) { return row[static_cast<size_t>(id)]; };
  const auto end = order.begin() + std::min<int64_t>(n_top, static_cast<int64_t>(order.size()));
  std::partial_sort(order.begin(), end, order.end(),
                    [&](TokenId a, TokenId b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; });
  for (auto it = order.begin(); it != end; ++it) scored.top.emplace_back(*it, static_cast<double>(logit(*it)) - lse);
  return scored;
}

/// Runs the text through the model and hands out row t of the logits (which predicts token t + 1) for every t, in order.
class LogitRows {
 public:
  LogitRows(MiniLLM& model, const ScoreFlags& flags) : model_(model), flags_(flags) {
    // 64 MiB of logits at a time.
    slice_ = std::clamp<int64_t>((int64_t{16} << 20) / model.config().vocab_size, 16, 512);
  }

  template <typename Use>
  void for_each(const std::vector<TokenId>& ids, Use&& use) {
    const int64_t n = static_cast<int64_t>(ids.size()), context = model_.config().context_length;
    const int64_t stride = std::max<int64_t>(context / 2, 1);
    for (int64_t start = 0, done = 0; done < n; start += stride) {
      KVCache cache(model_.config(), cache_options());
      const int64_t end = std::min(start + context, n);
      for (int64_t at = start; at < end; at += slice_) {
        if (interrupted()) throw Error(ErrorCode::kCancelled, "score: interrupted");
        const int64_t stop = std::min(at + slice_, end);
        const Tensor logits = forward(ids, at, stop, cache, /*last_only=*/stop <= done);
        const size_t width = static_cast<size_t>(logits.dim(-1));
        for (; done < stop; ++done) use(done, logits.values<float>().subspan(static_cast<size_t>(done - at) * width, width));
      }
    }
  }

 private:
  KVCacheOptions cache_options() const {
    KVCacheOptions options{.device = model_.device()};
    if (!flags_.model.kv_dtype.empty()) options.dtype = parse_dtype(flags_.model.kv_dtype);
    return options;
  }

  Tensor forward(const std::vector<TokenId>& ids, int64_t begin, int64_t end, KVCache& cache, bool last_only) {
    ForwardOptions options;
    options.kv_cache = &cache;
    options.last_logits_only = last_only;  // These rows are only there for their keys and values.
    options.use_flash_attention = !flags_.model.no_flash_attention;
    options.flash_block_size = flags_.model.flash_block_size;
    return model_.forward(Tensor::from_ids({{ids.begin() + begin, ids.begin() + end}}), options);
  }

  MiniLLM& model_;
  const ScoreFlags& flags_;
  int64_t slice_;
};

Json token_json(TokenId id, const Scored* scored, const Tokenizer& tokenizer) {
  Json json{{"id", id}, {"piece", tokenizer.piece(id)}, {"logprob", nullptr}};
  if (scored == nullptr) return json;  // Nothing stands before the first token.
  json["logprob"] = scored->logprob;
  if (!scored->top.empty()) {
    json["top"] = Json::array();
    for (const auto& [top_id, logprob] : scored->top)
      json["top"].push_back({{"id", top_id}, {"piece", tokenizer.piece(top_id)}, {"logprob", logprob}});
  }
  return json;
}

void print_token(TokenId id, const Scored* scored, const Tokenizer& tokenizer) {
  char number[40] = "         -";
  if (scored != nullptr) std::snprintf(number, sizeof(number), "%10.4f", scored->logprob);
  std::string line = std::string(number) + "  " + std::to_string(id) + "\t" + tokenizer.piece(id);
  if (scored != nullptr)
    for (const auto& [top_id, logprob] : scored->top) {
      std::snprintf(number, sizeof(number), "%.4f", logprob);
      line += "\t" + tokenizer.piece(top_id) + " " + number;
    }
  print(line + "\n");
}

int run_score(const ScoreFlags& flags, int n_sources) {
  if (n_sources != 1) throw UsageError("expected one of --file and --ids");
  const std::vector<TokenId> given = parse_ids(flags.ids);
  const std::string path = find_model(flags.model);
  const Tokenizer tokenizer = Tokenizer::load(path);
  const std::vector<TokenId> ids = flags.file.empty() ? given : tokenizer.encode(read_text(flags.file));
  if (ids.empty()) throw Error(ErrorCode::kInvalidArgument, "score: the text has no tokens");
  MiniLLM model = MiniLLM::load(path, load_options(flags.model));

  const int64_t n = static_cast<int64_t>(ids.size());
  std::optional<NpyWriter> npy;
  if (!flags.logits.empty()) npy.emplace(flags.logits, n, model.config().vocab_size);
  Json tokens = Json::array();
  double nll = 0;
  const auto report = [&](TokenId id, const Scored* scored) {
    if (flags.json)
      tokens.push_back(token_json(id, scored, tokenizer));
    else
      print_token(id, scored, tokenizer);
  };
  report(ids[0], nullptr);
  LogitRows(model, flags).for_each(ids, [&](int64_t t, std::span<const float> row) {
    if (npy) npy->write_row(row);
    if (t + 1 == n) return;
    const TokenId next = ids[static_cast<size_t>(t + 1)];
    const Scored scored = score_row(row, next, flags.top_logprobs);
    nll -= scored.logprob;
    report(next, &scored);
  });
  if (npy) npy->finish();
  const int64_t n_scored = n - 1;
  const double mean = n_scored > 0 ? nll / static_cast<double>(n_scored) : 0;
  if (flags.json) {
    print(json_line({{"n_tokens", n}, {"n_scored", n_scored}, {"mean_nll", mean}, {"perplexity", std::exp(mean)}, {"tokens", tokens}}));
  } else {
    char line[120];
    std::snprintf(line, sizeof(line), "tokens %lld, mean NLL %.6f, perplexity %.4f\n", static_cast<long long>(n), mean, std::exp(mean));
    print(line);
  }
  return kExitDone;
}

}  // namespace

Run add_score(CLI::App& app) {
  auto flags = std::make_shared<ScoreFlags>();
  CLI::Option* file = app.add_option("-f,--file", flags->file, "text to score; - is standard input");
  CLI::Option* ids = app.add_option("--ids", flags->ids, "score these token ids as they are, as in 1,2,3");
  app.add_option("--top-logprobs", flags->top_logprobs, "also the K most likely tokens at each place")->check(CLI::Range(0, 1 << 20));
  app.add_option("--logits", flags->logits, "write every row of logits to this .npy file, float32 [T, V]");
  add_model_flag(app, flags->model);
  add_device_flags(app, flags->model);
  add_attention_flags(app, flags->model);
  app.add_flag("--json", flags->json, R"(print {"n_tokens", "n_scored", "mean_nll", "perplexity", "tokens"})");
  return [=] { return run_score(*flags, (file->count() > 0) + (ids->count() > 0)); };
}

}  // namespace minillm::cli
