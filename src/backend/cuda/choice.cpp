// choice.cpp - tokens that the device chooses, and their way to the host.
#include <algorithm>

#include "backend/cuda/check.h"
#include "backend/cuda/cuda_backend.h"
#include "base/check.h"

namespace minillm::cuda {
namespace {

class CudaPendingTokens : public PendingTokens {
 public:
  explicit CudaPendingTokens(int64_t max_rows) : host_(static_cast<size_t>(max_rows) * sizeof(TokenId)) {}
  ~CudaPendingTokens() override { (void)sent_.wait(); }

  void send(const int32_t* ids, int64_t n, cudaStream_t stream) {
    const size_t bytes = static_cast<size_t>(n) * sizeof(TokenId);
    MINILLM_CHECK(bytes <= host_.bytes(), n, " tokens, room for ", host_.bytes() / sizeof(TokenId));
    MINILLM_CUDA(cudaMemcpyAsync(host_.data(), ids, bytes, cudaMemcpyDeviceToHost, stream));
    sent_.record(stream);
  }
  void take(std::span<TokenId> ids) override {
    MINILLM_CUDA(sent_.wait());
    std::copy_n(static_cast<const TokenId*>(host_.data()), ids.size(), ids.begin());
  }

 private:
  PinnedBuffer host_;
  Event sent_;
};

}  // namespace

void CudaBackend::reserve_choice(int64_t n_rows) {
  const auto n = static_cast<size_t>(n_rows);
  keep(step_buffer_, n * sizeof(int32_t));
  keep(draws_, n * sizeof(Draw));
  const size_t before = draw_scratch_.bytes();
  void* scratch = keep(draw_scratch_, draw_scratch_bytes(n_rows));
  if (draw_scratch_.bytes() != before) MINILLM_CUDA(cudaMemsetAsync(scratch, 0, draw_scratch_.bytes(), stream()));
}

void CudaBackend::begin_choice(std::span<const Draw> draws) {
  reserve_choice(static_cast<int64_t>(draws.size()));
  n_chosen_ = static_cast<int64_t>(draws.size());
  if (any_drawn(draws)) staging_.send(draws_.data(), draws.data(), draws.size_bytes(), stream());  // Else draw() is not called.
}

void CudaBackend::choose(ConstTensorView logits, bool draws) {
  argmax(chosen(), logits.f32(), logits.dim(0), logits.dim(1), argmax_scratch_.data(), stream());
  if (draws)
    draw(chosen(), logits.f32(), logits.dim(0), logits.dim(1), static_cast<const Draw*>(draws_.data()), draw_scratch_.data(), stream());
}

std::unique_ptr<PendingTokens> CudaBackend::make_pending_tokens(int64_t max_rows) { return std::make_unique<CudaPendingTokens>(max_rows); }

void CudaBackend::send_chosen(PendingTokens& to) { static_cast<CudaPendingTokens&>(to).send(chosen(), n_chosen_, stream()); }

}  // namespace minillm::cuda
