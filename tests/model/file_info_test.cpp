// file_info_test.cpp - what inspect shows of a file, and the memory plan against what running allocates.
#include "minillm/file_info.h"

#include "backend/footprint.h"

#include <gtest/gtest.h>

#include "minillm/error.h"
#include "minillm/model.h"
#include "support/same_bits.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace minillm {
namespace {

class Inspect : public testing::Test {
 protected:
  FileInfo inspect_tiny() const { return inspect(folder_.write("model.gguf", tiny_.writer().image().bytes)); }
  static std::string value_of(const FileInfo& info, const std::string& key) {
    for (const auto& [name, value] : info.metadata)
      if (name == key) return value;
    return "(missing)";
  }

  test::TinyModel tiny_ = test::tiny_model("qwen2");
  test::TempFolder folder_;
};

TEST_F(Inspect, ListsTensorsInFileOrderWithTheirBytes) {
  const FileInfo info = inspect_tiny();
  EXPECT_EQ(info.format, "gguf v3");
  EXPECT_EQ(info.config.n_layers, 2);
  ASSERT_EQ(info.tensors.size(), tiny_.tensors.size());
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : info.tensors) {
    EXPECT_EQ(tensor.shape, tiny_.tensors.at(tensor.name).shape) << tensor.name;
    EXPECT_EQ(tensor.bytes, tiny_.tensors.at(tensor.name).values.size() * 4) << tensor.name;
    bytes += tensor.bytes;
  }
  EXPECT_EQ(info.tensor_bytes, bytes);
}

TEST_F(Inspect, SortsMetadataEscapesControlBytesAndShortensLongValues) {
  tiny_.keys.set("a.text", std::string("line\none\x1b[31m"));
  tiny_.keys.set("a.long", std::string(500, 'x'));
  tiny_.keys.set("a.flag", true);
  tiny_.keys.set("a.list", std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8});
  tiny_.keys.set("a.words", std::vector<std::string>{"one", "t\two"});
  const FileInfo info = inspect_tiny();
  EXPECT_TRUE(std::is_sorted(info.metadata.begin(), info.metadata.end()));
  EXPECT_EQ(value_of(info, "a.text"), "line\\none\\x1b[31m");
  EXPECT_EQ(value_of(info, "a.long"), std::string(120, 'x') + "... (500 bytes)");
  EXPECT_EQ(value_of(info, "a.flag"), "true");
  EXPECT_EQ(value_of(info, "a.list"), "[1, 2, 3, 4, 5, 6, ... (8 elements)]");
  EXPECT_EQ(value_of(info, "a.words"), "[one, t\\two]");
  EXPECT_EQ(value_of(info, "qwen2.block_count"), "2");
}

TEST_F(Inspect, RefusesAFileThatCouldNotBeLoaded) {
  tiny_.tensors.erase("output_norm.weight");
  EXPECT_THROW(inspect_tiny(), Error);
}

TEST_F(Inspect, PlansTheMemoryThatRunningAllocates) {
  const FileInfo info = inspect_tiny();
  const MiniLLM model = MiniLLM::load(info.path);
  const MemoryPlan plan = plan_memory(info, 512, 2, Dtype::kF16);
  EXPECT_EQ(plan.weights, model.weight_bytes());
  EXPECT_EQ(plan.kv_cache, int64_t{2} * 2 * 16 * 512 * 2 * 2);  // K and V, layers, row width, tokens, batch, bytes.
  // An estimate: the backend also has a fixed scratch of under a MiB a thread.
  EXPECT_GT(model.memory().workspace, plan.workspace / 2);
  EXPECT_LT(model.memory().workspace, 2 * plan.workspace + (8 << 20));
  EXPECT_EQ(plan.total(), plan.weights + plan.kv_cache + plan.workspace);
}

TEST_F(Inspect, PlansStepsOfAsManyRowsAsTheDeviceTakes) {
  const test::SameBitsInAnyStep no_tiles;  // Which take room of their own, on the CPU alone.
  const FileInfo info = inspect_tiny();
  const auto scratch = [&](int64_t context, Device device) { return plan_memory(info, context, 1, Dtype::kF16, device).workspace; };
  const Device gpu{Device::Kind::kCuda, 0};
  EXPECT_EQ(scratch(256, gpu), scratch(512, gpu));
  EXPECT_EQ(scratch(8192, {}), scratch(512, {}));
  const int64_t more = scratch(2048, gpu) - scratch(512, gpu);
  EXPECT_EQ(scratch(1024, gpu) - scratch(512, gpu), more / 3);  // Scratch grows with the rows, 512 at a time here.
  EXPECT_GT(more, 1536 * info.config.hidden_size * static_cast<int64_t>(sizeof(float)));
  EXPECT_EQ(scratch(8192, gpu), scratch(2048, gpu));
  EXPECT_EQ(MiniLLM::load(info.path).step_rows(), 512);  // What the plan counts with, and the engine feeds.
}

TEST_F(Inspect, PlansWeightsAsTheDeviceStoresThem) {
  const auto bytes = [](Device::Kind kind, Dtype dtype, int64_t rows, int64_t cols) { return weight_footprint(kind, dtype, rows, cols); };
  constexpr Device::Kind kCpu = Device::Kind::kCpu, kCuda = Device::Kind::kCuda;
  EXPECT_EQ(bytes(kCpu, Dtype::kQ4_0, 20, 256), 32 * 8 * 18);                     // Panels of 16 rows; blocks as in the file.
  EXPECT_EQ(bytes(kCpu, Dtype::kQ4_K, 16, 256), 16 * (144 + 4));                  // The group's scales are wider.
  EXPECT_EQ(bytes(kCuda, Dtype::kQ4_0, 20, 200), 32 * (256 / 2 + 256 / 32 * 2));  // Tiles of 16 rows, units of 128 columns.
  EXPECT_EQ(bytes(kCuda, Dtype::kQ5_1, 16, 128), 16 * (128 + 128 / 32 * 2 * 2));  // Codes in bytes; scale and offset.
  EXPECT_EQ(bytes(kCuda, Dtype::kQ6_K, 16, 256), 16 * (256 + 256 / 16 * 4));      // A float32 scale for 16 columns.
  EXPECT_EQ(bytes(kCuda, Dtype::kBF16, 3, 100), 3 * 104 * 2);                     // Rows of whole 16 bytes.
}

TEST_F(Inspect, RefusesAPlanForNothing) {
  const FileInfo info = inspect_tiny();
  EXPECT_THROW(plan_memory(info, 0, 1, Dtype::kF16), Error);
  EXPECT_THROW(plan_memory(info, 1, 0, Dtype::kF16), Error);
}

}  // namespace
}  // namespace minillm
