// attention_support.h - what the attention tests share: a counting allocator, caches with permuted pages and poisoned
// slots, and one call for a batch of sequences.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_matrix.h"
#include "backend/cpu/isa.h"
#include "support/attention_oracle.h"
#include "support/random.h"

namespace minillm::test {

inline std::vector<std::string> isas_here() {
  std::vector<std::string> isas;
  for (cpu::Isa isa : cpu::all_isas())
    if (cpu::is_supported(isa)) isas.emplace_back(cpu::name_of(isa));
  return isas;
}

/// Whether a sequence's rows go through tiles of bfloat16: its errors are those of bfloat16, and its bits depend on whether a step
/// brings enough tokens of it.
inline bool on_matrices(const std::string& isa, Dtype dtype, int64_t n_rows, bool flash = true) {
  return isa == "amx" && flash && (dtype == Dtype::kF16 || dtype == Dtype::kBF16) && n_rows >= cpu::kMatrixTokens;
}
inline Dtype yardstick_of(const std::string& isa, Dtype dtype, int64_t n_rows, bool flash = true) {
  return on_matrices(isa, dtype, n_rows, flash) ? Dtype::kBF16 : Dtype::kF32;
}

/// Aligned memory that is counted.
class CountingAllocator {
 public:
  Buffer allocate(size_t bytes) {
    const size_t rounded = (bytes + 63) / 64 * 64;
    void* data = std::aligned_alloc(64, rounded == 0 ? 64 : rounded);
    if (data == nullptr) throw std::bad_alloc();
    current_ += bytes;
    peak_ = std::max(peak_, current_);
    ++n_calls_;
    return {data, bytes, [this, bytes](void* p) {
              current_ -= bytes;
              std::free(p);
            }};
  }
  size_t current() const { return current_; }
  size_t peak() const { return peak_; }
  int64_t n_calls() const { return n_calls_; }

 private:
  size_t current_ = 0, peak_ = 0;
  int64_t n_calls_ = 0;
};

/// CpuAttention with its pool and allocator.
struct AttentionUnit {
  explicit AttentionUnit(const std::string& isa = isas_here().back(), int n_threads = 2)
      : pool(n_threads),
        kernels(cpu::attention_kernels_of(isa)),
        attention(pool, kernels, [this](size_t n) { return memory.allocate(n); }) {}
  CountingAllocator memory;
  ThreadPool pool;
  const cpu::AttentionKernels& kernels;
  cpu::CpuAttention attention;
};

/// A cache for several sequences. Page tables are a seeded permutation; every byte is 0xFF, a NaN in each type, until written.
class TestCache {
 public:
  TestCache(const cpu::AttentionKernels& kernels, const AttentionParams& p, Dtype dtype, int64_t page_tokens, std::vector<int64_t> lengths,
            uint64_t seed = 1, int64_t n_layers = 1)
      : lengths_(std::move(lengths)), page_tokens_(page_tokens) {
    int64_t n_pages = 1;  // One page belongs to nobody.
    for (const int64_t n : lengths_) n_pages += (n + page_tokens - 1) / page_tokens;
    const KvShape shape{n_layers, p.n_kv_heads, p.head_dim, page_tokens, n_pages, dtype};
    storage = std::make_unique<cpu::CpuKvStorage>(shape, kernels);
    storage->commit(n_pages);
    std::memset(const_cast<std::byte*>(storage->keys_of(0, 0, 0)), 0xFF, static_cast<size_t>(storage->bytes()));
    std::vector<int32_t> order(static_cast<size_t>(n_pages));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    Random random(seed);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
    size_t next = 0;
    for (const int64_t n : lengths_) {
      const size_t count = static_cast<size_t>((n + page_tokens - 1) / page_tokens);
      tables.emplace_back(order.begin() + static_cast<int64_t>(next), order.begin() + static_cast<int64_t>(next + count));
      next += count;
    }
  }

  /// Tokens [begin, end) of sequence `i` from k and v [S, G, D].
  void write(size_t i, const std::vector<float>& k, const std::vector<float>& v, int64_t begin, int64_t end, int64_t layer = 0) {
    const int64_t heads = storage->shape().n_kv_heads, width = storage->shape().head_dim;
    for (int64_t t = begin; t < end; ++t) {
      const ConstTensorView key{k.data() + t * heads * width, Dtype::kF32, {1, heads, width}};
      const ConstTensorView value{v.data() + t * heads * width, Dtype::kF32, {1, heads, width}};
      storage->write(layer, tables[i][static_cast<size_t>(t / page_tokens_)], t % page_tokens_, key, value);
    }
  }
  void write_all(size_t i, const AttentionCase& c) { write(i, c.k, c.v, 0, c.n_keys); }

  std::unique_ptr<cpu::CpuKvStorage> storage;
  std::vector<std::vector<int32_t>> tables;

 private:
  std::vector<int64_t> lengths_;
  int64_t page_tokens_;
};

struct AttentionOutput {
  std::vector<float> out, lse;
};

/// Rows [begin, begin + n) of a case's queries, as one slice of a step.
struct Chunk {
  const AttentionCase* c;
  size_t sequence;  ///< In the cache.
  int64_t begin, n;
};

/// One step with these chunks. Row i of a case stands at slot i + Sk - Sq; the cache must hold the keys up to the last row's.
inline AttentionOutput attend_step(AttentionUnit& unit, const TestCache& cache, const AttentionParams& params,
                                   const std::vector<Chunk>& chunks) {
  const int64_t row = params.n_heads * params.head_dim;
  std::vector<float> q;
  std::vector<SequenceSlice> slices;
  int64_t n_rows = 0;
  for (const Chunk& chunk : chunks) {
    const int64_t offset = chunk.c->n_keys - chunk.c->n_queries;
    slices.push_back({n_rows, chunk.n, offset + chunk.begin, cache.tables[chunk.sequence].data()});
    q.insert(q.end(), chunk.c->q.begin() + chunk.begin * row, chunk.c->q.begin() + (chunk.begin + chunk.n) * row);
    n_rows += chunk.n;
  }
  AttentionOutput result{std::vector<float>(static_cast<size_t>(n_rows * row), 7.0f),
                         std::vector<float>(static_cast<size_t>(n_rows * params.n_heads), 7.0f)};
  const Batch batch{{}, {}, slices};
  unit.attention.attention(batch, {result.out.data(), Dtype::kF32, {n_rows, params.n_heads, params.head_dim}},
                           {q.data(), Dtype::kF32, {n_rows, params.n_heads, params.head_dim}}, *cache.storage, 0, params,
                           {result.lse.data(), Dtype::kF32, {n_rows, params.n_heads}});
  return result;
}

/// Whole case in one step.
inline AttentionOutput attend_case(AttentionUnit& unit, const AttentionCase& c, Dtype dtype, int64_t page_tokens, uint64_t seed = 1) {
  TestCache cache(unit.kernels, c.params, dtype, page_tokens, {c.n_keys}, seed);
  cache.write_all(0, c);
  return attend_step(unit, cache, c.params, {{&c, 0, 0, c.n_queries}});
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

}  // namespace minillm::test
