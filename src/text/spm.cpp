#include "text/spm.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <unordered_map>

#include "minillm/error.h"
#include "text/utf8.h"

namespace minillm {
namespace {

/// Order of `score` turned round, as an integer: the highest score gives the lowest number. Never kNoMerge for a finite score.
uint32_t priority_of(float score) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 and 0 are the same score.
  return (bits & 0x80000000u) != 0 ? bits : ~(bits | 0x80000000u);
}

}  // namespace

Spm::Spm(const Vocab& vocab, const std::vector<double>& scores, TokenId unknown) : vocab_(&vocab), unknown_(unknown) {
  if (scores.size() != vocab.size())
    throw Error(ErrorCode::kCorruptFile, "vocabulary of ", vocab.size(), " tokens has ", scores.size(), " scores");
  byte_tokens_.fill(kNoToken);
  priorities_.assign(vocab.size(), kNoMerge);
  for (size_t i = 0; i < vocab.size(); ++i) {
    const TokenId id = static_cast<TokenId>(i);
    const std::string& piece = vocab.piece(id);
    const float score = static_cast<float>(scores[i]);
    if (!std::isfinite(score)) throw Error(ErrorCode::kCorruptFile, "token ", i, " has the score ", scores[i]);
    switch (vocab.kind(id)) {
      case TokenKind::kUserDefined: {
        std::string marked;
        for (const char c : piece) c == ' ' ? marked.append(kSpaceMark) : marked.append(1, c);
        if (!marked.empty()) user_defined_.add(marked, id);
        break;
      }
      case TokenKind::kByte: {
        if (const int byte = byte_of_piece(piece); byte >= 0) byte_tokens_[static_cast<size_t>(byte)] = id;
        break;
      }
      case TokenKind::kUnused:
        has_unused_ = true;
        [[fallthrough]];
      case TokenKind::kNormal:
        priorities_[i] = priority_of(score);
        words_.add_piece(piece);
        break;
      case TokenKind::kUnknown:
      case TokenKind::kControl:
        break;
    }
  }
  if (std::find(byte_tokens_.begin(), byte_tokens_.end(), kNoToken) == byte_tokens_.end()) return;
  if (unknown_ == kNoToken) throw Error(ErrorCode::kCorruptFile, "vocabulary has neither all 256 byte tokens nor an unknown token");
  words_.never_cut();  // Runs of unknown characters become one token, so words depend on each other.
}

Merge Spm::find(std::string_view joined) const noexcept {
  const TokenId id = vocab_->find(joined);
  return id == kNoToken ? Merge{} : Merge{priorities_[static_cast<size_t>(id)], id};
}

void Spm::add_symbol(std::string_view symbol, std::vector<TokenId>& out) const {
  const TokenId id = vocab_->find(symbol);
  if (id != kNoToken && priorities_[static_cast<size_t>(id)] != kNoMerge) {
    out.push_back(id);
    return;
  }
  bool bytes = true;
  for (const char c : symbol) bytes = bytes && byte_tokens_[static_cast<uint8_t>(c)] != kNoToken;
  if (bytes) {
    for (const char c : symbol) out.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
  } else if (out.empty() || out.back() != unknown_) {
    out.push_back(unknown_);  // A run of unknown characters is one token.
  }
}

void Spm::encode_word(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const {
  SymbolRun& run = scratch.run;
  run.clear();
  uint32_t n = 0;
  for (size_t at = 0; at < word.size(); ++n) {
    const uint32_t size = decode_utf8(word, at).size;
    run.add(kNoToken, size);
    at += size;
  }
  std::unordered_map<std::string_view, uint32_t> parted;  // Unused pieces met, with the size of their left part.
  merge_symbols(scratch, n, [&](uint32_t at, TokenId, uint32_t left, TokenId, uint32_t right) {
    const std::string_view joined = word.substr(at, left + right);
    const Merge merge = find(joined);
    if (has_unused_ && merge.priority != kNoMerge && vocab_->kind(merge.id) == TokenKind::kUnused) parted[joined] = left;
    return merge;
  });
  std::vector<std::string_view> stack;
  for (size_t at = 0; at < word.size(); at += run.spans[at]) {
    stack.push_back(word.substr(at, run.spans[at]));
    while (!stack.empty()) {
      const std::string_view symbol = stack.back();
      stack.pop_back();
      const auto parts = parted.find(symbol);
      if (parts == parted.end()) {
        add_symbol(symbol, out);
      } else {
        stack.push_back(symbol.substr(parts->second));
        stack.push_back(symbol.substr(0, parts->second));
      }
    }
  }
}

void Spm::encode_plain(std::string_view text, std::vector<TokenId>& out, EncodeScratch& scratch) const {
  words_.for_each(text, [&](std::string_view word) {
    if (scratch.cache.copy(word, out)) return;
    const size_t tokens = out.size();
    encode_word(word, out, scratch);
    scratch.cache.store(word, tokens, out);
  });
}

void Spm::encode(std::string_view text, std::vector<TokenId>& out, EncodeScratch& scratch) const {
  for (size_t at = 0; at < text.size();) {
    const Matcher::Match match = user_defined_.find(text, at);
    const size_t end = match.size > 0 ? match.begin : text.size();
    encode_plain(text.substr(at, end - at), out, scratch);
    if (match.size > 0) out.push_back(match.value);
    at = end + match.size;
  }
}

}  // namespace minillm
