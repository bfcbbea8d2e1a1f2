#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "io/printable.h"
#include "minillm/error.h"
#include "text/hash.h"
#include "text/utf8.h"

namespace minillm {
namespace {

struct ByteAlphabet {
  std::array<char32_t, 256> code;
  std::array<int16_t, 512> byte;  ///< -1: no byte is written so.

  ByteAlphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (size_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      code[b] = printable ? static_cast<char32_t>(b) : next++;
      byte[code[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

std::string byte_level_bytes(std::string_view piece) {
  std::string out;
  for (size_t at = 0; at < piece.size();) {
    const Utf8Char c = decode_utf8(piece, at);
    const int16_t byte = c.valid && c.code < 512 ? byte_alphabet().byte[c.code] : int16_t{-1};
    if (byte < 0) return std::string(piece);
    out.push_back(static_cast<char>(static_cast<uint8_t>(byte)));
    at += c.size;
  }
  return out;
}

std::string byte_level_piece(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, byte_alphabet().code[static_cast<uint8_t>(byte)]);
  return out;
}

Bpe::Bpe(const Vocab& vocab, const std::vector<std::pair<std::string, std::string>>& merges, const BpeOptions& options)
    : vocab_(&vocab), options_(options) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (size_t b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(static_cast<uint8_t>(b));
    const std::string fallback = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
    byte_tokens_[b] = vocab.find(options.byte_level ? byte_level_piece({&byte, 1}) : fallback);
  }
  slots_.resize(std::bit_ceil(2 * merges.size() + 1));
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    joined.assign(left).append(right);
    const TokenId a = vocab.find(left), b = vocab.find(right), id = vocab.find(joined);
    if (a == kNoToken || b == kNoToken || id == kNoToken)
      throw Error(ErrorCode::kCorruptFile, "merge ", rank, " joins ", printable(left), " and ", printable(right), ": ",
                  printable(a == kNoToken   ? left
                            : b == kNoToken ? right
                                            : joined),
                  " is not in the vocabulary");
    add_merge(a, b, {static_cast<uint32_t>(rank), id});
    words_.add_piece(joined);
  }
  const bool all_bytes = std::find(byte_tokens_.begin(), byte_tokens_.end(), kNoToken) == byte_tokens_.end();
  if (options.ignore_merges || (options.fuse_unknown && !(options.byte_fallback && all_bytes))) words_.never_cut();
}

void Bpe::add_merge(TokenId left, TokenId right, Merge merge) {
  const uint64_t pair = (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  size_t slot = mix_bits(pair) & (slots_.size() - 1);
  while (slots_[slot].pair != UINT64_MAX && slots_[slot].pair != pair) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = {pair, merge};  // Of two equal merges the later counts, as in Hugging Face's table.
}

Merge Bpe::find(TokenId left, TokenId right) const noexcept {
  const uint64_t pair = (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  for (size_t slot = mix_bits(pair) & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot].pair == pair) return slots_[slot].merge;
    if (slots_[slot].pair == UINT64_MAX) return {};
  }
}

uint32_t Bpe::add_bytes(std::string_view word, SymbolRun& run) const {
  bool after_unknown = false;
  for (const char c : word) {
    const TokenId id = byte_tokens_[static_cast<uint8_t>(c)];
    if (id != kNoToken)
      run.add(id, 1);
    else if (options_.unknown != kNoToken && !(options_.fuse_unknown && after_unknown))
      run.add(options_.unknown, 1);  // Without an unknown token the byte is dropped, and its neighbours may join.
    after_unknown = id == kNoToken;
  }
  return static_cast<uint32_t>(run.ids.size());
}

uint32_t Bpe::add_characters(std::string_view word, SymbolRun& run) const {
  uint32_t n = 0;
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const uint32_t size = decode_utf8(word, at).size;
    const std::string_view character = word.substr(at, size);
    at += size;
    TokenId id = vocab_->find(character);
    bool bytes = id == kNoToken && options_.byte_fallback;
    for (const char c : character) bytes = bytes && byte_tokens_[static_cast<uint8_t>(c)] != kNoToken;
    const bool unknown = id == kNoToken && !bytes;
    if (bytes) {
      for (const char c : character) run.add(byte_tokens_[static_cast<uint8_t>(c)], 1), ++n;
    } else if (!unknown) {
      run.add(id, size), ++n;
    } else if (options_.unknown != kNoToken && !(options_.fuse_unknown && after_unknown)) {
      run.add(options_.unknown, 1), ++n;
    }
    after_unknown = unknown;
  }
  return n;
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const {
  if (options_.byte_level) return encode_cached(word, out, scratch);
  words_.for_each(word, [&](std::string_view part) { encode_cached(part, out, scratch); });
}

void Bpe::encode_cached(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const {
  if (scratch.cache.copy(word, out)) return;
  const size_t begin = out.size();
  encode_word(word, out, scratch);
  scratch.cache.store(word, begin, out);
}

void Bpe::encode_word(std::string_view word, std::vector<TokenId>& out, EncodeScratch& scratch) const {
  if (options_.ignore_merges) {
    const TokenId id = vocab_->find(options_.byte_level ? byte_level_piece(word) : std::string(word));
    if (id != kNoToken) {
      out.push_back(id);
      return;
    }
  }
  SymbolRun& run = scratch.run;
  run.clear();
  const uint32_t n = options_.byte_level ? add_bytes(word, run) : add_characters(word, run);
  merge_symbols(scratch, n, [this](uint32_t, TokenId left, uint32_t, TokenId right, uint32_t) { return find(left, right); });
  for (size_t at = 0; at < run.ids.size(); at += run.spans[at]) out.push_back(run.ids[at]);
}

}  // namespace minillm
