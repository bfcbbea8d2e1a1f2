// saved_cache_test.cpp - a cache to a file and back with the same bits, and every damaged, cut, hostile or foreign file refused.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/crc64.h"
#include "kv/paged_cache.h"
#include "kv/tiny_cache.h"
#include "support/expect_error.h"
#include "support/temp_folder.h"

namespace minillm {
namespace {

using namespace test;

const std::string kModel(64, 'f');

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Rows of 70, 0 and 7 tokens: pages and runs of the file end at different places.
KVCache ragged_cache(Dtype dtype, int64_t page_tokens = 16) {
  KVCache cache(tiny_config(), {.batch_size = 1, .device = kReference, .dtype = dtype, .page_tokens = page_tokens});
  for (int64_t layer = 0; layer < kLayers; ++layer)
    cache.update(random_tensor(static_cast<uint64_t>(layer) + 1, {1, kHeads, 70, kDim}),
                 random_tensor(static_cast<uint64_t>(layer) + 9, {1, kHeads, 70, kDim}), layer);
  cache.batch_repeat_interleave(3);
  cache.paged().truncate(1, 0);
  cache.paged().truncate(2, 7);
  return cache;
}

void expect_same(const KVCache& a, const KVCache& b) {
  ASSERT_EQ(a.lengths(), b.lengths());
  EXPECT_EQ(a.dtype(), b.dtype());
  for (int64_t layer = 0; layer < kLayers; ++layer)
    for (int64_t row = 0; row < a.batch_size(); ++row) {
      const auto left = a.read(layer, row), right = b.read(layer, row);
      EXPECT_EQ(std::memcmp(left.first.data(), right.first.data(), left.first.bytes()), 0) << layer << " " << row;
      EXPECT_EQ(std::memcmp(left.second.data(), right.second.data(), left.second.bytes()), 0) << layer << " " << row;
    }
}

TEST(SavedCache, ComesBackWithTheSameBitsInEveryDtypeAndPageSize) {
  const TempFolder folder;
  for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16, Dtype::kF8})
    for (const int64_t page_tokens : {16, 64, 112}) {
      const KVCache cache = ragged_cache(dtype);
      cache.save(folder / "cache", kModel, "three rows");
      const SavedCache saved = KVCache::load(folder / "cache", tiny_config(), kModel, {.device = kReference, .page_tokens = page_tokens});
      EXPECT_EQ(saved.attachment, "three rows");
      expect_same(cache, saved.cache);
    }
}

TEST(SavedCache, KeepsInfinitiesNanAndSignedZero) {
  const TempFolder folder;
  KVCache cache(tiny_config(), {.device = kReference, .dtype = Dtype::kF16});
  Tensor k({1, kHeads, 1, kDim});
  const float inf = std::numeric_limits<float>::infinity();
  k.values<float>()[0] = inf, k.values<float>()[1] = -inf, k.values<float>()[2] = -0.0f, k.values<float>()[3] = std::nanf("");
  for (int64_t layer = 0; layer < kLayers; ++layer) cache.update(k, k, layer);
  cache.save(folder / "cache", "");
  const KVCache loaded = KVCache::load(folder / "cache", tiny_config(), "", {.device = kReference}).cache;
  const auto values = loaded.read(0, 0).first;
  EXPECT_EQ(values.values<float>()[0], inf);
  EXPECT_EQ(values.values<float>()[1], -inf);
  EXPECT_TRUE(std::signbit(values.values<float>()[2]));
  EXPECT_TRUE(std::isnan(values.values<float>()[3]));
}

TEST(SavedCache, AnEmptyCacheAndAnyAttachmentAreSaved) {
  const TempFolder folder;
  const std::string bytes("\0\xff\n\r\n", 5);
  KVCache(tiny_config(), {.device = kReference}).save(folder / "cache", kModel, bytes);
  const SavedCache saved = KVCache::load(folder / "cache", tiny_config(), kModel, {.device = kReference});
  EXPECT_EQ(saved.attachment, bytes);
  EXPECT_EQ(saved.cache.lengths(), std::vector<int64_t>{0});
}

TEST(SavedCache, EveryFlippedByteIsRefused) {
  const TempFolder folder;
  const std::string path = folder / "cache";
  ragged_cache(Dtype::kF16).save(path, kModel, "attachment");
  const std::string whole = bytes_of(path);
  size_t n_tried = 0;
  for (size_t at = 0; at < whole.size(); at += at < 200 ? 1 : 37) {  // The header, the lengths and the attachment; then a sample.
    for (const char bit : {'\x01', '\x80'}) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ bit);
      folder.write("damaged", damaged);
      expect_error(ErrorCode::kCorruptFile, "damaged",
                   [&] { KVCache::load(folder / "damaged", tiny_config(), kModel, {.device = kReference}); });
      ++n_tried;
    }
  }
  EXPECT_GT(n_tried, 500u);
}

TEST(SavedCache, ACutOrLengthenedFileIsRefused) {
  const TempFolder folder;
  ragged_cache(Dtype::kF16).save(folder / "cache", kModel, "attachment");
  const std::string whole = bytes_of(folder / "cache");
  for (size_t n = 0; n < whole.size(); n += n < 300 ? 1 : 101) {
    folder.write("cut", whole.substr(0, n));
    expect_error(ErrorCode::kCorruptFile, "cut", [&] { KVCache::load(folder / "cut", tiny_config(), kModel, {.device = kReference}); });
  }
  folder.write("long", whole + "x");
  expect_error(ErrorCode::kCorruptFile, "behind the header", [&] { KVCache::load(folder / "long", tiny_config(), kModel); });
}

/// Overwrites a field and makes both checksums right again: what a hostile writer can do.
std::string forged(std::string file, size_t at, uint64_t value, size_t bytes) {
  std::memcpy(file.data() + at, &value, bytes);
  Crc64 body, header;
  body.update(std::as_bytes(std::span(file)).subspan(128));
  const uint64_t body_crc = body.value();
  std::memcpy(file.data() + 112, &body_crc, 8);
  header.update(std::as_bytes(std::span(file)).first(120));
  const uint64_t header_crc = header.value();
  std::memcpy(file.data() + 120, &header_crc, 8);
  return file;
}

TEST(SavedCache, HostileNumbersAreRefusedBeforeMemoryIsTaken) {
  const TempFolder folder;
  ragged_cache(Dtype::kF16).save(folder / "cache", kModel, "attachment");
  const std::string whole = bytes_of(folder / "cache");
  struct Case {
    const char* name;
    size_t at;
    uint64_t value;
    size_t bytes;
    ErrorCode code;
    const char* words;
  };
  const Case cases[] = {
      {"Version", 8, 2, 4, ErrorCode::kUnsupported, "version 2, expected 1"},
      {"Dtype", 12, 4, 4, ErrorCode::kUnsupported, "dtype 4"},
      {"OtherDtype", 12, 0, 4, ErrorCode::kCorruptFile, "do not add up"},
      {"Layers", 80, 2, 4, ErrorCode::kInvalidArgument, "another model: 2 layers"},
      {"Heads", 84, 0xFFFFFFFF, 4, ErrorCode::kInvalidArgument, "another model"},
      {"Width", 88, 0, 4, ErrorCode::kInvalidArgument, "another model"},
      {"NoRows", 92, 0, 4, ErrorCode::kCorruptFile, "0 rows"},
      {"ManyRows", 92, 0xFFFFFFFF, 4, ErrorCode::kCorruptFile, "4294967295 rows"},
      {"Attachment", 96, ~uint64_t{0}, 8, ErrorCode::kCorruptFile, "do not add up"},
      {"Body", 104, ~uint64_t{0}, 8, ErrorCode::kCorruptFile, "behind the header"},
      {"LongRow", 128, uint64_t{1} << 62, 8, ErrorCode::kCorruptFile, "do not add up"},
      {"LongestRow", 128, ~uint64_t{0}, 8, ErrorCode::kCorruptFile, "do not add up"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    folder.write("forged", forged(whole, c.at, c.value, c.bytes));
    expect_error(c.code, c.words, [&] { KVCache::load(folder / "forged", tiny_config(), kModel, {.device = kReference}); });
  }
}

TEST(SavedCache, AnotherModelsCacheIsRefused) {
  const TempFolder folder;
  const std::string path = folder / "cache";
  ragged_cache(Dtype::kF16).save(path, kModel);
  const auto load = [&](const ModelConfig& config, const std::string& fingerprint, const KVCacheOptions& options) {
    return [&path, config, fingerprint, options] { KVCache::load(path, config, fingerprint, options); };
  };
  expect_error(ErrorCode::kInvalidArgument, "fingerprints differ", load(tiny_config(), std::string(64, 'e'), {.device = kReference}));
  ModelConfig wider = tiny_config();
  wider.n_kv_heads = 4;
  expect_error(ErrorCode::kInvalidArgument, "another model", load(wider, kModel, {.device = kReference}));
  expect_error(ErrorCode::kInvalidArgument, "saved as f16", load(tiny_config(), kModel, {.device = kReference, .dtype = Dtype::kF32}));
  expect_error(ErrorCode::kCapacity, "at most 64", load(tiny_config(64), kModel, {.device = kReference}));
  expect_error(ErrorCode::kNotFound, "cannot open", [&] { KVCache::load(folder / "nothing", tiny_config(), kModel); });
  expect_error(ErrorCode::kCorruptFile, "not a file", [&] { KVCache::load(folder.path(), tiny_config(), kModel); });
  expect_error(ErrorCode::kInvalidArgument, "65 characters", [&] { KVCache::load(path, tiny_config(), std::string(65, 'x')); });
}

TEST(SavedCache, AFailedSaveLeavesTheOldFileAndNothingElse) {
  const TempFolder folder;
  const std::string path = folder / "cache";
  const KVCache cache = ragged_cache(Dtype::kF16);
  cache.save(path, kModel, "old");
  const std::string old = bytes_of(path);
  KVCache uneven(tiny_config(), {.device = kReference});
  uneven.update(random_tensor(1, {1, kHeads, 3, kDim}), random_tensor(2, {1, kHeads, 3, kDim}), 0);
  expect_error(ErrorCode::kInvalidArgument, "layer 1 holds 0 tokens", [&] { uneven.save(path, kModel); });
  expect_error(ErrorCode::kDevice, "cannot save", [&] { cache.save(folder / "no/such/folder", kModel); });
  ASSERT_EQ(::mkdir((folder / "taken").c_str(), 0700), 0);
  expect_error(ErrorCode::kDevice, "rename", [&] { cache.save(folder / "taken", kModel); });  // A folder cannot be replaced.
  EXPECT_EQ(bytes_of(path), old);
  size_t n_files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++n_files;
  EXPECT_EQ(n_files, 2u);
}

}  // namespace
}  // namespace minillm
