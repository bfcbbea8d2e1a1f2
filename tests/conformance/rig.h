// rig.h - what every conformance test needs: the table of backends, tensors in their memory, steps with scattered pages, and a
// comparison that says where two results differ.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/bytes.h"
#include "base/dequantise.h"
#include "base/half.h"
#include "support/random.h"

namespace minillm::test {

// --- Backends ---------------------------------------------------------------------------------------------------------

/// A backend under test. Adding one is one line in kTargets.
struct Target {
  const char* name;
  Device device;
  const char* isa = nullptr;  ///< Value of MINILLM_ISA while the backend is made.
  double bf16_products = 0;   ///< 1 where activations and probabilities are rounded to bfloat16.
  /// Steps of up to this many rows give the same bits in any company; 0: steps of any size do.
  int64_t same_bits_up_to = 0;
};
inline void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }
inline constexpr Target kTargets[] = {
    {"reference", {Device::Kind::kReference, 0}},
    {"cpu_scalar", {Device::Kind::kCpu, 0}, "scalar"},
    {"cpu_avx2", {Device::Kind::kCpu, 0}, "avx2"},
    {"cpu_avx_vnni", {Device::Kind::kCpu, 0}, "avx_vnni"},
    {"cpu_avx512_vnni", {Device::Kind::kCpu, 0}, "avx512_vnni"},
    {"cpu_avx512_bf16", {Device::Kind::kCpu, 0}, "avx512_bf16", 1},
    {"cpu_amx", {Device::Kind::kCpu, 0}, "amx", 1, 15},  // Attention takes tiles from 16 rows of a sequence on, products from 24 rows.
    {"cuda", {Device::Kind::kCuda, 0}, nullptr, 1, 64},
};

/// Null where this machine or this build cannot run it.
inline std::unique_ptr<Backend> make_target(const Target& target, int n_threads = 2) {
  try {
    if (target.isa != nullptr) ::setenv("MINILLM_ISA", target.isa, 1);
    std::unique_ptr<Backend> backend;
    switch (target.device.kind) {
      case Device::Kind::kReference:
        backend = make_reference_backend();
        break;
      case Device::Kind::kCpu:
        backend = make_cpu_backend({.n_threads = n_threads});
        break;
      case Device::Kind::kCuda:
        backend = make_cuda_backend(target.device.index, {});
        break;
    }
    ::unsetenv("MINILLM_ISA");
    return backend;
  } catch (const Error& error) {
    ::unsetenv("MINILLM_ISA");
    if (error.code() == ErrorCode::kUnsupported || error.code() == ErrorCode::kDevice) return nullptr;
    throw;
  }
}

/// A test on one target, beside the oracle.
class OnTarget : public testing::TestWithParam<Target> {
 protected:
  void SetUp() override {
    backend_ = make_target(GetParam());
    if (backend_ == nullptr) GTEST_SKIP() << GetParam().name << " does not run here";
  }
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Backend> oracle_ = make_reference_backend();
};

#define MINILLM_ON_EVERY_TARGET(fixture)                                                    \
  INSTANTIATE_TEST_SUITE_P(Backends, fixture, testing::ValuesIn(::minillm::test::kTargets), \
                           [](const auto& test) { return std::string(test.param.name); })

// --- Tensors ----------------------------------------------------------------------------------------------------------

using Shape = std::vector<int64_t>;

inline int64_t count(const Shape& shape) { return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()); }

/// A float32 tensor in a backend's memory; NaN until written.
class Array {
 public:
  Array(Backend& backend, Shape shape) : Array(backend, std::move(shape), std::vector<float>()) {}
  Array(Backend& backend, Shape shape, std::vector<float> values) : backend_(&backend), shape_(std::move(shape)) {
    values.resize(static_cast<size_t>(count(shape_)), std::numeric_limits<float>::quiet_NaN());
    buffer_ = backend.allocate(values.size() * sizeof(float));
    backend.upload(buffer_.data(), values.data(), values.size() * sizeof(float));
    backend.sync();
  }
  operator TensorView() const { return view<TensorView>(); }            // NOLINT(google-explicit-constructor)
  operator ConstTensorView() const { return view<ConstTensorView>(); }  // NOLINT(google-explicit-constructor)
  const Shape& shape() const { return shape_; }
  std::vector<float> host() const {
    std::vector<float> values(static_cast<size_t>(count(shape_)));
    backend_->sync();
    backend_->download(values.data(), buffer_.data(), values.size() * sizeof(float));
    backend_->sync();
    return values;
  }

 private:
  template <typename View>
  View view() const {
    switch (shape_.size()) {
      case 1:
        return {buffer_.data(), Dtype::kF32, {shape_[0]}};
      case 2:
        return {buffer_.data(), Dtype::kF32, {shape_[0], shape_[1]}};
      case 3:
        return {buffer_.data(), Dtype::kF32, {shape_[0], shape_[1], shape_[2]}};
      default:
        return {buffer_.data(), Dtype::kF32, {shape_[0], shape_[1], shape_[2], shape_[3]}};
    }
  }
  Backend* backend_;
  Shape shape_;
  Buffer buffer_;
};

/// "[3, 0, 17]" of element `i`.
inline std::string coordinate(const Shape& shape, int64_t i) {
  std::string text = "]";
  for (size_t d = shape.size(); d-- > 0; i /= shape[d]) text = (d == 0 ? "" : ", ") + std::to_string(i % shape[d]) + text;
  return "[" + text;
}

/// Compares element by element; `tolerance(i)` is absolute. Infinities must be equal; NaN is equal to nothing.
template <typename Tolerance>
void expect_close(const Array& got_array, const Array& want_array, Tolerance&& tolerance, const std::string& what) {
  const Shape& shape = want_array.shape();
  ASSERT_EQ(got_array.shape(), shape) << what;
  const std::vector<float> got = got_array.host(), want = want_array.host();
  int64_t n_wrong = 0;
  std::string first;
  for (size_t i = 0; i < want.size(); ++i) {
    const double x = static_cast<double>(got[i]), y = static_cast<double>(want[i]), most = tolerance(static_cast<int64_t>(i));
    if (x == y || std::abs(x - y) <= most) continue;
    if (n_wrong++ == 0)
      first = coordinate(shape, static_cast<int64_t>(i)) + ": got " + testing::PrintToString(got[i]) + ", want " +
              testing::PrintToString(want[i]) + ", tolerance " + testing::PrintToString(most);
  }
  EXPECT_EQ(n_wrong, 0) << what << ": " << n_wrong << " of " << want.size() << " differ, first at " << first;
}

inline void expect_close(const Array& got, const Array& want, double tolerance, const std::string& what) {
  expect_close(
      got, want, [tolerance](int64_t) { return tolerance; }, what);
}

/// Bitwise, NaN included.
inline void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << what << " at " << i << ": got " << got[i] << ", want " << want[i];
}

// --- Weights ----------------------------------------------------------------------------------------------------------

inline constexpr Dtype kWeightTypes[] = {Dtype::kF32,  Dtype::kF16,  Dtype::kBF16, Dtype::kQ4_0, Dtype::kQ4_1, Dtype::kQ5_0,
                                         Dtype::kQ5_1, Dtype::kQ8_0, Dtype::kQ4_K, Dtype::kQ5_K, Dtype::kQ6_K};

/// Host rows of a weight [N, K]: random codes (every bit of the format is used) and scales of the size real files have.
struct HostWeight {
  Dtype dtype;
  int64_t n, k;
  std::vector<uint8_t> bytes;

  HostWeight(uint64_t seed, Dtype dtype_in, int64_t n_in, int64_t k_in)
      : dtype(dtype_in), n(n_in), k(k_in), bytes(static_cast<size_t>(n_in) * row_bytes(dtype_in, k_in)) {
    Random random(seed);
    if (!is_quantised(dtype)) {
      const std::vector<float> values = randn(seed, n * k, 0.05);
      for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t narrow = dtype == Dtype::kF16 ? float_to_half(values[i]) : float_to_bfloat16(values[i]);
        if (dtype == Dtype::kF32)
          std::memcpy(bytes.data() + 4 * i, &values[i], 4);
        else
          std::memcpy(bytes.data() + 2 * i, &narrow, 2);
      }
      return;
    }
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
    const bool with_min = dtype == Dtype::kQ4_1 || dtype == Dtype::kQ5_1 || dtype == Dtype::kQ4_K || dtype == Dtype::kQ5_K;
    const size_t block = block_bytes(dtype), at = dtype == Dtype::kQ6_K ? 208 : 0;  // q6_k keeps its scale last.
    for (size_t b = 0; b < bytes.size(); b += block)
      for (size_t i = 0; i < (with_min ? 2u : 1u); ++i) {
        const uint16_t scale =
            float_to_half(static_cast<float>(random.uniform() * (block > 100 ? 1e-4 : 1e-2) * (random.below(8) == 0 ? -1 : 1)));
        std::memcpy(bytes.data() + b + at + 2 * i, &scale, 2);
      }
  }
  ConstTensorView view() const { return {bytes.data(), dtype, {n, k}}; }
  /// Row `i` as float32.
  std::vector<float> row(int64_t i) const {
    std::vector<float> values(static_cast<size_t>(k));
    dequantise_row(dtype, bytes.data() + static_cast<size_t>(i) * row_bytes(dtype, k), values.data(), k);
    return values;
  }
  std::unique_ptr<PackedWeight> pack(Backend& backend, WeightRole role = WeightRole::kProduct, std::optional<Dtype> convert_to = {}) const {
    const ConstTensorView tensor = view();
    return backend.pack({&tensor, 1}, role, convert_to);
  }
};

// --- Steps ------------------------------------------------------------------------------------------------------------

/// One step over several sequences, whose pages are scattered over the storage (in order for seed 0).
struct Step {
  struct Row {
    int64_t n_cached, n_rows;
  };
  std::vector<Row> rows;
  int64_t page_tokens, n_pages = 0;
  std::vector<TokenId> tokens;
  std::vector<int32_t> positions;
  std::vector<std::vector<int32_t>> tables;
  std::vector<SequenceSlice> slices;

  Step(std::vector<Row> rows_in, int64_t page_tokens_in, uint64_t seed = 1) : rows(std::move(rows_in)), page_tokens(page_tokens_in) {
    for (const Row& row : rows) n_pages += ceil_div(row.n_cached + row.n_rows, page_tokens);
    std::vector<int32_t> pages(static_cast<size_t>(n_pages));
    std::iota(pages.begin(), pages.end(), 0);
    Random random(seed);
    for (size_t i = pages.size(); seed != 0 && i > 1; --i)
      std::swap(pages[i - 1], pages[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
    auto next = pages.begin();
    for (const Row& row : rows) {
      const auto end = next + ceil_div(row.n_cached + row.n_rows, page_tokens);
      tables.emplace_back(next, end);
      next = end;
      slices.push_back({static_cast<int64_t>(tokens.size()), row.n_rows, row.n_cached, nullptr});
      for (int64_t i = 0; i < row.n_rows; ++i) {
        tokens.push_back(0);
        positions.push_back(static_cast<int32_t>(row.n_cached + i));
      }
    }
    for (size_t i = 0; i < slices.size(); ++i) slices[i].pages = tables[i].data();
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  int64_t n_rows() const { return static_cast<int64_t>(tokens.size()); }
  Batch batch() const { return {tokens, positions, slices}; }
};

/// Writes NaN to every slot of every page.
inline void poison(KvStorage& storage, int64_t n_pages) {
  const KvShape& s = storage.shape();
  std::vector<float> nans(static_cast<size_t>(s.page_tokens * s.n_kv_heads * s.head_dim), std::numeric_limits<float>::quiet_NaN());
  const ConstTensorView view(nans.data(), Dtype::kF32, {s.page_tokens, s.n_kv_heads, s.head_dim});
  for (int32_t page = 0; page < n_pages; ++page)
    for (int64_t layer = 0; layer < s.n_layers; ++layer) storage.write(layer, page, 0, view, view);
}

/// Fills the slots [0, n) of every sequence, n = cached tokens or, `with_rows`, the step's own as well. The content depends on
/// sequence and slot, not on pages.
inline void fill(KvStorage& storage, const Step& step, bool with_rows, double spread = 1.0, uint64_t seed = 100) {
  const KvShape& s = storage.shape();
  for (size_t b = 0; b < step.rows.size(); ++b) {
    const int64_t n = step.rows[b].n_cached + (with_rows ? step.rows[b].n_rows : 0);
    const std::vector<float> k = randn(seed + 2 * b, n * s.n_kv_heads * s.head_dim, spread),
                             v = randn(seed + 2 * b + 1, n * s.n_kv_heads * s.head_dim);
    for (int64_t done = 0; done < n; done += s.page_tokens) {
      const int64_t n_slots = std::min(n - done, s.page_tokens), at = done * s.n_kv_heads * s.head_dim;
      for (int64_t layer = 0; layer < s.n_layers; ++layer)
        storage.write(layer, step.tables[b][static_cast<size_t>(done / s.page_tokens)], 0,
                      {k.data() + at, Dtype::kF32, {n_slots, s.n_kv_heads, s.head_dim}},
                      {v.data() + at, Dtype::kF32, {n_slots, s.n_kv_heads, s.head_dim}});
    }
  }
}

/// Cosines and sines [n_rows, rope_dim] of a rotation, the same for every backend: any will do.
inline std::vector<float> some_angles(int64_t n_rows, int64_t rope_dim) {
  const int64_t half = rope_dim / 2;
  std::vector<float> turns;
  for (int64_t row = 0; row < n_rows; ++row)
    for (int64_t i = 0; i < rope_dim; ++i) {
      const double angle = 0.37 * static_cast<double>((row + 1) * (i % half + 1));
      turns.push_back(static_cast<float>(i < half ? std::cos(angle) : std::sin(angle)));
    }
  return turns;
}

inline std::unique_ptr<KvStorage> make_storage(Backend& backend, KvShape shape, int64_t n_pages) {
  shape.max_pages = std::max<int64_t>(n_pages, 1);
  auto storage = backend.make_kv_storage(shape);
  storage->commit(shape.max_pages);
  poison(*storage, shape.max_pages);
  return storage;
}

}  // namespace minillm::test
