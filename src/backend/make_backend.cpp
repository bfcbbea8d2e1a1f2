// make_backend.cpp - the choice of a device: the one place that knows them all.
#include "backend/backend.h"

namespace minillm {

std::shared_ptr<Backend> make_backend(const Device& device, const BackendOptions& options) {
  switch (device.kind) {
    case Device::Kind::kCpu:
      return make_cpu_backend(options);
    case Device::Kind::kReference:
      return make_reference_backend();
    case Device::Kind::kCuda:
      return make_cuda_backend(device.index, options);
  }
  throw Error(ErrorCode::kInvalidArgument, "device kind ", static_cast<int>(device.kind));
}

}  // namespace minillm
