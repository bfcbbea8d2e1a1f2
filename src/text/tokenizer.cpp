#include "minillm/tokenizer.h"

#include <algorithm>

#include "io/mapped_file.h"
#include "minillm/error.h"
#include "text/tokenizer_components.h"
#include "text/utf8.h"
#include "text/utf8_stream.h"

namespace minillm {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 28;  // Positions are 32 bits, and a normalizer may lengthen a text 16 times.

/// Texts of the tokens that end a turn or a document, as the large families name them.
constexpr std::string_view kEndNames[] = {"<|im_end|>",
                                          "<end_of_turn>",
                                          "<|eot_id|>",
                                          "<|endoftext|>",
                                          "<|end_of_text|>",
                                          "<|end|>",
                                          "<|eom_id|>",
                                          "<|return|>",
                                          "<|call|>",
                                          "</s>",
                                          "<eos>",
                                          "<turn|>",
                                          "<EOT>",
                                          "_<EOT>",
                                          "<|endofturn|>",
                                          "<end_of_utterance>",
                                          "<|END_OF_TURN_TOKEN|>",
                                          "<｜end▁of▁sentence｜>"};

}  // namespace

TokenId Tokenizer::Impl::check(TokenId id) const {
  if (!vocab.contains(id)) throw Error(ErrorCode::kInvalidArgument, "token id ", id, " is outside the vocabulary of ", vocab.size());
  return id;
}

bool Tokenizer::Impl::is_special(TokenId id) const {
  return vocab.kind(id) == TokenKind::kControl || vocab.kind(id) == TokenKind::kUnknown;
}

std::string Tokenizer::Impl::bytes_of(TokenId id) const {
  const std::string& piece = vocab.piece(check(id));
  const TokenKind kind = vocab.kind(id);
  if (is_special(id)) return piece;
  if (style == PieceStyle::kByteLevel) return kind == TokenKind::kUserDefined ? piece : byte_level_bytes(piece);
  if (const int byte = kind == TokenKind::kByte ? byte_of_piece(piece) : -1; byte >= 0)
    return std::string(1, static_cast<char>(static_cast<uint8_t>(byte)));
  std::string out;
  for (size_t at = 0; at < piece.size();) {
    const size_t mark = std::min(piece.find(kSpaceMark, at), piece.size());
    out.append(piece, at, mark - at);
    if (mark < piece.size()) out.push_back(' ');
    at = mark + kSpaceMark.size();
  }
  return out;
}

void Tokenizer::Impl::finish() {
  for (const std::string_view name : kEndNames) {
    const TokenId id = vocab.find(name);
    // Gemma's "</s>" is the HTML tag: a user-defined token, and no end of anything.
    if (id != kNoToken && (is_special(id) || (vocab.kind(id) == TokenKind::kUserDefined && name != "</s>"))) end_tokens.push_back(id);
  }
  std::sort(end_tokens.begin(), end_tokens.end());
  end_tokens.erase(std::unique(end_tokens.begin(), end_tokens.end()), end_tokens.end());
  const auto* bpe = std::get_if<Bpe>(&model);
  for (size_t b = 0; bpe != nullptr && style == PieceStyle::kByteLevel && b < 256; ++b)
    if (bpe->byte_tokens()[b] == kNoToken) missing_bytes.push_back(static_cast<uint8_t>(b));
}

void Tokenizer::Impl::encode_words(std::string_view text, bool first, std::vector<TokenId>& out, EncodeScratch& scratch) const {
  std::string changed;
  if (!words_normalizer.empty()) text = changed = words_normalizer.apply(text);
  const bool leads = lead_where == LeadWhere::kAlways || (lead_where == LeadWhere::kFirst && first);
  if (leads && !text.starts_with(lead)) text = changed = lead + std::string(text);
  scratch.cache.start(text.size());
  const auto encode_word = [&](std::string_view word) {
    if (const auto* bpe = std::get_if<Bpe>(&model))
      bpe->encode(word, out, scratch);
    else
      std::get<Spm>(model).encode(word, out, scratch);
  };
  words.split(text, encode_word);
}

void Tokenizer::Impl::encode_segment(std::string_view text, bool first, bool with_special, std::vector<TokenId>& out,
                                     EncodeScratch& scratch) const {
  std::string normal;
  if (!normalizer.empty()) text = normal = normalizer.apply(text);
  if (!added.any_normalized()) return encode_words(text, first, out, scratch);
  for (const AddedTokens::Part& part : added.split(text, /*normalized=*/true, with_special)) {
    if (part.id == AddedTokens::Part::kNone)
      encode_words(part.text, first && part.text.data() == text.data(), out, scratch);
    else
      out.push_back(part.id);
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const std::string& path) {
  if (!path.ends_with(".json")) return from_source(*open_tensor_source(path));
  return Tokenizer(load_json_tokenizer(read_text_file(path, kMaxTokenizerJsonBytes), path, nullptr));
}

Tokenizer Tokenizer::from_source(const TensorSource& source) {
  if (source.tokenizer_json().empty()) return Tokenizer(load_gguf_tokenizer(source));
  return Tokenizer(load_json_tokenizer(source.tokenizer_json(), source.path() + ": tokenizer.json", &source));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::string repaired;
  if (find_invalid_utf8(text) < text.size()) text = repaired = replace_invalid_utf8(text);
  if (text.size() > kMaxTextBytes)
    throw Error(ErrorCode::kInvalidArgument, "a text of ", text.size(), " bytes; at most ", kMaxTextBytes, " can be encoded at once");
  std::vector<TokenId> out;
  EncodeScratch scratch;
  if (options.add_special_tokens) out = impl_->prefix;
  for (const AddedTokens::Part& part : impl_->added.split(text, /*normalized=*/false, options.parse_special_tokens)) {
    if (part.id == AddedTokens::Part::kNone)
      impl_->encode_segment(part.text, part.text.data() == text.data(), options.parse_special_tokens, out, scratch);
    else
      out.push_back(part.id);
  }
  if (options.add_special_tokens) out.insert(out.end(), impl_->suffix.begin(), impl_->suffix.end());
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, const DecodeOptions& options) const {
  std::string bytes;
  bool at_start = true;
  for (const TokenId id : ids) {
    if (options.skip_special_tokens && impl_->is_special(impl_->check(id))) continue;
    const std::string part = impl_->bytes_of(id);
    const bool strip = at_start && impl_->strip_leading_space && part.starts_with(' ');
    at_start = at_start && part.empty();
    bytes.append(part, strip ? 1 : 0);
  }
  return replace_invalid_utf8(bytes);
}

const std::string& Tokenizer::piece(TokenId id) const { return impl_->vocab.piece(impl_->check(id)); }
std::string Tokenizer::token_bytes(TokenId id) const { return impl_->bytes_of(id); }
std::optional<TokenId> Tokenizer::find(std::string_view piece) const {
  const TokenId id = impl_->vocab.find(piece);
  return id == kNoToken ? std::optional<TokenId>() : id;
}
bool Tokenizer::is_special(TokenId id) const { return impl_->is_special(impl_->check(id)); }
int64_t Tokenizer::vocab_size() const noexcept { return static_cast<int64_t>(impl_->vocab.size()); }
std::optional<TokenId> Tokenizer::bos() const noexcept { return impl_->bos; }
std::optional<TokenId> Tokenizer::eos() const noexcept { return impl_->eos; }
const std::vector<TokenId>& Tokenizer::end_tokens() const noexcept { return impl_->end_tokens; }
const std::vector<uint8_t>& Tokenizer::missing_bytes() const noexcept { return impl_->missing_bytes; }
const std::string& Tokenizer::chat_template() const noexcept { return impl_->chat_template; }

std::string StreamingDecoder::push(TokenId id) {
  const Tokenizer::Impl& impl = *tokenizer_->impl_;
  if (options_.skip_special_tokens && impl.is_special(impl.check(id))) return {};
  const std::string part = impl.bytes_of(id);
  const bool strip = at_start_ && impl.strip_leading_space && part.starts_with(' ');
  at_start_ = at_start_ && part.empty();
  pending_.append(part, strip ? 1 : 0);
  return take_complete_utf8(pending_);
}

std::string StreamingDecoder::flush() {
  std::string out = replace_invalid_utf8(pending_);
  pending_.clear();
  at_start_ = true;
  return out;
}

}  // namespace minillm
