// memory_plan_test.cpp - what `inspect` says a run takes on a GPU is what it takes; Promise10 shows the same of the CPU.
#include "support/memory_plan.h"
#include "conformance/rig.h"
#include "support/models.h"

namespace minillm::test {
namespace {

class Plan : public OnTarget {};

TEST_P(Plan, IsWhatARunTakes) {
  MINILLM_NEEDS_MODEL(path, "smollm2");
  backend_.reset();  // The model makes its own.
  for (const Dtype kv_dtype : {Dtype::kF16, Dtype::kF8}) {
    SCOPED_TRACE(name_of(kv_dtype));
    expect_plan_is_what_a_run_takes(path, GetParam().device, kv_dtype);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Plan, testing::Values(Target{"cuda", {Device::Kind::kCuda, 0}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace minillm::test
