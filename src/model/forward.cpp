// forward.cpp - MiniLLM::forward: from [B, S] ids to flat steps of bounded size, and back to [B, S, V] logits.
// The cache's pages are reserved before the first step, and every row is put back as it was if a step fails.
#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "base/bytes.h"
#include "model/model_impl.h"

namespace minillm {
namespace {

/// The valid tokens of each row, checked: ids, lengths, shape.
class Input {
 public:
  Input(const Tensor& ids, const std::vector<int64_t>& lengths, const ModelConfig& config) : ids_(ids) {
    if (ids.dtype() != Dtype::kI32 || ids.shape().size() != 2)
      throw Error(ErrorCode::kInvalidArgument, "forward: input_ids is ", name_of(ids.dtype()), " of rank ", ids.shape().size(),
                  ", expected i32 [batch, tokens]");
    if (ids.empty())
      throw Error(ErrorCode::kInvalidArgument, "forward: input_ids is [", ids.dim(0), ", ", ids.dim(1), "], expected at least one token");
    lengths_ = lengths.empty() ? std::vector<int64_t>(static_cast<size_t>(ids.dim(0)), ids.dim(1)) : lengths;
    if (static_cast<int64_t>(lengths_.size()) != ids.dim(0))
      throw Error(ErrorCode::kInvalidArgument, "forward: ", lengths_.size(), " lengths for a batch of ", ids.dim(0));
    for (int64_t row = 0; row < batch(); ++row) check_row(row, config.vocab_size);
  }

  int64_t batch() const { return ids_.dim(0); }
  int64_t width() const { return ids_.dim(1); }
  int64_t length(int64_t row) const { return lengths_[static_cast<size_t>(row)]; }
  int64_t n_tokens() const { return std::accumulate(lengths_.begin(), lengths_.end(), int64_t{0}); }
  std::span<const TokenId> tokens(int64_t row) const {
    return ids_.values<int32_t>().subspan(static_cast<size_t>(row * width()), static_cast<size_t>(length(row)));
  }

 private:
  void check_row(int64_t row, int64_t vocab_size) const {
    if (length(row) < 0 || length(row) > width())
      throw Error(ErrorCode::kInvalidArgument, "forward: lengths[", row, "] is ", length(row), ", expected 0 to ", width());
    const std::span<const TokenId> ids = tokens(row);
    for (size_t i = 0; i < ids.size(); ++i)
      if (ids[i] < 0 || ids[i] >= vocab_size)
        throw Error(ErrorCode::kInvalidArgument, "forward: input_ids[", row, ", ", i, "] is ", ids[i], ", expected 0 to ", vocab_size - 1);
  }

  const Tensor& ids_;
  std::vector<int64_t> lengths_;
};

void check_cache(const KVCache& cache, const MiniLLM::Impl& model, int64_t batch) {
  const KvShape& shape = cache.paged().storage().shape();
  const ModelConfig& config = model.config;
  if (cache.batch_size() != batch)
    throw Error(ErrorCode::kInvalidArgument, "forward: kv_cache has ", cache.batch_size(), " rows, input_ids ", batch);
  if (!(cache.device() == model.device))
    throw Error(ErrorCode::kInvalidArgument, "forward: kv_cache is on ", name_of(cache.device()), ", the model on ", name_of(model.device));
  if (shape.n_layers != config.n_layers || shape.n_kv_heads != config.n_kv_heads || shape.head_dim != config.head_dim)
    throw Error(ErrorCode::kInvalidArgument, "forward: kv_cache has ", shape.n_layers, " layers of ", shape.n_kv_heads, " heads of ",
                shape.head_dim, ", the model ", config.n_layers, " of ", config.n_kv_heads, " of ", config.head_dim);
  for (int64_t layer = 1; layer < shape.n_layers; ++layer)  // KVCache::update fills one layer at a time.
    if (cache.get_seq_length(layer) != cache.get_seq_length(0))
      throw Error(ErrorCode::kInvalidArgument, "forward: layer ", layer, " of kv_cache holds ", cache.get_seq_length(layer),
                  " tokens, layer 0 holds ", cache.get_seq_length(0));
}

void check_capacity(const PagedCache& cache, const KVCache* kv_cache, const Input& input, int64_t context) {
  const int64_t own = kv_cache != nullptr ? kv_cache->capacity() : -1;
  const int64_t limit = own >= 0 ? std::min(own, context) : context;
  for (int64_t row = 0; row < input.batch(); ++row)
    if (cache.length(row) + input.length(row) > limit)
      throw Error(ErrorCode::kCapacity, "forward: row ", row, " would hold ", cache.length(row), " + ", input.length(row), " tokens, past ",
                  limit == context ? "the context length of " : "the cache's max_length of ", limit);
}

/// [n_rows, 1, V] for one row of logits each, not set: zeroing what is written anyway would take as long as a percent of a step.
Tensor unset_logits(int64_t n_rows, int64_t vocab) {
  constexpr size_t kAlignment = 64;
  const auto bytes = checked_mul(static_cast<uint64_t>(n_rows), static_cast<uint64_t>(vocab) * sizeof(float));
  void* memory = nullptr;
  if (bytes && *bytes < uint64_t{1} << 62)
    memory = std::aligned_alloc(kAlignment, static_cast<size_t>(round_up(static_cast<int64_t>(*bytes), kAlignment)));
  if (memory == nullptr) throw Error(ErrorCode::kOutOfMemory, "forward: no room for ", n_rows, " rows of ", vocab, " logits");
  return Tensor::wrap({memory, std::free}, memory, {n_rows, 1, vocab}, Dtype::kF32);
}

/// Gives each row its old length back unless keep() is called.
class CacheGuard {
 public:
  explicit CacheGuard(PagedCache& cache) : cache_(cache) {
    for (int64_t row = 0; row < cache.n_rows(); ++row) lengths_.push_back(cache.length(row));
  }
  ~CacheGuard() {
    for (size_t row = 0; row < lengths_.size(); ++row) cache_.truncate(static_cast<int64_t>(row), lengths_[row]);
  }
  CacheGuard(const CacheGuard&) = delete;
  CacheGuard& operator=(const CacheGuard&) = delete;
  void keep() noexcept { lengths_.clear(); }

 private:
  PagedCache& cache_;
  std::vector<int64_t> lengths_;
};

/// The run of steps of one call. Rows of input are taken in order; a step may end inside one and begin the next.
class Run {
 public:
  Run(MiniLLM::Impl& model, const Input& input, PagedCache& cache, const ForwardOptions& options)
      : model_(model),
        input_(input),
        cache_(cache),
        options_(options),
        mode_(model.attention_mode(options.use_flash_attention, options.flash_block_size)) {}

  Tensor logits() {
    Tensor out = room_for_logits();
    int64_t row = 0, done = 0;  // `done` tokens of `row` have been computed.
    while (row < input_.batch()) {
      if (!lay_out_step(row, done)) break;
      wanted_rows_.clear();
      for (const Wanted& wanted : wanted_) wanted_rows_.push_back(wanted.step_row);
      model_.transformer.forward(model_.batch.view(), cache_, mode_, wanted_rows_);
      advance();
      copy_logits(out);
    }
    return out;
  }

  /// The token after a single row, on a device that takes whole steps.
  TokenId token(const Draw& draw) {
    if (!model_.pending) model_.pending = model_.backend->make_pending_tokens(1);
    for (int64_t row = 0, done = 0; row < input_.batch();) {
      lay_out_step(row, done);
      const bool is_last = row == input_.batch();
      if (is_last && model_.batch.n_rows() == 1) {
        model_.transformer.start_tokens(model_.batch.view(), cache_, mode_, {&draw, 1}, *model_.pending);
      } else {
        const auto last_row = static_cast<int32_t>(model_.batch.n_rows() - 1);
        const std::span<const int32_t> wanted(&last_row, is_last ? 1 : 0);
        model_.transformer.forward(model_.batch.view(), cache_, mode_, wanted);
        if (is_last) model_.transformer.tokens_after(model_.transformer.head(wanted), {&draw, 1}, *model_.pending);
      }
      advance();
    }
    TokenId id = -1;
    model_.pending->take({&id, 1});
    return id;
  }

 private:
  /// A row of the step whose logits are wanted, and where they go.
  struct Wanted {
    int32_t step_row;
    int64_t out_row;
  };
  struct Piece {
    int64_t row, n_tokens;
  };

  /// Rows of logits that no token asks for are zeros.
  Tensor room_for_logits() const {
    const int64_t vocab = model_.config.vocab_size;
    if (!options_.last_logits_only) return Tensor({input_.batch(), input_.width(), vocab});
    for (int64_t row = 0; row < input_.batch(); ++row)
      if (input_.length(row) == 0) return Tensor({input_.batch(), 1, vocab});
    return unset_logits(input_.batch(), vocab);
  }

  /// False if what is left are rows without tokens.
  bool lay_out_step(int64_t& row, int64_t& done) {
    StepBatch& batch = model_.batch;
    batch.clear();
    wanted_.clear();
    pieces_.clear();
    const int64_t most = model_.step_rows();
    while (row < input_.batch() && batch.n_rows() < most) {
      const int64_t n = std::min(most - batch.n_rows(), input_.length(row) - done);
      if (n > 0) {
        want(row, done, n, batch.n_rows());
        batch.add(cache_, row, input_.tokens(row).subspan(static_cast<size_t>(done), static_cast<size_t>(n)));
        pieces_.push_back({row, n});
      }
      done += n;
      if (done == input_.length(row)) {
        ++row;
        done = 0;
      }
    }
    return batch.n_rows() > 0;
  }

  void advance() {
    for (const Piece& piece : pieces_) cache_.advance(piece.row, piece.n_tokens);
  }

  void want(int64_t row, int64_t done, int64_t n, int64_t first_step_row) {
    for (int64_t i = 0; i < n; ++i) {
      const int32_t step_row = static_cast<int32_t>(first_step_row + i);
      if (!options_.last_logits_only)
        wanted_.push_back({step_row, row * input_.width() + done + i});
      else if (done + i == input_.length(row) - 1)
        wanted_.push_back({step_row, row});
    }
  }

  void copy_logits(Tensor& out) {
    const int64_t vocab = model_.config.vocab_size, at_once = model_.workspace.limits().max_logit_rows;
    const size_t row_bytes = static_cast<size_t>(vocab) * sizeof(float);
    for (size_t first = 0; first < wanted_.size(); first += static_cast<size_t>(at_once)) {
      const auto piece = std::span(wanted_).subspan(first, std::min(static_cast<size_t>(at_once), wanted_.size() - first));
      const auto rows = std::span(wanted_rows_).subspan(first, piece.size());
      float* const to = out.values<float>().data() + piece[0].out_row * vocab;
      const auto n = static_cast<int64_t>(piece.size());
      if (model_.backend->computes_in_host_memory() && piece.back().out_row - piece[0].out_row == n - 1) {  // Rows that follow each other.
        model_.transformer.head(rows, {to, Dtype::kF32, {n, vocab}});
        continue;
      }
      const auto* logits = static_cast<const float*>(model_.transformer.head(rows).data);
      for (size_t i = 0; i < piece.size(); ++i)
        model_.backend->download(out.values<float>().data() + piece[i].out_row * vocab, logits + static_cast<int64_t>(i) * vocab,
                                 row_bytes);
    }
    model_.backend->sync();
  }

  MiniLLM::Impl& model_;
  const Input& input_;
  PagedCache& cache_;
  const ForwardOptions& options_;
  AttentionMode mode_;
  std::vector<Wanted> wanted_;
  std::vector<int32_t> wanted_rows_;  ///< Their step_row.
  std::vector<Piece> pieces_;
};

/// Does `work` with the Run of a call that has been checked, with room for it in the cache.
template <typename Work>
auto run_steps(MiniLLM::Impl& model, const Tensor& input_ids, const ForwardOptions& options, const Work& work) {
  const Input input(input_ids, options.lengths, model.config);
  model.attention_mode(options.use_flash_attention, options.flash_block_size);  // Refused before anything changes.
  std::unique_ptr<PagedCache> own_cache;
  if (options.kv_cache != nullptr) {
    check_cache(*options.kv_cache, model, input.batch());
  } else {
    int64_t n_pages = 0;
    for (int64_t row = 0; row < input.batch(); ++row) n_pages += ceil_div(input.length(row), kPageTokens);
    own_cache = model.make_cache(input.batch(), std::max<int64_t>(n_pages, 1), model.config.kv_dtype);
  }
  PagedCache& cache = own_cache ? *own_cache : options.kv_cache->paged();
  check_capacity(cache, options.kv_cache, input, model.config.context_length);

  const int64_t wanted = options.last_logits_only ? input.batch() : input.n_tokens();
  const int64_t logit_rows = std::clamp<int64_t>(wanted, 1, logit_rows_at_once(model.config, kStepRows));
  const int64_t rows = std::clamp(input.n_tokens(), kStepRows, model.step_rows());
  model.workspace.reserve({.max_rows = rows, .max_logit_rows = logit_rows, .max_sequences = std::min(input.batch(), rows)});
  CacheGuard guard(cache);
  for (int64_t row = 0; row < input.batch(); ++row) cache.reserve(row, cache.length(row) + input.length(row));
  Run run(model, input, cache, options);
  auto result = work(run);
  guard.keep();
  return result;
}

}  // namespace

Tensor MiniLLM::Impl::forward(const Tensor& input_ids, const ForwardOptions& options) {
  return run_steps(*this, input_ids, options, [](Run& run) { return run.logits(); });
}

TokenId MiniLLM::Impl::next_token(const Tensor& input_ids, const ForwardOptions& options, const Draw& draw) {
  return run_steps(*this, input_ids, options, [&](Run& run) { return run.token(draw); });
}

}  // namespace minillm
