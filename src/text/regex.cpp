#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "base/check.h"
#include "io/printable.h"
#include "minillm/error.h"

namespace minillm {
namespace {

// A good pattern gives back each character a few times at most; a hostile one passes any limit, once, and the call ends.
uint32_t match_limit(size_t text_bytes) { return static_cast<uint32_t>(std::min<size_t>(1'000'000 + 16 * text_bytes, UINT32_MAX)); }
constexpr uint32_t kDepthLimit = 100'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kJitStackBytes = size_t{1} << 20;
constexpr size_t kMaxPatternBytes = size_t{1} << 16;

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  const int size = pcre2_get_error_message(code, buffer, sizeof(buffer));
  return size < 0 ? "error " + std::to_string(code) : std::string(reinterpret_cast<const char*>(buffer), static_cast<size_t>(size));
}

}  // namespace

Regex::Regex(std::string pattern) : pattern_(std::move(pattern)) {
  if (pattern_.size() > kMaxPatternBytes)
    throw Error(ErrorCode::kCorruptFile, "pattern of ", pattern_.size(), " bytes; at most ", kMaxPatternBytes, " are accepted");
  int code = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern_.data()), pattern_.size(),
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, nullptr);
  if (compiled == nullptr)
    throw Error(ErrorCode::kCorruptFile, "pattern ", printable(pattern_), " is wrong at byte ", at, ": ", message_of(code));
  code_ = std::shared_ptr<void>(compiled, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // Where there is no JIT the interpreter gives the same answers.
}

std::string from_oniguruma(std::string_view pattern) {
  // \w in PCRE2 lacks marks and connectors but has all numbers; \h is a horizontal space there, a hexadecimal digit here.
  constexpr std::string_view kWord = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}", kHexDigit = "0-9a-fA-F";
  std::string out;
  int depth = 0;  // Of brackets: [a-z&&[^b]] nests in Oniguruma, and PCRE2 would read it otherwise.
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at], next = at + 1 < pattern.size() ? pattern[at + 1] : '\0';
    const auto refuse = [&](std::string_view what) {
      throw Error(ErrorCode::kUnsupported, "pattern ", printable(pattern), ": ", what, " at byte ", at, " is not supported");
    };
    if (c == '\\') {
      const std::string_view members = next == 'w' || next == 'W' ? kWord : next == 'h' || next == 'H' ? kHexDigit : "";
      if (next == 'b' || next == 'B' || next == 'K' || next == 'G' || next == 'X' || next == 'R' || next == 'Q') refuse("this escape");
      if (members.empty())
        (out += c) += next;
      else if (depth > 0 && (next == 'W' || next == 'H'))
        refuse("a negated class in brackets");
      else if (depth > 0)
        out += members;
      else
        ((out += next == 'W' || next == 'H' ? "[^" : "[") += members) += ']';
      ++at;
      continue;
    }
    if (depth > 0 && ((c == '&' && next == '&') || (c == '[' && next != ':'))) refuse("a class inside a class");
    if (depth == 0 && pattern.substr(at).starts_with("(?m")) refuse("(?m)");
    if (c == '[') ++depth;
    if (c == ']' && depth > 0) --depth;
    out += c;
  }
  return out;
}

RegexMatcher::RegexMatcher(const Regex& regex) : regex_(&regex) {
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(static_cast<pcre2_code*>(regex.code_.get()), nullptr);
  if (data == nullptr) throw std::bad_alloc();
  data_ = std::shared_ptr<void>(data, [](void* p) { pcre2_match_data_free(static_cast<pcre2_match_data*>(p)); });
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  if (context == nullptr) throw std::bad_alloc();
  context_ = std::shared_ptr<void>(context, [](void* p) { pcre2_match_context_free(static_cast<pcre2_match_context*>(p)); });
  pcre2_set_depth_limit(context, kDepthLimit);
  pcre2_set_heap_limit(context, kHeapLimitKiB);
  if (pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr)) {
    stack_ = std::shared_ptr<void>(stack, [](void* p) { pcre2_jit_stack_free(static_cast<pcre2_jit_stack*>(p)); });
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
}

RegexMatcher::Match RegexMatcher::find(std::string_view text, size_t from, bool allow_empty) {
  auto* data = static_cast<pcre2_match_data*>(data_.get());
  pcre2_set_match_limit(static_cast<pcre2_match_context*>(context_.get()), match_limit(text.size()));
  const uint32_t options = PCRE2_NO_UTF_CHECK | (allow_empty ? 0 : PCRE2_NOTEMPTY);
  const int n = pcre2_match(static_cast<const pcre2_code*>(regex_->code_.get()), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                            from, options, data, static_cast<pcre2_match_context*>(context_.get()));
  if (n == PCRE2_ERROR_NOMATCH) return {};
  if (n < 0)
    throw Error(ErrorCode::kCapacity, "pattern ", printable(regex_->pattern_), " on a text of ", text.size(), " bytes, from byte ", from,
                ": ", message_of(n));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
  MINILLM_CHECK(bounds[0] <= bounds[1], "a match that ends before it begins");
  return {bounds[0], bounds[1], true};
}

}  // namespace minillm
