// stop.cpp - matching by comparing suffixes: stop texts are few and short.
#include "engine/stop.h"

#include <algorithm>

namespace minillm {

bool StopMatcher::push(std::string_view text, std::string& out) {
  for (size_t at = 0; at < text.size(); ++at) {
    held_ += text[at];
    size_t longest = 0;
    for (const std::string& stop : stops_)
      if (held_.ends_with(stop)) longest = std::max(longest, stop.size());
    if (longest > 0) {
      out.append(held_, 0, held_.size() - longest);
      held_.clear();
      return true;
    }
    // Keep the longest suffix that is a prefix of a stop text; what stands before it is certain.
    size_t keep = 0;
    for (const std::string& stop : stops_)
      for (size_t n = std::min(held_.size(), stop.size() - 1); n > keep; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    out.append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
  }
  return false;
}

void StopMatcher::flush(std::string& out) {
  out += held_;
  held_.clear();
}

}  // namespace minillm
