#include "text/tokenizer_components.h"

#include "io/printable.h"

namespace minillm {
namespace {

constexpr size_t kMaxComponents = 256;

std::string type_of(const JsonObject& component) {
  const auto type = component.text("type");
  if (!type) component.corrupt("type is missing");
  return *type;
}

/// The components of a Sequence, those of sequences inside it in their place; a plain component is a sequence of one.
/// `list` is the field that holds them.
std::vector<JsonObject> flatten(const JsonObject& component, const char* list) {
  std::vector<JsonObject> out, open = {component};
  while (!open.empty()) {  // A stack: the next component is the last.
    const JsonObject next = open.back();
    open.pop_back();
    if (type_of(next) != "Sequence") {
      out.push_back(next);
      if (out.size() > kMaxComponents) component.corrupt("more than ", kMaxComponents, " components");
      continue;
    }
    const nlohmann::json* parts = next.find(list);
    if (parts == nullptr || !parts->is_array()) next.corrupt(list, " is no array");
    for (size_t i = parts->size(); i > 0; --i) open.emplace_back((*parts)[i - 1], next.where() + ": " + list);
  }
  return out;
}

std::string need_text(const JsonObject& object, const char* name) {
  const auto text = object.text(name);
  if (!text) object.corrupt(name, " is missing");
  return *text;
}

/// {"String": "..."} or {"Regex": "..."}.
struct Pattern {
  bool is_regex;
  std::string text;
};
Pattern read_pattern(const JsonObject& object) {
  const auto pattern = object.object("pattern");
  if (!pattern) object.corrupt("pattern is missing");
  if (const auto literal = pattern->text("String")) {
    if (literal->empty()) pattern->corrupt("an empty pattern");
    return {false, *literal};
  }
  return {true, need_text(*pattern, "Regex")};
}

SplitBehavior read_behavior(const JsonObject& split) {
  const std::string name = need_text(split, "behavior");
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  split.unsupported("behavior", printable(name), "one of Hugging Face's five");
}

void read_metaspace(const JsonObject& metaspace, Tokenizer::Impl& impl) {
  const std::string mark = metaspace.text("replacement").value_or(std::string(kSpaceMark));
  if (mark != kSpaceMark) metaspace.unsupported("replacement", printable(mark), "U+2581");
  std::string scheme = metaspace.text("prepend_scheme").value_or("always");
  if (metaspace.has("add_prefix_space") && !*metaspace.boolean("add_prefix_space")) scheme = "never";  // As older files say it.
  impl.words_normalizer.add_replace(" ", mark);
  impl.lead = mark;
  if (scheme == "always")
    impl.lead_where = LeadWhere::kAlways;
  else if (scheme == "first")
    impl.lead_where = LeadWhere::kFirst;
  else if (scheme != "never")
    metaspace.unsupported("prepend_scheme", printable(scheme), "always, first or never");
  if (metaspace.boolean("split").value_or(true)) impl.words.add_literal(mark, SplitBehavior::kMergedWithNext);
}

std::vector<TokenId> template_ids(const JsonObject& processor, const std::string& name, const Tokenizer::Impl& impl) {
  const auto special = processor.object("special_tokens");
  const auto entry = special ? special->object(name.c_str()) : std::nullopt;
  if (!entry) processor.corrupt("special_tokens has no ", printable(name));
  std::vector<TokenId> ids;
  for (const int64_t id : entry->integers("ids")) {
    if (id < 0 || static_cast<uint64_t>(id) >= impl.vocab.size()) entry->corrupt("id ", id, " is outside the vocabulary");
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

void read_template(const JsonObject& processor, Tokenizer::Impl& impl) {
  const nlohmann::json* single = processor.find("single");
  if (single == nullptr || !single->is_array()) processor.corrupt("single is no array");
  bool seen = false;
  for (const nlohmann::json& element : *single) {
    const JsonObject part(element, processor.where() + ": single");
    if (const auto sequence = part.object("Sequence")) {
      if (seen) part.corrupt("the text occurs twice");
      seen = true;
    } else if (const auto special = part.object("SpecialToken")) {
      const std::vector<TokenId> ids = template_ids(processor, need_text(*special, "id"), impl);
      std::vector<TokenId>& side = seen ? impl.suffix : impl.prefix;
      side.insert(side.end(), ids.begin(), ids.end());
    } else {
      part.corrupt("neither Sequence nor SpecialToken");
    }
  }
  if (!seen) processor.corrupt("the text does not occur in single");
}

/// ["</s>", 2]
TokenId read_pair(const JsonObject& processor, const char* name, const Tokenizer::Impl& impl) {
  const nlohmann::json* pair = processor.find(name);
  if (pair == nullptr || !pair->is_array() || pair->size() != 2 || !(*pair)[1].is_number_unsigned() ||
      (*pair)[1].get<uint64_t>() >= impl.vocab.size())
    processor.corrupt(name, " is no [text, id]");
  return (*pair)[1].get<TokenId>();
}

}  // namespace

void read_normalizer(const std::optional<JsonObject>& component, Tokenizer::Impl& impl) {
  if (!component) return;
  for (const JsonObject& step : flatten(*component, "normalizers")) {
    const std::string type = type_of(step);
    if (type == "NFC") {
      impl.normalizer.add_form(UnicodeForm::kNfc);
    } else if (type == "NFD") {
      impl.normalizer.add_form(UnicodeForm::kNfd);
    } else if (type == "NFKC") {
      impl.normalizer.add_form(UnicodeForm::kNfkc);
    } else if (type == "NFKD") {
      impl.normalizer.add_form(UnicodeForm::kNfkd);
    } else if (type == "Prepend") {
      impl.normalizer.add_prefix(need_text(step, "prepend"));
    } else if (type == "Replace") {
      const Pattern pattern = read_pattern(step);
      if (pattern.is_regex)
        impl.normalizer.add_replace(Regex(from_oniguruma(pattern.text)), need_text(step, "content"));
      else
        impl.normalizer.add_replace(pattern.text, need_text(step, "content"));
    } else {
      step.unsupported("normalizer", printable(type), "NFC, NFD, NFKC, NFKD, Prepend, Replace or Sequence");
    }
  }
}

bool read_pre_tokenizer(const std::optional<JsonObject>& component, Tokenizer::Impl& impl) {
  if (!component) return false;
  bool byte_level = false;
  size_t n = 0;
  for (const JsonObject& step : flatten(*component, "pretokenizers")) {
    const std::string type = type_of(step);
    if (byte_level) step.unsupported("pre_tokenizer", printable(type), "nothing after ByteLevel");
    if (type == "ByteLevel") {
      byte_level = true;
      if (step.boolean("add_prefix_space").value_or(true)) {
        if (n > 0) step.unsupported("add_prefix_space", "true", "false after another pre-tokenizer");
        impl.lead = " ";
        impl.lead_where = LeadWhere::kAlways;
      }
      if (step.boolean("use_regex").value_or(true)) impl.words.add_pattern(std::string(pattern_of(WordRule::kGpt2)));
    } else if (type == "Split") {
      const Pattern pattern = read_pattern(step);
      const bool invert = step.boolean("invert").value_or(false);
      if (pattern.is_regex && rule_of_pattern(pattern.text))
        impl.words.add_pattern(pattern.text, read_behavior(step), invert);
      else if (pattern.is_regex)
        impl.words.add_pattern(from_oniguruma(pattern.text), read_behavior(step), invert);
      else
        impl.words.add_literal(pattern.text, read_behavior(step), invert);
    } else if (type == "Digits") {
      impl.words.add_digits(step.boolean("individual_digits").value_or(false));
    } else if (type == "Metaspace") {
      if (n > 0) step.unsupported("pre_tokenizer", "Metaspace", "it in the first place");
      read_metaspace(step, impl);
    } else {
      step.unsupported("pre_tokenizer", printable(type), "ByteLevel, Split, Digits, Metaspace or Sequence");
    }
    ++n;
  }
  return byte_level;
}

void read_post_processor(const std::optional<JsonObject>& component, Tokenizer::Impl& impl) {
  if (!component) return;
  for (const JsonObject& step : flatten(*component, "processors")) {
    const std::string type = type_of(step);
    if (type == "TemplateProcessing") {
      read_template(step, impl);
    } else if (type == "RobertaProcessing" || type == "BertProcessing") {
      impl.prefix.push_back(read_pair(step, "cls", impl));
      impl.suffix.push_back(read_pair(step, "sep", impl));
    } else if (type != "ByteLevel") {  // That one only moves offsets.
      step.unsupported("post_processor", printable(type), "TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel or Sequence");
    }
  }
}

void read_decoder(const std::optional<JsonObject>& component, bool byte_level, Tokenizer::Impl& impl) {
  impl.style = byte_level ? PieceStyle::kByteLevel : PieceStyle::kMarkedSpaces;
  if (!component) throw Error(ErrorCode::kUnsupported, "tokenizer.json has no decoder, so what its pieces stand for is not known");
  for (const JsonObject& step : flatten(*component, "decoders")) {
    const std::string type = type_of(step);
    if (type == "ByteLevel" && byte_level) continue;
    if (byte_level) step.unsupported("decoder", printable(type), "ByteLevel, as the pre-tokenizer");
    if (type == "Replace") {
      const Pattern pattern = read_pattern(step);
      if (pattern.is_regex || pattern.text != kSpaceMark || need_text(step, "content") != " ")
        step.unsupported("decoder Replace", printable(pattern.text), "U+2581 by a space");
    } else if (type == "Strip") {
      if (need_text(step, "content") != " " || step.need_integer("start") != 1 || step.need_integer("stop") != 0)
        step.unsupported("decoder", "Strip", "one space at the start");
      impl.strip_leading_space = true;
    } else if (type == "Metaspace") {
      impl.strip_leading_space =
          step.text("prepend_scheme").value_or("always") != "never" && step.boolean("add_prefix_space").value_or(true);
    } else if (type != "ByteFallback" && type != "Fuse") {
      step.unsupported("decoder", printable(type), "Replace, ByteFallback, Fuse, Strip, Metaspace or Sequence");
    }
  }
}

}  // namespace minillm
