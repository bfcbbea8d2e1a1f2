// chat_template_test.cpp - our Jinja subset against Python's jinja2 (expectations by tools/make_chat_cases.py), and hostile templates.
#include <gtest/gtest.h>
#include <pthread.h>
#include <time.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "minillm/chat.h"
#include "minillm/error.h"

namespace minillm {
namespace {

using Json = nlohmann::ordered_json;

std::string read_file(const std::string& name) {
  std::ifstream file(std::string(MINILLM_TEST_DATA) + "/text/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Written in the case, or one of the published templates in a file.
std::string source_of(const Json& c) {
  return c.contains("file") ? read_file("templates/" + c.at("file").get<std::string>()) : c.at("template").get<std::string>();
}

std::string render_case(const Json& c) {
  ChatRenderOptions options;
  options.add_generation_prompt = c.at("add_generation_prompt").get<bool>();
  options.bos_token = "<bos>";
  options.eos_token = "<eos>";
  if (!c.at("tools").is_null()) options.tools_json = c.at("tools").dump();
  for (const auto& [name, value] : c.at("variables").items()) options.variables.emplace_back(name, value.dump());
  return ChatTemplate(source_of(c)).render_json(c.at("messages").dump(), options);
}

TEST(ChatTemplate, RendersAndRefusesAsPythonsJinja2) {
  const Json cases = Json::parse(read_file("chat_cases.json"));
  ASSERT_GT(cases.size(), 400u);
  for (const Json& c : cases) {
    SCOPED_TRACE(c.at("name").get<std::string>() + ": " + source_of(c).substr(0, 200));
    try {
      const std::string text = render_case(c);
      if (c.contains("expected"))
        EXPECT_EQ(text, c.at("expected").get<std::string>());
      else
        ADD_FAILURE() << "Python says " << c.at("error") << ", we rendered: " << text.substr(0, 200);
    } catch (const Error& error) {
      if (c.contains("expected")) ADD_FAILURE() << error.what() << "\nPython renders: " << c.at("expected");
    }
  }
}

TEST(ChatTemplate, PlainMessagesGiveTheSameAsJson) {
  const ChatTemplate t("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{{ tools }}{{ bos_token is defined }}");
  EXPECT_EQ(t.render({{"user", "hi"}, {"assistant", "\xff<ok>"}}), "[user] hi\n[assistant] \xff<ok>\nNoneFalse");
  EXPECT_EQ(t.render_json(R"([{"role": "user", "content": "hi"}])"), "[user] hi\nNoneFalse");
}

TEST(ChatTemplate, NowIsFormattedAsAsked) {
  const std::string year = ChatTemplate("{{ strftime_now('%Y') }}").render({});
  EXPECT_EQ(year.size(), 4u);
  EXPECT_GE(year, "2024");
}

struct Refused {
  const char* name;
  std::string source;
  ErrorCode code;
  const char* words;  ///< That the message must contain.
};

ErrorCode refusal(const std::string& source, std::string& message) {
  try {
    ChatTemplate(source).render({{"user", "hi"}});
  } catch (const Error& error) {
    message = error.what();
    return error.code();
  }
  message = "rendered";
  return ErrorCode::kInternal;
}

TEST(ChatTemplate, RefusalsNameWhatAndWhere) {
  const Refused cases[] = {
      {"Include", "a\n{% include 'x' %}", ErrorCode::kUnsupported, "line 2: unknown statement 'include'"},
      {"Import", "{% import 'x' as y %}", ErrorCode::kUnsupported, "unknown statement 'import'"},
      {"Extends", "{% extends 'x' %}", ErrorCode::kUnsupported, "unknown statement 'extends'"},
      {"Filter", "\n\n{{ 1|pprint }}", ErrorCode::kUnsupported, "line 3: unknown filter 'pprint'"},
      {"Test", "{{ 1 is prime }}", ErrorCode::kUnsupported, "unknown test 'prime'"},
      {"MapFilter", "{{ [1]|map('nope')|list }}", ErrorCode::kUnsupported, "unknown filter or test 'nope'"},
      {"BigInteger", "{{ 99999999999999999999 }}", ErrorCode::kUnsupported, "more than 64 bits"},
      {"Overflow", "{{ 9223372036854775807 + 1 }}", ErrorCode::kUnsupported, "more than 64 bits"},
      {"FormatSpec", "{{ '{:>9}'.format(1) }}", ErrorCode::kUnsupported, "format() field"},
      {"OwnMessage", "{{ raise_exception('roles must alternate') }}", ErrorCode::kInvalidArgument, "roles must alternate"},
      {"Undefined", "\n{{ nobody.name }}", ErrorCode::kInvalidArgument, "line 2: 'nobody' is undefined"},
      {"Unclosed", "{% for m in messages %}", ErrorCode::kInvalidArgument, "expected endfor"},
      {"Comment", "{# x", ErrorCode::kInvalidArgument, "comment without an end"},
      {"Raw", "{% raw %} x", ErrorCode::kInvalidArgument, "without {% endraw %}"},
      {"Escape", "{{ '\\xZZ' }}", ErrorCode::kInvalidArgument, "wrong escape sequence"},
      {"UnknownArgument", "{{ 'a'|trim(charz='x') }}", ErrorCode::kInvalidArgument, "does not know the argument 'charz'"},
      {"TooManyArguments", "{{ 'a'|upper(1) }}", ErrorCode::kInvalidArgument, "takes 0 arguments, met 1"},
      {"MissingArgument", "{{ 'a'|replace('b') }}", ErrorCode::kInvalidArgument, "needs the argument 'new'"},
      {"MacroArgument", "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}", ErrorCode::kInvalidArgument, "takes no argument 'b'"},
      {"MacroAfterItsScope",
       "{% set n = namespace(f=0) %}{% for i in [1] %}{% macro m() %}{% endmacro %}{% set n.f = m %}{% endfor %}{{ n.f() }}",
       ErrorCode::kInvalidArgument, "after its scope has ended"},
      {"LoopIsNotRecursive", "{% for i in [1] %}{{ loop([2]) }}{% endfor %}", ErrorCode::kInvalidArgument, "'recursive'"},
      {"TooLong", std::string((size_t{1} << 20) + 1, 'x'), ErrorCode::kCapacity, "at most 1048576"},
      {"TooManyTokens", "{{ [" + std::string(250'000, ',') + "] }}", ErrorCode::kCapacity, "tokens"},
  };
  for (const Refused& c : cases) {
    std::string message;
    EXPECT_EQ(refusal(c.source, message), c.code) << c.name << ": " << message;
    EXPECT_NE(message.find(c.words), std::string::npos) << c.name << ": " << message;
  }
  const ChatTemplate t("{{ messages }}");
  EXPECT_THROW(t.render_json("{}"), Error);
  EXPECT_THROW(t.render_json("[1,"), Error);
  EXPECT_THROW(t.render_json(std::string(100, '[') + std::string(100, ']')), Error);
  EXPECT_THROW(t.render({}, {.tools_json = "nonsense"}), Error);
}

std::string repeated(std::string_view piece, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += piece;
  return out;
}

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kSmallStack = 1024 * 1024;  // The two sanitizers of that build together more than double a frame.
#else
constexpr size_t kSmallStack = 256 * 1024;
#endif

/// Runs `body` on a thread with a small stack; what it throws is thrown here.
void on_small_stack(const std::function<void()>& body) {
  std::exception_ptr failure;
  const std::function<void()> guarded = [&] {
    try {
      body();
    } catch (...) {
      failure = std::current_exception();
    }
  };
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, kSmallStack), 0);
  pthread_t thread;
  const auto entry = [](void* f) -> void* {
    (*static_cast<const std::function<void()>*>(f))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, entry, const_cast<std::function<void()>*>(&guarded)), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  if (failure) std::rethrow_exception(failure);
}

TEST(ChatTemplate, DeepTemplatesEndInAnErrorOnASmallStack) {
  const std::string deep[] = {
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{% if 1 %}{% for i in [1] %}{{ [[[[m(x)]]]] }}{% endfor %}{% endif %}{% endmacro %}{{ m(1) }}",
      "{% macro a() %}{% call b() %}x{% endcall %}{% endmacro %}{% macro b() %}{{ a() }}{{ caller() }}{% endmacro %}{{ a() }}",
      "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}",
      "{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}",
      "{{ " + repeated("{1:", 5000) + "1" + repeated("}", 5000) + " }}",
      "{{ " + repeated("a[", 5000) + "1" + repeated("]", 5000) + " }}",
      "{{ " + repeated("f(", 5000) + repeated(")", 5000) + " }}",
      "{{ " + repeated("1 if 1 else ", 5000) + "1 }}",
      repeated("{% if 1 %}", 5000),
      repeated("{% for i in [1] %}", 5000),
      "{% for " + repeated("(", 5000) + "i" + repeated(")", 5000) + " in x %}{% endfor %}",
      "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% set n = namespace(x=[]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
  };
  for (const std::string& source : deep) {
    std::string message;
    ErrorCode code = ErrorCode::kInternal;
    on_small_stack([&] { code = refusal(source, message); });
    EXPECT_EQ(code, ErrorCode::kCapacity) << source.substr(0, 80) << ": " << message;
  }
}

TEST(ChatTemplate, LongChainsNeedNoDepth) {
  const std::pair<std::string, std::string> chains[] = {
      {"{{ 1" + repeated(" + 1", 5000) + " }}", "5001"},
      {"{{ 'a'" + repeated("|upper", 5000) + " }}", "A"},
      {"{{ " + repeated("not ", 5000) + "1 }}", "True"},
      {"{{ " + repeated("-", 5000) + "1 }}", "1"},
      {"{{ 0" + repeated(" or 0", 5000) + " }}", "0"},
      {"{{ 1" + repeated(" < 2 > 1", 5000) + " }}", "True"},
      {"{{ x" + repeated("", 1) + " is defined }}", "False"},
      {"{% if 0 %}" + repeated("{% elif 0 %}", 5000) + "{% else %}e{% endif %}", "e"},
  };
  for (const auto& [source, expected] : chains) {
    std::string text;
    on_small_stack([&, &s = source] { text = ChatTemplate(s).render({}); });
    EXPECT_EQ(text, expected) << source.substr(0, 60);
  }
}

/// Time of this process, so that a busy machine does not matter.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

TEST(ChatTemplate, HostileWorkEndsInAnErrorWithinASecond) {
  const std::string hostile[] = {
      "{{ range(10**9)|length }}",
      "{{ range(100001)|list }}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
      "{% for i in range(100000) %}{% for j in range(100000) %}{{ i * j }}{% endfor %}{% endfor %}",
      "{{ 'x' * 10**9 }}",
      "{{ [1] * 10**9 }}",
      "{{ 10**9 * 'x' }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '%.1000000000f' % 1.5 }}",
      "{{ '%*s' % (1000000000, 'x') }}",
      "{{ 'a\nb'|indent(10**9) }}",
      "{{ [[1]]|tojson(indent=10**9) }}",
      "{{ 'x'|center(10**9) }}",
      "{{ 'x'.ljust(10**9) }}",
      "{{ 'x'.zfill(10**9) }}",
      "{% set n = namespace(s='x') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
      "{% set n = namespace(s='x') %}{% for i in range(64) %}{% set n.s = n.s.replace('x', 'xx') %}{% endfor %}{{ n.s }}",
      "{% set n = namespace(s='xy') %}{% for i in range(64) %}{% set n.s = n.s|join(n.s) %}{% endfor %}{{ n.s }}",
      "{% set n = namespace(s=[1]) %}{% for i in range(64) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s|length }}",
      "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
      "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s|tojson }}",
      "{% set n = namespace(s=[1], t=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s "
      "== n.t }}",
      "{% set n = namespace(l=[]) %}{% for i in range(1000) %}{% set n.l = n.l + ['x' * 1000000] %}{% endfor %}{{ n.l|length }}",
      "{% for i in range(100000) %}" + std::string(1000, 'x') + "{% endfor %}",
      "{% for i in range(100000) %}{% set b %}" + std::string(1000, 'x') + "{% endset %}{{ b }}{% endfor %}",
      "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set n = namespace(s='x') %}{% for i in range(64) %}{% set n.s = m(n.s) %}{% endfor "
      "%}",
      "{% set s = 'ab' * 1000000 %}{% for i in range(100000) %}{% set t = s.split('a') %}{% endfor %}",
      "{% set s = 'ab' * 1000000 %}{% for i in range(100000) %}{{ s|length }}{{ s[5] }}{{ 'z' in s }}{% endfor %}",
      "{% set s = range(100000)|list %}{% for i in range(100000) %}{{ s|sort|first }}{% endfor %}",
      "{% set s = range(100000)|list %}{{ s|unique|list|length }}",
      "{% set s = range(100000)|list %}{% for i in s %}{{ (-1) in s }}{% endfor %}",
      "{% set s = ' ' * 1000000 %}{% for i in range(100000) %}{{ s|trim }}{{ s.strip() }}{{ s.split() }}{% endfor %}",
      "{{ 2 ** 10 ** 9 }}",
  };
  for (const std::string& source : hostile) {
    std::string message;
    const double start = cpu_seconds();
    const ErrorCode code = refusal(source, message);
    [[maybe_unused]] const double seconds = cpu_seconds() - start;  // Bounded where the build is fast.
    EXPECT_TRUE(code == ErrorCode::kCapacity || code == ErrorCode::kUnsupported || code == ErrorCode::kInvalidArgument)
        << source.substr(0, 100) << ": " << message.substr(0, 200);
#ifdef NDEBUG
    EXPECT_LT(seconds, 1.0) << source.substr(0, 100);
#endif
  }
}

}  // namespace
}  // namespace minillm
