// no_cuda.cpp - linked in place of backend/cuda in a build without CUDA.
#include "backend/backend.h"

namespace minillm {

std::unique_ptr<Backend> make_cuda_backend(int, const BackendOptions&) {
  throw Error(ErrorCode::kUnsupported, "cuda: this build has no CUDA backend; build one with cmake --preset cuda");
}

}  // namespace minillm
