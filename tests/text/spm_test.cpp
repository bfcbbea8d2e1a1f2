// spm_test.cpp - SentencePiece's BPE against the textbook loop over the whole text at once.
#include "text/spm.h"

#include <gtest/gtest.h>

#include <map>

#include "support/expect_error.h"
#include "text/tokenizer_support.h"
#include "text/utf8.h"

namespace minillm {
namespace {

using test::Random;

std::vector<TokenId> encode(const Spm& spm, std::string_view text) {
  EncodeScratch scratch;
  scratch.cache.start(text.size());
  std::vector<TokenId> ids;
  spm.encode(text, ids, scratch);
  return ids;
}

/// A vocabulary of the 256 bytes and `pieces`, scored as `scores` says.
struct Model {
  std::vector<std::string> pieces;
  std::vector<TokenKind> kinds;
  std::vector<double> scores;

  explicit Model(const std::vector<std::pair<std::string, double>>& normal) {
    for (int b = 0; b < 256; ++b) {
      char piece[7];
      std::snprintf(piece, sizeof(piece), "<0x%02X>", static_cast<unsigned>(b));
      add(piece, 0, TokenKind::kByte);
    }
    for (const auto& [piece, score] : normal) add(piece, score, TokenKind::kNormal);
  }
  void add(const std::string& piece, double score, TokenKind kind) {
    pieces.push_back(piece), scores.push_back(score), kinds.push_back(kind);
  }
  Vocab vocab() const { return Vocab(pieces, kinds); }
};

/// Joins the best pair of the whole text, again and again; then bytes for what is no piece.
std::vector<TokenId> textbook(const Model& model, std::string_view text) {
  const Vocab vocab = model.vocab();
  std::vector<std::string> symbols;
  for (size_t at = 0; at < text.size();) {
    const uint32_t size = decode_utf8(text, at).size;
    symbols.emplace_back(text.substr(at, size));
    at += size;
  }
  for (;;) {
    double best = -1e30;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const TokenId id = vocab.find(symbols[i] + symbols[i + 1]);
      if (id >= 0 && vocab.kind(id) == TokenKind::kNormal && model.scores[static_cast<size_t>(id)] > best)
        best = model.scores[static_cast<size_t>(id)], at = i;
    }
    if (best == -1e30) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& symbol : symbols) {
    if (const TokenId id = vocab.find(symbol); id >= 0 && vocab.kind(id) == TokenKind::kNormal)
      ids.push_back(id);
    else
      for (const char c : symbol) ids.push_back(static_cast<uint8_t>(c));
  }
  return ids;
}

TEST(Spm, JoinsAsTheTextbookDoesAlsoAcrossSpaces) {
  const std::vector<std::string> alphabet = {"a", "b", "\u2581", ">", "\u00E9", "\u4E2D"};
  for (uint64_t seed = 0; seed < 30; ++seed) {
    Random random(seed);
    std::vector<std::pair<std::string, double>> normal;
    std::map<std::string, bool> seen;
    for (int i = 0; i < 60; ++i) {
      std::string piece;
      for (int64_t n = 1 + random.below(4); n > 0; --n) piece += alphabet[static_cast<size_t>(random.below(6))];
      // Every other model has no piece with a space inside, so that words are cut there; equal scores are common.
      if (seed % 2 == 0 && piece.find("\u2581", 1) != std::string::npos) continue;
      if (!seen[piece]) normal.emplace_back(piece, -static_cast<double>(random.below(12)));
      seen[piece] = true;
    }
    const Model model(normal);
    const Vocab vocab = model.vocab();
    const Spm spm(vocab, model.scores, kNoToken);
    for (int64_t size : {0, 1, 2, 5, 12, 31, 33, 60, 200}) {
      std::string text;
      for (int64_t i = 0; i < size; ++i) text += alphabet[static_cast<size_t>(random.below(6))];
      EXPECT_EQ(encode(spm, text), textbook(model, text)) << seed << " " << text;
    }
  }
}

TEST(Spm, UserDefinedPiecesAreCutOutLongestFirstAndJoinNothing) {
  Model model({{"a", -1},
               {"\u2581", -2},
               {"\u2581"
                "a",
                -3},
               {"b", -4}});
  model.add("  ", 0, TokenKind::kUserDefined);  // As GGUF writes it; in the text the spaces are marked.
  model.add("   ", 0, TokenKind::kUserDefined);
  model.add("b\n", 0, TokenKind::kUserDefined);
  const Vocab vocab = model.vocab();
  const Spm spm(vocab, model.scores, kNoToken);
  const TokenId a = 256, space_a = 258, b = 259, two = 260, three = 261, b_line = 262;
  EXPECT_EQ(encode(spm,
                   "a\u2581\u2581\u2581\u2581\u2581"
                   "a"),
            (std::vector<TokenId>{a, three, two, a}));
  EXPECT_EQ(encode(spm,
                   "\u2581\u2581\u2581\u2581"
                   "a"),
            (std::vector<TokenId>{three, space_a}));
  EXPECT_EQ(encode(spm, "b\nb"), (std::vector<TokenId>{b_line, b}));
}

TEST(Spm, ControlPiecesAreNeverMadeFromText) {
  Model model({{"<", -1}, {"s", -2}, {">", -3}, {"<s", -4}});
  model.add("<s>", 0, TokenKind::kControl);
  const Vocab vocab = model.vocab();
  const Spm spm(vocab, model.scores, kNoToken);
  EXPECT_EQ(encode(spm, "<s>"), (std::vector<TokenId>{259, 258}));
}

TEST(Spm, UnusedPiecesAreJoinedThroughAndTakenApartAgain) {
  Model model({{"a", -1}, {"b", -2}, {"c", -3}, {"abc", -5}});
  model.add("ab", -4, TokenKind::kUnused);
  const Vocab vocab = model.vocab();
  const Spm spm(vocab, model.scores, kNoToken);
  EXPECT_EQ(encode(spm, "abc"), (std::vector<TokenId>{259}));
  EXPECT_EQ(encode(spm, "abab"), (std::vector<TokenId>{256, 257, 256, 257}));
}

TEST(Spm, WithoutByteTokensARunOfUnknownCharactersIsOneUnknownToken) {
  const Vocab vocab({"<unk>", "a", "\u2581"}, {TokenKind::kUnknown, TokenKind::kNormal, TokenKind::kNormal});
  const Spm spm(vocab, {0, -1, -2}, 0);
  EXPECT_EQ(encode(spm, "xyza\u2581zz"), (std::vector<TokenId>{0, 1, 2, 0}));
}

TEST(Spm, WrongScoresAndMissingFallbackAreRefused) {
  const Vocab vocab({"a"}, {TokenKind::kNormal});
  test::expect_error(ErrorCode::kCorruptFile, "1 tokens has 2 scores", [&] { Spm(vocab, {0, 0}, 0); });
  test::expect_error(ErrorCode::kCorruptFile, "neither all 256 byte tokens nor", [&] { Spm(vocab, {0}, kNoToken); });
  test::expect_error(ErrorCode::kCorruptFile, "score", [&] { Spm(vocab, {std::nan("")}, 0); });
}

}  // namespace
}  // namespace minillm
