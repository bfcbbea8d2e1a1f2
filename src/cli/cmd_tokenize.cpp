// cmd_tokenize.cpp - `minillm tokenize TEXT`: ids and pieces of a text, or the text of ids.
#include <memory>

#include "commands.h"
#include "json_text.h"
#include "minillm/tokenizer.h"
#include "model_flags.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct TokenizeFlags {
  ModelFlags model;
  std::string text, file, ids;
  bool no_special = false, parse_special = false, json = false;
};

int run_decode(const TokenizeFlags& flags, const Tokenizer& tokenizer) {
  const std::vector<TokenId> ids = parse_ids(flags.ids);
  const std::string text = tokenizer.decode(ids);
  print(flags.json ? json_line({{"ids", ids}, {"text", text}}) : text + "\n");
  return kExitDone;
}

int run_encode(const TokenizeFlags& flags, const Tokenizer& tokenizer) {
  const std::string text = flags.file.empty() ? flags.text : read_text(flags.file);
  const EncodeOptions options{.add_special_tokens = !flags.no_special, .parse_special_tokens = flags.parse_special};
  const std::vector<TokenId> ids = tokenizer.encode(text, options);
  if (!flags.json) {
    for (const TokenId id : ids) print(std::to_string(id) + "\t" + tokenizer.piece(id) + "\n");
    return kExitDone;
  }
  std::vector<std::string> pieces;
  for (const TokenId id : ids) pieces.push_back(tokenizer.piece(id));
  // Bytes that the vocabulary has no token for are dropped: say which, so that nobody expects them back.
  print(json_line({{"ids", ids}, {"pieces", pieces}, {"missing_bytes", tokenizer.missing_bytes()}}));
  return kExitDone;
}

int run_tokenize(const TokenizeFlags& flags, int n_sources) {
  if (n_sources != 1) throw UsageError("expected one of TEXT, --file and --decode");
  const Tokenizer tokenizer = Tokenizer::load(find_model(flags.model));
  return flags.ids.empty() ? run_encode(flags, tokenizer) : run_decode(flags, tokenizer);
}

}  // namespace

Run add_tokenize(CLI::App& app) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::Option* text = app.add_option("TEXT", flags->text, "text to take apart");
  add_model_flag(app, flags->model);
  CLI::Option* file = app.add_option("-f,--file", flags->file, "read the text from a file; - is standard input");
  CLI::Option* decode = app.add_option("--decode", flags->ids, "ids to put together, as in 1,2,3");
  app.add_flag("--no-special-tokens", flags->no_special, "leave out the model's begin and end tokens");
  app.add_flag("--parse-special", flags->parse_special, "read <|im_end|> and the like as the tokens they name");
  app.add_flag("--json", flags->json, R"(print {"ids", "pieces", "missing_bytes"}, or {"ids", "text"} for --decode)");
  return [=] { return run_tokenize(*flags, (text->count() > 0) + (file->count() > 0) + (decode->count() > 0)); };
}

}  // namespace minillm::cli
