#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <new>

#include "minillm/error.h"

namespace minillm {
namespace {

constexpr uint32_t kMatchLimit = 1'000'000;
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
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, nullptr);
  if (compiled == nullptr) throw Error(ErrorCode::kCorruptFile, "pattern \"", pattern_, "\" is wrong at byte ", at, ": ", message_of(code));
  code_ = std::shared_ptr<void>(compiled, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // Where there is no JIT the interpreter gives the same answers.
}

RegexMatcher::RegexMatcher(const Regex& regex) : regex_(&regex) {
  pcre2_match_data* data = pcre2_match_data_create_from_pattern(static_cast<pcre2_code*>(regex.code_.get()), nullptr);
  if (data == nullptr) throw std::bad_alloc();
  data_ = std::shared_ptr<void>(data, [](void* p) { pcre2_match_data_free(static_cast<pcre2_match_data*>(p)); });
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  if (context == nullptr) throw std::bad_alloc();
  context_ = std::shared_ptr<void>(context, [](void* p) { pcre2_match_context_free(static_cast<pcre2_match_context*>(p)); });
  pcre2_set_match_limit(context, kMatchLimit);
  pcre2_set_depth_limit(context, kDepthLimit);
  pcre2_set_heap_limit(context, kHeapLimitKiB);
  if (pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr)) {
    stack_ = std::shared_ptr<void>(stack, [](void* p) { pcre2_jit_stack_free(static_cast<pcre2_jit_stack*>(p)); });
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
}

RegexMatcher::Match RegexMatcher::find(std::string_view text, size_t from, bool allow_empty) {
  auto* data = static_cast<pcre2_match_data*>(data_.get());
  const uint32_t options = PCRE2_NO_UTF_CHECK | (allow_empty ? 0 : PCRE2_NOTEMPTY);
  const int n = pcre2_match(static_cast<const pcre2_code*>(regex_->code_.get()), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                            from, options, data, static_cast<pcre2_match_context*>(context_.get()));
  if (n == PCRE2_ERROR_NOMATCH) return {};
  if (n < 0)
    throw Error(ErrorCode::kCapacity, "pattern \"", regex_->pattern_, "\" on a text of ", text.size(), " bytes, from byte ", from, ": ",
                message_of(n));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
  if (bounds[1] < bounds[0]) throw Error(ErrorCode::kUnsupported, "pattern \"", regex_->pattern_, "\" matches backwards (\\K)");
  return {bounds[0], bounds[1], true};
}

}  // namespace minillm
