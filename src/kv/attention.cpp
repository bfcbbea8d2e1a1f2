// attention.cpp - attention alone on dense host tensors: checks, upload, one operation of the backend, download.
// Memory:  inputs and output are copied to the device's memory once; what the operation allocates beyond them is reported. Each
//          call has a backend of its own, so that nothing of an earlier call is counted or missing.
#include "minillm/attention.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "backend/backend.h"
#include "base/bytes.h"

namespace minillm {
namespace {

std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) (text += i == 0 ? "" : ", ") += std::to_string(shape[i]);
  return text + "]";
}

template <typename... Parts>
void require(bool condition, const char* caller, const Parts&... parts) {
  if (!condition) throw Error(ErrorCode::kInvalidArgument, caller, ": ", parts...);
}

void check_shapes(const char* caller, const Tensor& q, const Tensor& k, const Tensor& v) {
  const auto check_dtype = [&](const char* name, const Tensor& tensor) {
    require(tensor.dtype() != Dtype::kI32, caller, name, " is of ", name_of(tensor.dtype()), ": expected f32, f16 or bf16");
    require(tensor.shape().size() == 4, caller, name, " has shape ", text_of(tensor.shape()), ": expected [B, S, heads, D]");
  };
  check_dtype("q", q);
  check_dtype("k", k);
  check_dtype("v", v);
  require(k.shape() == v.shape(), caller, "k is ", text_of(k.shape()), " and v ", text_of(v.shape()), ": expected the same shape");
  require(q.dim(0) == k.dim(0), caller, "q is ", text_of(q.shape()), " and k ", text_of(k.shape()), ": expected the same batch");
  require(q.dim(3) == k.dim(3) && q.dim(3) > 0, caller, "q is ", text_of(q.shape()), " and k ", text_of(k.shape()),
          ": expected the same head width, at least 1");
  require(q.dim(2) > 0 && k.dim(2) > 0 && q.dim(2) % k.dim(2) == 0, caller, q.dim(2), " query heads over ", k.dim(2),
          " key heads: expected a multiple");
}

void check_options(const char* caller, const AttentionOptions& options, int64_t n_heads) {
  const auto check_per_head = [&](const char* name, const std::vector<float>& values) {
    require(values.empty() || static_cast<int64_t>(values.size()) == n_heads, caller, values.size(), " ", name, " for ", n_heads, " heads");
  };
  check_per_head("ALiBi slopes", options.alibi_slopes);
  check_per_head("sinks", options.sinks);
  require(std::isfinite(options.scale), caller, "scale ", options.scale, ": expected a finite number");
  require(std::isfinite(options.softcap) && options.softcap >= 0, caller, "softcap ", options.softcap, ": expected 0 or more");
  require(options.window >= 0, caller, "window ", options.window, ": expected 0 or more tokens");
  const int64_t block = options.block_size;
  require(block == 0 || (block >= 16 && block <= 1024 && (block & (block - 1)) == 0), caller, "block size ", block,
          ": expected 0 or a power of two from 16 to 1024");
  require(options.n_threads >= 0, caller, options.n_threads, " threads: expected 0 or more");
  require(options.timed_runs >= 0, caller, options.timed_runs, " timed runs: expected 0 or more");
}

/// A tensor in the device's memory, as float32.
struct OnDevice {
  Buffer buffer;
  BasicTensorView<void*> view;

  OnDevice(Backend& backend, std::initializer_list<int64_t> shape) : view(nullptr, Dtype::kF32, shape) {
    buffer = backend.allocate(static_cast<size_t>(view.n_elements()) * sizeof(float));
    view.data = buffer.data();
  }
  OnDevice(Backend& backend, const Tensor& host) : OnDevice(backend, {host.dim(0), host.dim(1), host.dim(2), host.dim(3)}) {
    const Tensor wide = host.to_float32();
    backend.upload(buffer.data(), wide.data(), wide.bytes());
    backend.sync();  // `wide` ends here.
  }
};

AttentionResult attend(const char* caller, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options, bool flash) {
  check_shapes(caller, q, k, v);
  check_options(caller, options, q.dim(2));
  const std::shared_ptr<Backend> backend = make_backend(options.device, {.n_threads = options.n_threads});

  AttentionParams params;
  params.n_heads = q.dim(2);
  params.n_kv_heads = k.dim(2);
  params.head_dim = q.dim(3);
  params.scale = options.scale != 0.0f ? options.scale : static_cast<float>(1.0 / std::sqrt(static_cast<double>(q.dim(3))));
  params.causal = options.causal;
  params.window = options.window;
  params.softcap = options.softcap;
  params.alibi_slopes = options.alibi_slopes;
  params.sinks = options.sinks;
  params.block_size = options.block_size > 0 ? options.block_size : backend->default_block_size(q.dim(3));
  params.flash = flash;

  AttentionResult result;
  result.output = Tensor(q.shape());
  if (options.return_lse) result.lse = Tensor({q.dim(0), q.dim(1), q.dim(2)});
  if (result.output.empty()) return result;
  const OnDevice queries(*backend, q), keys(*backend, k), values(*backend, v);
  const OnDevice out(*backend, {q.dim(0), q.dim(1), q.dim(2), q.dim(3)});
  const OnDevice lse(*backend, {q.dim(0), q.dim(1), options.return_lse ? q.dim(2) : 0});

  const int64_t before = backend->memory().current;
  backend->reset_peak_memory();
  backend->dense_attention(out.view, queries.view, keys.view, values.view, params, options.return_lse ? lse.view : TensorView());
  backend->sync();
  result.peak_bytes = backend->memory().peak - before;

  std::vector<double> seconds;
  for (int64_t run = 0; run < options.timed_runs; ++run) {
    const auto start = std::chrono::steady_clock::now();
    backend->dense_attention(out.view, queries.view, keys.view, values.view, params, options.return_lse ? lse.view : TensorView());
    backend->sync();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(seconds);
  if (!seconds.empty()) result.seconds = (seconds[(seconds.size() - 1) / 2] + seconds[seconds.size() / 2]) / 2;

  backend->download(result.output.data(), out.view.data, result.output.bytes());
  if (result.lse) backend->download(result.lse->data(), lse.view.data, result.lse->bytes());
  backend->sync();
  return result;
}

}  // namespace

AttentionResult flash_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  return attend("flash_attention", q, k, v, options, true);
}

AttentionResult standard_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  return attend("standard_attention", q, k, v, options, false);
}

}  // namespace minillm
