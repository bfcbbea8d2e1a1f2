// bpe_test.cpp - byte-pair encoding against the textbook loop: join the lowest rank, leftmost first, until nothing joins.
#include "text/bpe.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "text/tokenizer_support.h"

namespace minillm {
namespace {

using test::Random;
using Merges = std::vector<std::pair<std::string, std::string>>;

std::vector<std::string> textbook(std::vector<std::string> symbols, const Merges& merges) {
  for (;;) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i)
      for (size_t rank = 0; rank < best; ++rank)
        if (merges[rank].first == symbols[i] && merges[rank].second == symbols[i + 1]) best = rank, at = i;
    if (best == merges.size()) return symbols;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::vector<std::string> pieces_of(const Vocab& vocab, const std::vector<TokenId>& ids) {
  std::vector<std::string> pieces;
  for (const TokenId id : ids) pieces.push_back(vocab.piece(id));
  return pieces;
}

std::vector<TokenId> encode(const Bpe& bpe, std::string_view word) {
  EncodeScratch scratch;
  std::vector<TokenId> ids;
  bpe.encode(word, ids, scratch);
  return ids;
}

struct RandomModel {
  std::vector<std::string> pieces = {"a", "b", "c"};
  Merges merges;
  explicit RandomModel(uint64_t seed) {
    Random random(seed);
    while (merges.size() < 40) {
      const auto pick = [&] { return pieces[static_cast<size_t>(random.below(static_cast<int64_t>(pieces.size())))]; };
      const std::string left = pick(), right = pick();
      if ((left + right).size() > 12 || std::find(merges.begin(), merges.end(), std::pair(left, right)) != merges.end()) continue;
      merges.emplace_back(left, right);
      if (std::find(pieces.begin(), pieces.end(), left + right) == pieces.end()) pieces.push_back(left + right);
    }
  }
  Vocab vocab() const { return Vocab(pieces, std::vector<TokenKind>(pieces.size(), TokenKind::kNormal)); }
};

TEST(Bpe, JoinsAsTheTextbookDoesInShortAndLongWords) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const RandomModel model(seed);
    const Vocab vocab = model.vocab();
    const Bpe bpe(vocab, model.merges, {});
    Random random(100 + seed);
    for (int64_t size : {0, 1, 2, 3, 7, 20, 31, 32, 33, 34, 60, 150}) {
      std::string word;
      std::vector<std::string> symbols;
      for (int64_t i = 0; i < size; ++i) {
        word += "abc"[random.below(3)];
        symbols.emplace_back(1, word.back());
      }
      EXPECT_EQ(pieces_of(vocab, encode(bpe, word)), textbook(symbols, model.merges)) << word;
    }
  }
}

TEST(Bpe, WordsThatRepeatInATextGiveTheSameFromTheCache) {
  const RandomModel model(3);
  const Vocab vocab = model.vocab();
  const Bpe bpe(vocab, model.merges, {});
  std::string text;
  for (int i = 0; i < 500; ++i) text += "abcacbbcaabcabca"[i % 16];
  EncodeScratch scratch;
  std::vector<TokenId> together, alone;
  scratch.cache.start(text.size());
  Random random(4);
  for (int i = 0; i < 2000; ++i) {
    const std::string_view word =
        std::string_view(text).substr(static_cast<size_t>(random.below(400)), static_cast<size_t>(1 + random.below(90)));
    bpe.encode(word, together, scratch);
    const std::vector<TokenId> ids = encode(bpe, word);
    alone.insert(alone.end(), ids.begin(), ids.end());
  }
  EXPECT_EQ(together, alone);
}

TEST(Bpe, ABytenotInTheVocabularyIsDroppedAndItsNeighboursJoin) {
  const Vocab vocab({"a", "b", "ab"}, std::vector<TokenKind>(3, TokenKind::kNormal));
  const Bpe bpe(vocab, {{"a", "b"}}, {});
  EXPECT_EQ(encode(bpe,
                   "a\x01"
                   "b"),
            (std::vector<TokenId>{2}));
  EXPECT_EQ(encode(bpe, "\x01"), std::vector<TokenId>());
}

TEST(Bpe, UnknownCharactersBecomeBytesOrOneUnknownToken) {
  std::vector<std::string> pieces = {"<unk>", "a", "<0xC3>", "<0xA9>"};
  const Vocab vocab(pieces, std::vector<TokenKind>(4, TokenKind::kNormal));
  const Bpe bytes(vocab, {}, {.byte_level = false, .byte_fallback = true, .fuse_unknown = true, .unknown = 0});
  EXPECT_EQ(encode(bytes, "a\u00E9a"), (std::vector<TokenId>{1, 2, 3, 1}));
  EXPECT_EQ(encode(bytes, "a\u4E2D\u4E2Da\u4E2D"), (std::vector<TokenId>{1, 0, 1, 0}));  // Not all its bytes have tokens.
  const Bpe unfused(vocab, {}, {.byte_level = false, .unknown = 0});
  EXPECT_EQ(encode(unfused, "\u4E2D\u4E2D"), (std::vector<TokenId>{0, 0}));
  const Bpe dropping(vocab, {}, {.byte_level = false});
  EXPECT_EQ(encode(dropping, "\u4E2Da"), (std::vector<TokenId>{1}));
}

TEST(Bpe, IgnoreMergesTakesAWordThatIsAPiece) {
  const Vocab vocab({"a", "b", "c", "ab", "abc"}, std::vector<TokenKind>(5, TokenKind::kNormal));
  const Merges merges = {{"a", "b"}};
  EXPECT_EQ(encode(Bpe(vocab, merges, {}), "abc"), (std::vector<TokenId>{3, 2}));
  EXPECT_EQ(encode(Bpe(vocab, merges, {.ignore_merges = true}), "abc"), (std::vector<TokenId>{4}));
}

TEST(Bpe, AMergeOfUnknownPiecesIsRefused) {
  const Vocab vocab({"a", "b"}, std::vector<TokenKind>(2, TokenKind::kNormal));
  test::expect_error(ErrorCode::kCorruptFile, "'ab' is not in the vocabulary", [&] { Bpe(vocab, {{"a", "b"}}, {}); });
  test::expect_error(ErrorCode::kCorruptFile, "'x\\x0a' is not in the vocabulary", [&] { Bpe(vocab, {{"x\n", "b"}}, {}); });
}

TEST(Bpe, ByteAlphabetGoesBothWays) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(static_cast<uint8_t>(b)));
  EXPECT_EQ(byte_level_bytes(byte_level_piece(bytes)), bytes);
  EXPECT_EQ(byte_level_piece(" the\n"), "\u0120the\u010A");
  EXPECT_EQ(byte_level_bytes("a b"), "a b");  // A space is no byte's character: not a byte-level piece.
}

TEST(Bpe, OneWordOfAMillionLettersTakesUnderTwoSeconds) {
  std::vector<std::string> pieces = {"a", "b"};
  Merges merges;
  for (int i = 0; i < 10; ++i) {  // "a" doubled again and again: the most joins that a word can have.
    merges.emplace_back(std::string(size_t{1} << i, 'a'), std::string(size_t{1} << i, 'a'));
    pieces.push_back(merges.back().first + merges.back().second);
  }
  const Vocab vocab(pieces, std::vector<TokenKind>(pieces.size(), TokenKind::kNormal));
  const Bpe bpe(vocab, merges, {});
  const double start = test::cpu_seconds();
  EXPECT_EQ(encode(bpe, std::string(1'000'000, 'a')).size(), 976u + 2u);  // 1,000,000 = 976 * 1024 + 512 + 64
  EXPECT_LT(test::cpu_seconds() - start, 2.0 * test::kSlow);
}

}  // namespace
}  // namespace minillm
