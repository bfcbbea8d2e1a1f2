// cmd_generate.cpp - `minillm generate -p TEXT`: continues prompts, streaming. Ctrl-C keeps what is there and ends with 130.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>

#include "chat_session.h"
#include "commands.h"
#include "json_text.h"
#include "minillm/chat.h"
#include "minillm/error.h"
#include "minillm/generator.h"
#include "model_flags.h"
#include "terminal.h"

namespace minillm::cli {
namespace {

struct GenerateFlags {
  ModelFlags model;
  std::string prompt, file, batch;
  GenerationOptions options;
  bool chat = false, json = false;
};

/// Every line of `text` that is not empty.
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

/// Writes each piece of text as it comes. An exception must not pass through the engine: it waits here.
class Streamer {
 public:
  explicit Streamer(bool on) : on_(on) {}
  bool operator()(int64_t, const StepEvent& event) noexcept {
    if (on_ && !event.text.empty()) try {
        print(event.text);
        flush();
        ends_line_ = event.text.back() == '\n';
      } catch (...) {
        failure_ = std::current_exception();
        return false;
      }
    return !interrupted();
  }
  void finish() {
    if (failure_) std::rethrow_exception(failure_);
    if (on_ && !ends_line_) print("\n");
  }

 private:
  bool on_, ends_line_ = false;
  std::exception_ptr failure_;
};

Json to_json(const Generation& row, size_t prompt_tokens, const Timings& timings) {
  return {{"text", row.text},
          {"ids", row.ids},
          {"prompt_tokens", prompt_tokens},
          {"finish_reason", name_of(row.finish_reason)},
          {"prefill_tok_s", timings.prefill_tok_s()},
          {"decode_tok_s", timings.decode_tok_s()}};
}

void note_timings(const Timings& t) {
  char line[160];
  std::snprintf(line, sizeof(line), "prompt: %lld tokens, %.1f tokens/s; new: %lld tokens, %.1f tokens/s",
                static_cast<long long>(t.prefill_tokens), t.prefill_tok_s(), static_cast<long long>(t.decode_tokens), t.decode_tok_s());
  note(line);
}

int report(const GenerateFlags& flags, const std::vector<std::vector<TokenId>>& prompts, const std::vector<Generation>& rows,
           const Timings& timings) {
  const bool batch = !flags.batch.empty();
  Json json = Json::array();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].finish_reason == FinishReason::kError) throw Error(ErrorCode::kInternal, "prompt ", i + 1, ": ", rows[i].error);
    if (flags.json)
      json.push_back(to_json(rows[i], prompts[i].size(), timings));
    else if (batch)
      print("==> " + std::to_string(i + 1) + " <==\n" + rows[i].text + "\n");
  }
  if (flags.json) print(json_line(batch ? json : json[0]));
  if (!flags.json) {
    flush();
    note_timings(timings);
  }
  return interrupted() ? kExitInterrupted : kExitDone;
}

int run_generate(const GenerateFlags& flags, int n_sources) {
  if (n_sources != 1) throw UsageError("expected one of --prompt, --file and --batch");
  const bool batch = !flags.batch.empty();
  std::vector<std::string> texts;
  if (batch)
    texts = lines_of(read_text(flags.batch));
  else
    texts = {flags.file.empty() ? flags.prompt : read_text(flags.file)};
  if (texts.empty()) throw Error(ErrorCode::kInvalidArgument, flags.batch, ": no prompts; expected one a line");

  const std::string path = find_model(flags.model);
  const Tokenizer tokenizer = Tokenizer::load(path);
  if (flags.chat && tokenizer.chat_template().empty()) throw Error(ErrorCode::kNotFound, path, ": the model has no chat template");
  const std::unique_ptr<ChatTemplate> chat = flags.chat ? std::make_unique<ChatTemplate>(tokenizer.chat_template()) : nullptr;
  std::vector<std::vector<TokenId>> prompts;
  for (const std::string& text : texts) prompts.push_back(chat ? encode_chat(tokenizer, *chat, {{"user", text}}) : tokenizer.encode(text));

  MiniLLM model = MiniLLM::load(path, load_options(flags.model));
  TextGenerator generator(model, {.use_flash_attention = !flags.model.no_flash_attention,
                                  .flash_block_size = flags.model.flash_block_size,
                                  .tokenizer = &tokenizer,
                                  .max_batch = static_cast<int64_t>(std::min<size_t>(prompts.size(), 16))});
  Streamer streamer(!batch && !flags.json);
  const std::vector<Generation> rows =
      generator.generate_batch(prompts, flags.options, [&](int64_t row, const StepEvent& event) { return streamer(row, event); });
  streamer.finish();
  return report(flags, prompts, rows, generator.timings());
}

}  // namespace

Run add_generate(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::Option* prompt = app.add_option("-p,--prompt", flags->prompt, "text to continue");
  CLI::Option* file = app.add_option("-f,--file", flags->file, "read the prompt from a file; - is standard input");
  CLI::Option* batch = app.add_option("--batch", flags->batch, "a file with one prompt a line, computed together");
  app.add_flag("--chat", flags->chat, "the prompt is a question: apply the model's chat template");
  add_sampling_flags(app, flags->options);
  add_model_flag(app, flags->model);
  add_device_flags(app, flags->model);
  add_attention_flags(app, flags->model);
  app.add_flag("--json", flags->json,
               R"(print {"text", "ids", "prompt_tokens", "finish_reason", "prefill_tok_s", "decode_tok_s"}; an array for --batch)");
  return [=] { return run_generate(*flags, (prompt->count() > 0) + (file->count() > 0) + (batch->count() > 0)); };
}

}  // namespace minillm::cli
