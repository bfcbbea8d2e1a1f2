// jinja_format.cpp - Python's "format % arguments": %s %r %d %i %u %x %X %o %c %e %f %g %%, with flags, width and precision.
// Widths are bounded by the length of a text, precisions by 1,000.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "text/jinja_runtime.h"
#include "text/jinja_text.h"

namespace minillm::jinja {
namespace {

struct Directive {
  bool left = false, zero = false, plus = false, space = false, alternate = false;
  int64_t width = 0, precision = -1;
  char kind = 's';
};

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const std::string& format, const std::vector<Value>& args)
      : runtime_(runtime), format_(format), args_(args) {}

  std::string run() {
    bool by_name = false;
    for (size_t at = 0; at < format_.size();) {
      runtime_.budget.spend(1);
      if (format_[at] != '%') {
        out_ += format_[at++];
        continue;
      }
      ++at;
      std::string name;
      const bool has_name = at < format_.size() && format_[at] == '(';
      if (has_name) {
        const size_t end = format_.find(')', at);
        if (end == std::string::npos) runtime_.fail("incomplete format key");
        name = format_.substr(at + 1, end - at - 1);
        at = end + 1;
        by_name = true;
      }
      const Directive directive = parse(at);
      if (directive.kind == '%')
        out_ += '%';
      else
        one(directive, has_name ? named(name) : next_argument());
      runtime_.expect(static_cast<int64_t>(out_.size()));
    }
    if (next_ < args_.size() && !by_name && !(args_.size() == 1 && (args_[0].dict() || args_[0].list())))
      runtime_.fail("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  const Value& next_argument() {
    if (next_ >= args_.size()) runtime_.fail("not enough arguments for format string");
    return args_[next_++];
  }
  const Value& named(const std::string& name) {
    const Value* value = args_.size() == 1 && args_[0].dict() ? find(runtime_, *args_[0].dict(), name) : nullptr;
    if (!value) runtime_.fail("format requires a mapping with the key '", name, "'");
    return *value;
  }

  int64_t number(size_t& at) {
    if (at < format_.size() && format_[at] == '*') {
      ++at;
      const int64_t* n = next_argument().integer();
      if (!n) runtime_.fail("* wants int");
      return *n;
    }
    int64_t n = 0;
    while (at < format_.size() && format_[at] >= '0' && format_[at] <= '9') n = std::min<int64_t>(n * 10 + format_[at++] - '0', INT32_MAX);
    return n;
  }

  Directive parse(size_t& at) {
    Directive d;
    for (; at < format_.size(); ++at) {
      const char c = format_[at];
      if (c == '-')
        d.left = true;
      else if (c == '0')
        d.zero = true;
      else if (c == '+')
        d.plus = true;
      else if (c == ' ')
        d.space = true;
      else if (c == '#')
        d.alternate = true;
      else
        break;
    }
    d.width = number(at);
    if (d.width < 0) {
      d.left = true;
      d.width = d.width == INT64_MIN ? INT64_MAX : -d.width;
    }
    if (at < format_.size() && format_[at] == '.') d.precision = std::max<int64_t>(number(++at), 0);
    while (at < format_.size() && (format_[at] == 'l' || format_[at] == 'h' || format_[at] == 'L')) ++at;
    if (at >= format_.size()) runtime_.fail("incomplete format");
    d.kind = format_[at++];
    return d;
  }

  void one(const Directive& d, const Value& value) {
    std::string body;
    bool numeric = true;
    switch (d.kind) {
      case 's':
      case 'r':
      case 'a': {
        numeric = false;
        body = d.kind == 's' ? to_text(runtime_, value) : to_repr(runtime_, value);
        if (d.precision >= 0 && d.precision < count_characters(body))
          body.resize(character_offsets(body)[static_cast<size_t>(d.precision)]);
        break;
      }
      case 'c':
        numeric = false;
        if (const int64_t* code = value.integer(); code && *code >= 0 && *code <= 0x10FFFF)
          append_code_point(body, static_cast<int32_t>(*code));
        else if (value.text() && count_characters(*value.text()) == 1)
          body = *value.text();
        else
          runtime_.fail("%c requires int or char");
        break;
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        body = integer(d, value);
        break;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        body = real(d, value);
        break;
      default:
        runtime_.fail("unsupported format character '", std::string(1, d.kind), "'");
    }
    pad(d, std::move(body), numeric);
  }

  std::string integer(const Directive& d, const Value& value) {
    int64_t n = 0;
    if (!value.as_integer(n)) {
      if (!value.real() || !(std::fabs(*value.real()) < 9.2e18) || d.kind == 'x' || d.kind == 'X' || d.kind == 'o')
        runtime_.fail("%", std::string(1, d.kind), " format: a number is required, not ", type_name(value));
      n = static_cast<int64_t>(*value.real());
    }
    const uint64_t size = n < 0 ? 0 - static_cast<uint64_t>(n) : static_cast<uint64_t>(n);
    char digits[32];
    std::snprintf(digits, sizeof digits,
                  d.kind == 'x'   ? "%llx"
                  : d.kind == 'X' ? "%llX"
                  : d.kind == 'o' ? "%llo"
                                  : "%llu",
                  static_cast<unsigned long long>(size));
    if (d.precision > 1000) runtime_.fail("precision too big");
    std::string body = n < 0 ? "-" : d.plus ? "+" : d.space ? " " : "";
    if (d.alternate && d.kind != 'd' && d.kind != 'i' && d.kind != 'u') {
      body += '0';
      body += d.kind;
    }
    const int64_t missing = d.precision - static_cast<int64_t>(std::string_view(digits).size());
    body.append(static_cast<size_t>(std::max<int64_t>(missing, 0)), '0');
    return body.append(digits);
  }

  std::string real(const Directive& d, const Value& value) {
    if (!value.is_number()) runtime_.fail("must be real number, not ", type_name(value));
    if (d.precision > 1000) runtime_.fail("precision too big");
    const char format[] = {'%', '.', '*', d.kind, 0};
    char buffer[1400];  // 309 digits before the point and 1,000 after it.
    std::snprintf(buffer, sizeof buffer, format, static_cast<int>(d.precision < 0 ? 6 : d.precision), value.as_double());
    std::string body = buffer[0] == '-' ? "" : d.plus ? "+" : d.space ? " " : "";
    return body.append(buffer);
  }

  void pad(const Directive& d, std::string body, bool numeric) {
    const int64_t missing = d.width - count_characters(body);
    if (missing > 0) {
      runtime_.expect(d.width);
      const auto n = static_cast<size_t>(missing);
      if (d.left)
        body.append(n, ' ');
      else if (d.zero && numeric)
        body.insert(body.starts_with('-') || body.starts_with('+') || body.starts_with(' ') ? 1 : 0, n, '0');
      else
        body.insert(0, n, ' ');
    }
    out_ += body;
  }

  Runtime& runtime_;
  const std::string& format_;
  const std::vector<Value>& args_;
  std::string out_;
  size_t next_ = 0;
};

}  // namespace

std::string format_percent(Runtime& runtime, const std::string& format, const std::vector<Value>& args) {
  return PercentFormatter(runtime, format, args).run();
}

}  // namespace minillm::jinja
