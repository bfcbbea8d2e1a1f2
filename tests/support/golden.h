// golden.h - reads tests/golden/NAME.golden: what Hugging Face computes in float32. The layout is in tools/make_golden.py.
#pragma once

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace minillm::test {

struct Golden {
  size_t n_tokens = 0, n_top = 0, n_columns = 0, vocab_size = 0;
  std::vector<int32_t> ids, columns;
  std::vector<float> lse, nll;  ///< Of each row; the last NLL has no next token and is 0.
  std::vector<int32_t> top_ids;
  std::vector<float> top_logits, column_logits;
};

inline Golden read_golden(const std::string& name) {
  std::ifstream file(std::string(MINILLM_TEST_DATA) + "/golden/" + name + ".golden", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!bytes.starts_with("MLGOLD01")) throw std::runtime_error("no golden file: " + name);
  size_t at = 8;
  const auto read = [&](auto& out, size_t n) {
    out.resize(n);
    const size_t size = n * sizeof(out[0]);
    if (size > bytes.size() - at) throw std::runtime_error("golden file too short: " + name);
    std::memcpy(out.data(), bytes.data() + at, size);
    at += size;
  };
  std::vector<int32_t> sizes;
  read(sizes, 4);
  Golden golden;
  golden.n_tokens = static_cast<size_t>(sizes[0]);
  golden.n_top = static_cast<size_t>(sizes[1]);
  golden.n_columns = static_cast<size_t>(sizes[2]);
  golden.vocab_size = static_cast<size_t>(sizes[3]);
  read(golden.ids, golden.n_tokens);
  read(golden.columns, golden.n_columns);
  read(golden.lse, golden.n_tokens);
  read(golden.nll, golden.n_tokens);
  read(golden.top_ids, golden.n_tokens * golden.n_top);
  read(golden.top_logits, golden.n_tokens * golden.n_top);
  read(golden.column_logits, golden.n_tokens * golden.n_columns);
  return golden;
}

}  // namespace minillm::test
