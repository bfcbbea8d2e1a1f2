// records.cpp - decode steps as CUDA graphs: the first time a step is only run, which takes every buffer it needs; the second time
// it is recorded; from then on one launch replays it. What changes from step to step lies in device memory, at fixed addresses.
#include <algorithm>

#include "backend/cuda/check.h"
#include "backend/cuda/cuda_backend.h"

namespace minillm::cuda {

void CudaBackend::forget_records() {
  for (Record& record : records_)
    if (record.graph != nullptr) (void)cudaGraphExecDestroy(record.graph);
  records_.clear();
}

void CudaBackend::repeat(const StepKey& key, const std::function<void()>& work) {
  if (key.n_rows > kFewTokens || !key.flash) return work();
  auto record = std::ranges::find(records_, key, &Record::key);
  if (record == records_.end()) {
    whole_step(work);
    if (records_.size() >= kMostRecords) forget_records();
    records_.push_back({key, nullptr});
    return;
  }
  if (record->graph == nullptr) record->graph = capture([&] { whole_step(work); });
  MINILLM_CUDA(cudaGraphLaunch(record->graph, stream()));
}

void CudaBackend::whole_step(const std::function<void()>& work) {
  struct Leave {
    CudaBackend& backend;
    ~Leave() {
      backend.in_whole_step_ = false;
      backend.joined_.clear();
      backend.left_to_attention_.reset();
    }
  } leave{*this};
  in_whole_step_ = true;
  work();
  (void)stream();
  if (left_to_attention_) throw Error(ErrorCode::kInternal, "cuda: attention_input without attention");
}

cudaGraphExec_t CudaBackend::capture(const std::function<void()>& work) {
  cudaGraph_t graph = nullptr;
  MINILLM_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  try {
    work();
  } catch (...) {
    (void)cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    throw;
  }
  MINILLM_CUDA(cudaStreamEndCapture(stream_, &graph));
  cudaGraphExec_t exec = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  return exec;
}

}  // namespace minillm::cuda
