// kv_storage_test.cpp - pages of the CPU: what is written is read back rounded once, nothing else is touched, memory comes and goes.
#include <gtest/gtest.h>

#include <sys/mman.h>

#include "attention_support.h"
#include "base/half.h"

namespace minillm::test {
namespace {

using cpu::CpuKvStorage;

struct Kind {
  std::string isa;
  Dtype dtype;
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (const std::string& isa : isas_here())
    for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kF8}) all.push_back({isa, dtype});
  return all;
}

class KvStorageTypes : public ::testing::TestWithParam<Kind> {};

TEST_P(KvStorageTypes, ReadsBackWhatWasWrittenRoundedOnce) {
  const auto& [isa, dtype] = GetParam();
  for (const int64_t width : {2, 6, 58, 64}) {
    CpuKvStorage kv({.n_layers = 2, .n_kv_heads = 3, .head_dim = width, .page_tokens = 48, .max_pages = 4, .dtype = dtype},
                    cpu::attention_kernels_of(isa));
    kv.commit(4);
    std::vector<float> k = randn(1, 20 * 3 * width), v = randn(2, 20 * 3 * width), k_read(k.size()), v_read(v.size());
    k[0] = 1e-7f, k[1] = 70000.0f, v[0] = -0.0f, v[1] = 65519.0f;  // Subnormal half, too large for it, and just small enough.
    const std::initializer_list<int64_t> shape{20, 3, width};
    kv.write(1, 2, 28, {k.data(), Dtype::kF32, shape}, {v.data(), Dtype::kF32, shape});
    kv.read(1, 2, 28, {k_read.data(), Dtype::kF32, shape}, {v_read.data(), Dtype::kF32, shape});
    round_to(dtype, k);
    round_to(dtype, v);
    EXPECT_TRUE(same_bits(k_read, k)) << "D " << width;
    EXPECT_TRUE(same_bits(v_read, v)) << "D " << width;
  }
}

TEST_P(KvStorageTypes, EveryRoundingIsTheNearestEven) {
  const auto& [isa, dtype] = GetParam();
  const cpu::AttentionKernels& kernels = cpu::attention_kernels_of(isa);
  const auto element = static_cast<size_t>(cpu::kv_element(dtype));
  Random random(3);
  std::vector<float> from(4096), back(4096), want;
  for (float& x : from) x = std::bit_cast<float>(static_cast<uint32_t>(random.bits()));
  const float edges[] = {0x1p-24f,  0x1.8p-24f, 0x1p-25f,        0x1.000002p-25f, 65504.0f,
                         65520.0f,  1.0009765f, 1.00048828125f,  1.00146484375f,  std::numeric_limits<float>::infinity(),
                         0x1.01p0f, 0x1.03p0f,  0x1.FFFFFEp127f, 448.0f,          464.0f,
                         465.0f,    0x1p-9f,    0x1p-10f,        0x1.8p-9f,       0x1.1p0f,
                         0x1.3p0f,  -0x1.Fp-7f};
  for (size_t i = 32; i < 1024; ++i) from[i] = static_cast<float>(std::ldexp(random.normal(), static_cast<int>(i % 24) - 13));
  std::copy(std::begin(edges), std::end(edges), from.begin());
  want = from;
  round_to(dtype, want);
  std::vector<float> stored(4096);
  kernels.narrow[element](stored.data(), from.data(), 4096);
  kernels.widen[element](back.data(), stored.data(), 4096);
  for (size_t i = 0; i < from.size(); ++i)
    EXPECT_TRUE(std::isnan(want[i]) ? std::isnan(back[i]) : back[i] == want[i])
        << from[i] << " became " << back[i] << ", expected " << want[i];
}

TEST_P(KvStorageTypes, OneTokenTouchesNothingElse) {
  const auto& [isa, dtype] = GetParam();
  const AttentionParams p{.n_heads = 2, .n_kv_heads = 2, .head_dim = 10};
  TestCache cache(cpu::attention_kernels_of(isa), p, dtype, 32, {64});
  const std::vector<float> one = randn(1, 20);
  cache.write(0, one, one, 0, 1);
  std::vector<float> k(32 * 20), v(32 * 20);
  cache.storage->read(0, cache.tables[0][0], 0, {k.data(), Dtype::kF32, {32, 2, 10}}, {v.data(), Dtype::kF32, {32, 2, 10}});
  for (size_t i = 0; i < k.size(); ++i) {
    EXPECT_EQ(std::isnan(k[i]), i >= 20) << i;
    EXPECT_EQ(std::isnan(v[i]), i >= 20) << i;
  }
}

TEST_P(KvStorageTypes, CopiedPageIsEqualInEveryLayer) {
  const auto& [isa, dtype] = GetParam();
  CpuKvStorage kv({.n_layers = 3, .n_kv_heads = 1, .head_dim = 8, .page_tokens = 16, .max_pages = 2, .dtype = dtype},
                  cpu::attention_kernels_of(isa));
  kv.commit(2);
  for (int64_t layer = 0; layer < 3; ++layer) {
    const std::vector<float> k = randn(static_cast<uint64_t>(layer), 16 * 8), v = randn(9 + static_cast<uint64_t>(layer), 16 * 8);
    kv.write(layer, 1, 0, {k.data(), Dtype::kF32, {16, 1, 8}}, {v.data(), Dtype::kF32, {16, 1, 8}});
  }
  kv.copy_page(1, 0);
  for (int64_t layer = 0; layer < 3; ++layer) {
    std::vector<float> k[2], v[2];
    for (int32_t page : {0, 1}) {
      k[page].resize(16 * 8), v[page].resize(16 * 8);
      kv.read(layer, page, 0, {k[page].data(), Dtype::kF32, {16, 1, 8}}, {v[page].data(), Dtype::kF32, {16, 1, 8}});
    }
    EXPECT_EQ(k[0], k[1]);
    EXPECT_EQ(v[0], v[1]);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, KvStorageTypes, ::testing::ValuesIn(kinds()),
                         [](const auto& test) { return test.param.isa + "_" + std::string(name_of(test.param.dtype)); });

const cpu::AttentionKernels& any_kernels() { return cpu::attention_kernels_of("scalar"); }

/// System pages of [data, data + bytes) that hold memory.
size_t resident_pages(const void* data, size_t bytes) {
  std::vector<unsigned char> in_memory((bytes + 4095) / 4096);
  if (mincore(const_cast<void*>(data), bytes, in_memory.data()) != 0) return 0;
  return static_cast<size_t>(std::count_if(in_memory.begin(), in_memory.end(), [](unsigned char c) { return (c & 1) != 0; }));
}

TEST(KvStorage, CommittedBytesAreCountedAndReleasedMemoryGoesBack) {
  const KvShape shape{
      .n_layers = 2, .n_kv_heads = 4, .head_dim = 64, .page_tokens = 64, .max_pages = int64_t{1} << 20, .dtype = Dtype::kF16};
  CpuKvStorage kv(shape, any_kernels());  // 128 GiB of addresses.
  EXPECT_EQ(kv.bytes(), 0);
  kv.commit(64);
  EXPECT_EQ(kv.bytes(), 64 * shape.page_bytes());
  const void* base = kv.keys_of(0, 0, 0);
  const size_t bytes = static_cast<size_t>(kv.bytes());
  std::memset(const_cast<void*>(base), 1, bytes);
  EXPECT_EQ(resident_pages(base, bytes), bytes / 4096);
  kv.commit(16);
  EXPECT_EQ(kv.bytes(), 16 * shape.page_bytes());
  EXPECT_EQ(kv.keys_of(0, 0, 0), base);
  EXPECT_EQ(resident_pages(base, bytes), bytes / 4096 / 4);
  kv.commit(64);
  std::memset(const_cast<void*>(base), 1, bytes);
  kv.commit(0);
  EXPECT_EQ(kv.bytes(), 0);
}

TEST(KvStorage, RefusesWhatItCannotHold) {
  const KvShape good{.n_layers = 1, .n_kv_heads = 1, .head_dim = 8, .page_tokens = 16, .max_pages = 4, .dtype = Dtype::kF16};
  const auto code_of = [&](auto change) {
    KvShape shape = good;
    change(shape);
    try {
      const CpuKvStorage kv(shape, any_kernels());
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kInternal;
  };
  const auto refused = ErrorCode::kInvalidArgument;
  EXPECT_EQ(code_of([](KvShape& s) { s.n_layers = 0; }), refused);
  EXPECT_EQ(code_of([](KvShape& s) { s.n_kv_heads = 0; }), refused);
  EXPECT_EQ(code_of([](KvShape& s) { s.head_dim = 7; }), refused);
  EXPECT_EQ(code_of([](KvShape& s) { s.page_tokens = 24; }), refused);
  EXPECT_EQ(code_of([](KvShape& s) { s.page_tokens = 2048; }), refused);
  EXPECT_EQ(code_of([](KvShape& s) { s.max_pages = -1; }), refused);
  EXPECT_EQ(code_of([](KvShape& s) { s.dtype = Dtype::kQ8_0; }), refused);
  EXPECT_EQ(code_of([](KvShape& s) { s.max_pages = INT32_MAX, s.n_layers = 65536, s.n_kv_heads = 65536; }), ErrorCode::kOutOfMemory);

  CpuKvStorage kv(good, any_kernels());
  kv.commit(2);
  EXPECT_THROW(kv.commit(5), Error);
  EXPECT_THROW(kv.commit(-1), Error);
  EXPECT_EQ(kv.committed_pages(), 2);
  std::vector<float> x(17 * 8);
  const auto view = [&](int64_t n) { return TensorView{x.data(), Dtype::kF32, {n, 1, 8}}; };
  EXPECT_THROW(kv.write(0, 2, 0, view(1), view(1)), Error);    // Not committed.
  EXPECT_THROW(kv.write(1, 0, 0, view(1), view(1)), Error);    // No such layer.
  EXPECT_THROW(kv.write(0, 0, 0, view(17), view(17)), Error);  // Longer than the page.
  EXPECT_THROW(kv.read(0, -1, 0, view(1), view(1)), Error);
  EXPECT_THROW(kv.write(0, 0, 0, view(2), view(1)), Error);
  EXPECT_THROW(kv.copy_page(0, 3), Error);
}

TEST(KvStorage, AnEmptyOneIsAllowed) {
  CpuKvStorage kv({.n_layers = 1, .n_kv_heads = 1, .head_dim = 8, .page_tokens = 16, .max_pages = 0, .dtype = Dtype::kF32}, any_kernels());
  kv.commit(0);
  EXPECT_EQ(kv.bytes(), 0);
}

}  // namespace
}  // namespace minillm::test
