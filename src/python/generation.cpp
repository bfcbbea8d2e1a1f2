// generation.cpp - TextGenerator, Engine and the options of both.
#include "bindings.h"

namespace minillm::python {

const char* const kGenerationArguments =
    "max_new_tokens: int = 128, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, "
    "repetition_penalty: float = 1.0, presence_penalty: float = 0.0, frequency_penalty: float = 0.0, seed: int = 0, "
    "stop: collections.abc.Sequence[str] = (), stop_token_ids: collections.abc.Sequence[int] = (), ignore_eos: bool = False";

GenerationOptions generation_options(const nb::kwargs& arguments) {
  GenerationOptions options;
  for (const auto& argument : arguments) {
    const auto name = nb::cast<std::string>(argument.first);
    const auto take = [&name, value = argument.second](const char* field, auto& member) {
      if (name != field) return false;
      member = nb::cast<std::remove_reference_t<decltype(member)>>(value);
      return true;
    };
    if (!take("max_new_tokens", options.max_new_tokens) && !take("temperature", options.temperature) && !take("top_k", options.top_k) &&
        !take("top_p", options.top_p) && !take("min_p", options.min_p) && !take("repetition_penalty", options.repetition_penalty) &&
        !take("presence_penalty", options.presence_penalty) && !take("frequency_penalty", options.frequency_penalty) &&
        !take("seed", options.seed) && !take("stop", options.stop) && !take("stop_token_ids", options.stop_token_ids) &&
        !take("ignore_eos", options.ignore_eos))
      throw nb::type_error(("no argument '" + name + "'; there are " + kGenerationArguments).c_str());
  }
  return options;
}

namespace {

/// A generator and what it points into: the model's mutex is held while it works.
struct PyGenerator {
  std::mutex own_mutex = {};  ///< Where the generator has its own model.
  PyModel* model = nullptr;
  std::unique_ptr<TextGenerator> generator;
  std::mutex& mutex() { return model != nullptr ? model->mutex : own_mutex; }
};

void init_generator(PyGenerator* self, PyModel* model, bool use_flash_attention, int64_t flash_block_size, const Tokenizer* tokenizer,
                    int64_t max_batch, int64_t prefill_chunk, nb::handle kv_dtype) {
  const TextGeneratorOptions options{.use_flash_attention = use_flash_attention,
                                     .flash_block_size = flash_block_size,
                                     .tokenizer = tokenizer,
                                     .max_batch = max_batch,
                                     .prefill_chunk = prefill_chunk,
                                     .kv_dtype = optional_dtype(kv_dtype)};
  const nb::gil_scoped_release release;
  auto generator = model != nullptr ? std::make_unique<TextGenerator>(model->model, options) : std::make_unique<TextGenerator>(options);
  new (self) PyGenerator{.model = model, .generator = std::move(generator)};
}

/// Prompts as lists of ids; `single` where one prompt was given and not a list of them.
std::vector<std::vector<TokenId>> to_prompts(nb::handle prompts, bool& single) {
  single = false;
  std::vector<std::vector<TokenId>> rows;
  if (nb::isinstance<nb::list>(prompts) || nb::isinstance<nb::tuple>(prompts)) {
    nb::object first = nb::len(prompts) > 0 ? nb::object(prompts[0]) : nb::none();
    single = first.is_none() || PyIndex_Check(first.ptr()) != 0;
  } else {
    single = nb::cast<int64_t>(prompts.attr("ndim")) == 1;
  }
  if (single) return {to_token_ids(prompts, "prompt_ids")};
  for (nb::handle row : prompts) rows.push_back(to_token_ids(row, "prompt_ids"));
  return rows;
}

/// Takes the GIL for each event, so that Ctrl-C and a Python callback (or None) can end the work.
class Events {
 public:
  explicit Events(nb::handle callback) : callback_(callback) {}
  bool operator()(int64_t row, const StepEvent& event) {
    if (raised_) return false;
    const nb::gil_scoped_acquire acquire;
    try {
      check_signals();
      return callback_.is_none() || nb::cast<bool>(nb::bool_(callback_(row, event)));
    } catch (...) {
      raised_ = std::current_exception();
      return false;
    }
  }
  /// With the GIL: throws what Python raised.
  void rethrow() const {
    if (raised_) std::rethrow_exception(raised_);
  }

 private:
  nb::handle callback_;
  std::exception_ptr raised_;
};

std::vector<Generation> run(PyGenerator& self, const std::vector<std::vector<TokenId>>& prompts, const GenerationOptions& options,
                            nb::handle callback) {
  Events events(callback);
  std::vector<Generation> generations =
      locked(self.mutex(), [&] { return self.generator->generate_batch(prompts, options, std::ref(events)); });
  events.rethrow();
  return generations;
}

/// The callback among keyword arguments, taken out of them.
nb::object take_callback(nb::kwargs& arguments) {
  if (!arguments.contains("callback")) return nb::none();
  nb::object callback = arguments["callback"];
  nb::del(arguments["callback"]);
  return callback;
}

struct PyCachedText {
  CachedText text;
  std::mutex mutex = {};
};

Generation generate_cached(PyGenerator& self, PyCachedText& text, const ArrayLike& prompt_ids, nb::kwargs arguments) {
  const nb::object callback = take_callback(arguments);
  const std::vector<TokenId> prompt = to_token_ids(prompt_ids, "prompt_ids");
  const GenerationOptions options = generation_options(arguments);
  Events events(callback);
  Generation generation = locked(self.mutex(), [&] {
    const std::lock_guard lock(text.mutex);
    return self.generator->generate_cached(text.text, prompt, options, std::ref(events));
  });
  events.rethrow();
  return generation;
}

nb::object generate(PyGenerator& self, nb::handle prompt_ids, const nb::kwargs& arguments) {
  bool single = false;
  std::vector<std::vector<TokenId>> rows = to_prompts(prompt_ids, single);
  const std::vector<Generation> generations = run(self, rows, generation_options(arguments), nb::none());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (generations[i].finish_reason == FinishReason::kError)
      throw Error(ErrorCode::kInternal, "generate: row ", i, ": ", generations[i].error);
    rows[i].insert(rows[i].end(), generations[i].ids.begin(), generations[i].ids.end());
  }
  return single ? nb::cast(rows[0]) : nb::cast(rows);
}

void bind_results(nb::module_& m) {
  nb::class_<StepEvent>(m, "StepEvent", "One new token of one request, or its end.")
      .def_ro("request", &StepEvent::request)
      .def_ro("token", &StepEvent::token)
      .def_ro("text", &StepEvent::text)
      .def_prop_ro(
          "finish_reason", [](const StepEvent& self) { return std::string(name_of(self.finish)); }, "'none' while it goes on.")
      .def_ro("error", &StepEvent::error);
  nb::class_<Generation>(m, "Generation", "What one row generated.")
      .def_ro("ids", &Generation::ids, "New tokens, the ending one included.")
      .def_ro("text", &Generation::text, "Their text, without stop text and end token; '' without a tokenizer.")
      .def_prop_ro("finish_reason", [](const Generation& self) { return std::string(name_of(self.finish_reason)); })
      .def_ro("error", &Generation::error);
  nb::class_<Timings>(m, "Timings", "Wall time and tokens of the two phases of generation.")
      .def_ro("prefill_tokens", &Timings::prefill_tokens)
      .def_ro("decode_tokens", &Timings::decode_tokens)
      .def_ro("prefill_seconds", &Timings::prefill_seconds)
      .def_ro("decode_seconds", &Timings::decode_seconds)
      .def_prop_ro("prefill_tok_s", &Timings::prefill_tok_s)
      .def_prop_ro("decode_tok_s", &Timings::decode_tok_s);
}

void bind_generator(nb::module_& m) {
  static const std::string generate_signature =
      std::string("def generate(self, prompt_ids: typing.Any, *, ") + kGenerationArguments + ") -> list[typing.Any]";
  static const std::string batch_signature =
      std::string(
          "def generate_batch(self, prompts: typing.Any, *, callback: collections.abc.Callable[[int, StepEvent], bool] | None = None, ") +
      kGenerationArguments + ") -> list[Generation]";
  nb::class_<PyGenerator> generator(m, "TextGenerator", "Generates from prompts: the short way to use a model.");
  generator.def(
      "__init__", &init_generator, "model"_a = nb::none(), nb::kw_only(), "use_flash_attention"_a = true, "flash_block_size"_a = 0,
      "tokenizer"_a = nb::none(), "max_batch"_a = 16, "prefill_chunk"_a = 0, "kv_dtype"_a = nb::none(), nb::keep_alive<1, 2>(),
      nb::keep_alive<1, 6>(),
      nb::sig("def __init__(self, model: MiniLLM | None = None, *, use_flash_attention: bool = True, flash_block_size: int = 0, "
              "tokenizer: Tokenizer | None = None, max_batch: int = 16, prefill_chunk: int = 0, kv_dtype: typing.Any = None) -> None"),
      "Without a model: the default one, which must have been pulled.");
  generator.def("generate", &generate, "prompt_ids"_a, "arguments"_a, nb::sig(generate_signature.c_str()),
                "Prompt and continuation. One prompt (a list or 1-D array of ids) gives a list of ids; several (a list of lists or a 2-D "
                "array) give a list of such lists, computed together. temperature 0 is greedy.");
  generator.def(
      "generate_batch",
      [](PyGenerator& self, nb::handle prompts, nb::kwargs arguments) {
        const nb::object callback = take_callback(arguments);
        bool single = false;
        return run(self, to_prompts(prompts, single), generation_options(arguments), callback);
      },
      "prompts"_a, "arguments"_a, nb::sig(batch_signature.c_str()),
      "Each prompt on its own, computed together; row i uses seed + i. callback(row, event) is called for each new token; returning "
      "False cancels that row.");
  static const std::string cached_signature = std::string(
                                                  "def generate_cached(self, text: CachedText, prompt_ids: numpy.typing.ArrayLike, *, "
                                                  "callback: collections.abc.Callable[[int, StepEvent], bool] | None = None, ") +
                                              kGenerationArguments + ") -> Generation";
  generator.def("generate_cached", &generate_cached, "text"_a, "prompt_ids"_a, "arguments"_a, nb::sig(cached_signature.c_str()),
                "Continues a prompt, computing only what `text` does not hold yet; afterwards it holds all but the result's last id.");
  generator.def_prop_ro(
      "timings", [](PyGenerator& self) { return locked(self.mutex(), [&] { return self.generator->timings(); }); }, "Of the last call.");
}

void bind_cached_text(nb::module_& m) {
  nb::class_<PyCachedText>(m, "CachedText", "One sequence's tokens with their keys and values: what a talk keeps between its turns.")
      .def(
          "__init__",
          [](PyCachedText* self, const ModelConfig& config, int64_t max_length, const std::string& device, nb::handle dtype) {
            const KVCacheOptions options{.max_length = max_length, .device = parse_device(device), .dtype = optional_dtype(dtype)};
            new (self) PyCachedText{CachedText{KVCache(config, options)}};
          },
          "config"_a, "max_length"_a = 0, "device"_a = "cpu", "dtype"_a = nb::none(),
          nb::sig("def __init__(self, config: ModelConfig, max_length: int = 0, device: str = 'cpu', dtype: typing.Any = None) -> None"))
      .def_prop_ro(
          "tokens", [](PyCachedText& self) { return locked(self.mutex, [&] { return self.text.tokens; }); }, "Ids that are held.");
}

/// An engine, with the mutex of the model that it runs.
struct PyEngine {
  PyModel* model;
  Engine engine;
};

void bind_engine(nb::module_& m) {
  static const std::string submit_signature =
      std::string("def submit(self, prompt: numpy.typing.ArrayLike, *, ") + kGenerationArguments + ") -> int";
  nb::class_<PyEngine> engine(m, "Engine", "Many sequences at once: submit() queues, step() advances everything by one forward pass.");
  engine.def(
      "__init__",
      [](PyEngine* self, PyModel& model, const Tokenizer* tokenizer, int64_t max_batch, int64_t prefill_chunk, bool use_flash_attention,
         int64_t flash_block_size, int64_t max_cache_tokens, nb::handle kv_dtype) {
        const EngineOptions options{.max_batch = max_batch,
                                    .prefill_chunk = prefill_chunk,
                                    .use_flash_attention = use_flash_attention,
                                    .flash_block_size = flash_block_size,
                                    .max_cache_tokens = max_cache_tokens,
                                    .kv_dtype = optional_dtype(kv_dtype)};
        const nb::gil_scoped_release release;
        const std::lock_guard lock(model.mutex);
        new (self) PyEngine{&model, Engine(model.model, tokenizer, options)};
      },
      "model"_a, "tokenizer"_a = nb::none(), nb::kw_only(), "max_batch"_a = 16, "prefill_chunk"_a = 0, "use_flash_attention"_a = true,
      "flash_block_size"_a = 0, "max_cache_tokens"_a = 0, "kv_dtype"_a = nb::none(), nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(),
      nb::sig(
          "def __init__(self, model: MiniLLM, tokenizer: Tokenizer | None = None, *, max_batch: int = 16, prefill_chunk: int = 0, "
          "use_flash_attention: bool = True, flash_block_size: int = 0, max_cache_tokens: int = 0, kv_dtype: typing.Any = None) -> None"));
  engine.def(
      "submit",
      [](PyEngine& self, const ArrayLike& prompt, const nb::kwargs& arguments) {
        std::vector<TokenId> ids = to_token_ids(prompt, "prompt");
        const GenerationOptions options = generation_options(arguments);
        return locked(self.model->mutex, [&] { return self.engine.submit(std::move(ids), options); });
      },
      "prompt"_a, "arguments"_a, nb::sig(submit_signature.c_str()), "Queues a prompt and returns the request's number.");
  engine
      .def(
          "step", [](PyEngine& self) { return locked(self.model->mutex, [&] { return self.engine.step(); }); },
          "One forward pass; what happened in it. Empty when idle.")
      .def(
          "cancel", [](PyEngine& self, RequestId request) { self.engine.cancel(request); }, "request"_a,
          nb::call_guard<nb::gil_scoped_release>(), "Takes effect in the next step; from any thread.")
      .def_prop_ro("idle", [](PyEngine& self) { return locked(self.model->mutex, [&] { return self.engine.idle(); }); })
      .def_prop_ro("timings", [](PyEngine& self) { return locked(self.model->mutex, [&] { return self.engine.timings(); }); })
      .def_prop_ro("cache_bytes", [](PyEngine& self) { return locked(self.model->mutex, [&] { return self.engine.cache_bytes(); }); });
}

}  // namespace

void bind_generation(nb::module_& m) {
  bind_results(m);
  bind_cached_text(m);
  bind_generator(m);
  bind_engine(m);
}

}  // namespace minillm::python
