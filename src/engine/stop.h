// stop.h - stop texts in a stream: finds the first, across any borders, and holds back what may still become one.
// The result does not depend on how the text is cut: the text ends before the stop text that is complete first; of several
// complete at the same byte, the longest counts.
// Cost: each pushed byte is compared with each stop text once; at most the longest stop text is held back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace minillm {

class StopMatcher {
 public:
  /// No stop text may be empty.
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// Appends to `out` what is certain to come before any stop text. True once a stop text is complete: the rest is dropped.
  bool push(std::string_view text, std::string& out);
  /// Appends what was held back: the text has ended without a stop text.
  void flush(std::string& out);

 private:
  std::vector<std::string> stops_;
  std::string held_;  ///< A proper prefix of a stop text, as long as can be.
};

}  // namespace minillm
