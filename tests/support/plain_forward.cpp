// plain_forward.cpp - the transformer as the papers write it, one token and one head at a time, in double.
// Letters: E hidden, H query heads, G key/value heads, D head width, F feed-forward, V vocabulary.
#include <algorithm>
#include <cmath>

#include "support/tiny_model.h"

namespace minillm::test {
namespace {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

class Plain {
 public:
  explicit Plain(const TinyModel& model) : model_(model), c_(model.config) {}

  std::vector<double> logits(const std::vector<TokenId>& ids) {
    Rows x;
    const TinyTensor& table = model_.tensors.at("token_embd.weight");
    for (TokenId id : ids) {
      Row row(static_cast<size_t>(c_.hidden_size));
      for (size_t e = 0; e < row.size(); ++e)
        row[e] = static_cast<double>(table.values[static_cast<size_t>(id) * row.size() + e]) * static_cast<double>(c_.embedding_scale);
      x.push_back(row);
    }
    for (int64_t i = 0; i < c_.n_layers; ++i) layer(x, i);
    std::vector<double> out;
    for (const Row& row : x) {
      const Row y =
          product(model_.tensors.contains("output.weight") ? "output.weight" : "token_embd.weight", norm(row, "output_norm.weight"));
      out.insert(out.end(), y.begin(), y.end());
    }
    return out;
  }

 private:
  Row product(const std::string& name, const Row& x) const {
    const TinyTensor& w = model_.tensors.at(name);
    Row y(static_cast<size_t>(w.shape[0]), 0.0);
    for (size_t n = 0; n < y.size(); ++n)
      for (size_t k = 0; k < x.size(); ++k) y[n] += static_cast<double>(w.values[n * x.size() + k]) * x[k];
    return y;
  }
  Row norm(const Row& x, const std::string& name) const {
    const TinyTensor& w = model_.tensors.at(name);
    double squares = 0;
    for (double v : x) squares += v * v;
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(c_.norm_eps));
    Row y = x;
    for (size_t i = 0; i < y.size(); ++i) y[i] *= scale * static_cast<double>(w.values[i]);
    return y;
  }
  void add_if_there(Row& x, const std::string& name) const {
    if (const auto found = model_.tensors.find(name); found != model_.tensors.end())
      for (size_t i = 0; i < x.size(); ++i) x[i] += static_cast<double>(found->second.values[i]);
  }
  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  bool global(int64_t layer) const { return c_.sliding_window == 0 || (c_.architecture == "gemma3" && layer % 6 == 5); }

  void rotate(double* head, size_t position, int64_t layer) const {
    const size_t n = static_cast<size_t>(c_.head_dim), half = n / 2;
    const bool local_base = c_.architecture == "gemma3" && !global(layer);
    const double base = local_base ? 10000.0 : static_cast<double>(c_.rope_base);
    const auto factors = model_.tensors.find("rope_freqs.weight");
    for (size_t i = 0; i < half; ++i) {
      double frequency = std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(n));
      if (factors != model_.tensors.end()) frequency /= static_cast<double>(factors->second.values[i]);
      const double angle = static_cast<double>(position) * frequency, cos = std::cos(angle), sin = std::sin(angle);
      double& a = c_.architecture == "llama" ? head[2 * i] : head[i];
      double& b = c_.architecture == "llama" ? head[2 * i + 1] : head[i + half];
      const double old_a = a, old_b = b;
      a = old_a * cos - old_b * sin;
      b = old_a * sin + old_b * cos;
    }
  }

  /// The heads of a projection, with bias, head norm and rotation.
  Row heads(const Row& h, const std::string& prefix, const char* which, size_t position, int64_t layer, bool rotated) const {
    Row y = product(prefix + which + ".weight", h);
    add_if_there(y, prefix + which + ".bias");
    const size_t width = static_cast<size_t>(c_.head_dim);
    for (size_t at = 0; rotated && at < y.size(); at += width) {
      if (c_.qk_norm) {
        const Row normed = norm(Row(y.begin() + static_cast<ptrdiff_t>(at), y.begin() + static_cast<ptrdiff_t>(at + width)),
                                prefix + which + "_norm.weight");
        std::copy(normed.begin(), normed.end(), y.begin() + static_cast<ptrdiff_t>(at));
      }
      rotate(y.data() + at, position, layer);
    }
    return y;
  }

  Row attend(const Row& q, const Rows& k, const Rows& v, size_t position, int64_t layer) const {
    const size_t width = static_cast<size_t>(c_.head_dim), group = static_cast<size_t>(c_.n_heads / c_.n_kv_heads);
    const size_t window = global(layer) ? position + 1 : static_cast<size_t>(c_.sliding_window);
    const size_t first = position + 1 > window ? position + 1 - window : 0;
    Row out(q.size(), 0.0);
    for (size_t head = 0; head < static_cast<size_t>(c_.n_heads); ++head) {
      const size_t shared = head / group * width;
      Row weights;
      double sum = 0;
      for (size_t s = first; s <= position; ++s) {
        double dot = 0;
        for (size_t d = 0; d < width; ++d) dot += q[head * width + d] * k[s][shared + d];
        weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(width))));
        sum += weights.back();
      }
      for (size_t s = first; s <= position; ++s)
        for (size_t d = 0; d < width; ++d) out[head * width + d] += weights[s - first] / sum * v[s][shared + d];
    }
    return out;
  }

  double activate(double x) const {
    if (c_.architecture != "gemma3") return x / (1.0 + std::exp(-x));
    return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
  }

  void layer(Rows& x, int64_t i) const {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    const bool gemma = c_.architecture == "gemma3";
    Rows k, v;
    for (size_t t = 0; t < x.size(); ++t) {
      const Row h = norm(x[t], prefix + "attn_norm.weight");
      const Row q = heads(h, prefix, "attn_q", t, i, true);
      k.push_back(heads(h, prefix, "attn_k", t, i, true));
      v.push_back(heads(h, prefix, "attn_v", t, i, false));
      Row attended = product(prefix + "attn_output.weight", attend(q, k, v, t, i));
      if (gemma) attended = norm(attended, prefix + "post_attention_norm.weight");
      add(x[t], attended);
      const Row g = norm(x[t], prefix + "ffn_norm.weight");
      Row gate = product(prefix + "ffn_gate.weight", g);
      const Row up = product(prefix + "ffn_up.weight", g);
      for (size_t f = 0; f < gate.size(); ++f) gate[f] = activate(gate[f]) * up[f];
      Row down = product(prefix + "ffn_down.weight", gate);
      if (gemma) down = norm(down, prefix + "post_ffw_norm.weight");
      add(x[t], down);
    }
  }

  const TinyModel& model_;
  const ModelConfig& c_;
};

}  // namespace

std::vector<double> plain_forward(const TinyModel& model, const std::vector<TokenId>& ids) { return Plain(model).logits(ids); }

}  // namespace minillm::test
