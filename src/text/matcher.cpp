#include "text/matcher.h"

#include "minillm/error.h"

namespace minillm {

Matcher::Matcher() : nodes_(1) { first_.fill(-1); }

int32_t Matcher::child_of(int32_t node, uint8_t byte) const noexcept {
  if (node == 0) return first_[byte];
  int32_t child = nodes_[static_cast<size_t>(node)].child;
  while (child >= 0 && nodes_[static_cast<size_t>(child)].byte != byte) child = nodes_[static_cast<size_t>(child)].sibling;
  return child;
}

void Matcher::add(std::string_view text, int32_t value) {
  if (text.empty() || text.size() > kMaxMatchBytes)
    throw Error(ErrorCode::kUnsupported, "added token of ", text.size(), " bytes; 1 to ", kMaxMatchBytes, " are supported");
  int32_t node = 0;
  for (const char c : text) {
    const uint8_t byte = static_cast<uint8_t>(c);
    int32_t next = child_of(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({-1, -1, nodes_[static_cast<size_t>(node)].child, byte});
      if (node == 0)
        first_[byte] = next;
      else
        nodes_[static_cast<size_t>(node)].child = next;
    }
    node = next;
  }
  nodes_[static_cast<size_t>(node)].value = value;
}

Matcher::Match Matcher::find(std::string_view text, size_t from) const noexcept {
  if (empty()) return {};
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t node = first_[static_cast<uint8_t>(text[begin])];
    Match best;
    for (size_t at = begin + 1; node >= 0; ++at) {
      const int32_t value = nodes_[static_cast<size_t>(node)].value;
      if (value >= 0) best = {begin, at - begin, value};
      if (at == text.size()) break;
      node = child_of(node, static_cast<uint8_t>(text[at]));
    }
    if (best.size > 0) return best;
  }
  return {};
}

}  // namespace minillm
