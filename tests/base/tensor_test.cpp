// tensor_test.cpp - host tensors and views: shapes, sharing, conversion, refusals.
#include "minillm/tensor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/half.h"
#include "base/tensor_view.h"
#include "support/sanitizer_options.h"

namespace minillm {
namespace {

template <typename F>
ErrorCode code_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_FALSE(std::string(error.what()).empty());
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kInternal;
}

TEST(Tensor, StartsAsAlignedZeros) {
  const Tensor tensor({3, 5, 7}, Dtype::kF16);
  EXPECT_EQ(tensor.n_elements(), 105);
  EXPECT_EQ(tensor.bytes(), 210u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % 64, 0u);
  for (uint16_t x : tensor.values<uint16_t>()) EXPECT_EQ(x, 0);
}

TEST(Tensor, EmptyOnesHoldNothing) {
  EXPECT_TRUE(Tensor().empty());
  EXPECT_EQ(Tensor().bytes(), 0u);
  EXPECT_TRUE(Tensor().values<float>().empty());
  EXPECT_TRUE(Tensor().clone().empty());
  EXPECT_TRUE(Tensor().to_float32().empty());
  EXPECT_TRUE(Tensor({4, 0, 2}).empty());
  EXPECT_EQ(Tensor({4, 0, 2}).clone().shape(), (std::vector<int64_t>{4, 0, 2}));
  EXPECT_EQ(Tensor(std::vector<int64_t>{}).n_elements(), 1);  // A scalar.
}

TEST(Tensor, DimensionsCountFromBothEnds) {
  const Tensor tensor({3, 5});
  EXPECT_EQ(tensor.dim(0), 3);
  EXPECT_EQ(tensor.dim(-1), 5);
  EXPECT_EQ(tensor.dim(-2), 3);
  for (int i : {2, -3, std::numeric_limits<int>::min()})
    EXPECT_EQ(code_of([&] { return tensor.dim(i); }), ErrorCode::kInvalidArgument) << i;
}

TEST(Tensor, RefusesShapesThatMakeNoSenseOrDoNotFit) {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(code_of([] { Tensor({2, -1}); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([] { Tensor({32}, Dtype::kQ4_0); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([] { Tensor({kHuge}); }), ErrorCode::kOutOfMemory);
  EXPECT_EQ(code_of([] { Tensor({int64_t{1} << 32, int64_t{1} << 32}); }), ErrorCode::kOutOfMemory);
  EXPECT_EQ(code_of([] { Tensor::wrap(nullptr, nullptr, {-1}, Dtype::kF32); }), ErrorCode::kInvalidArgument);
}

TEST(Tensor, IdsBecomeRowsOfOneLength) {
  const Tensor ids = Tensor::from_ids({{1, 2, 3}, {4, 5, 6}});
  EXPECT_EQ(ids.shape(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(ids.values<int32_t>()[4], 5);
  EXPECT_EQ(Tensor::from_ids({}).shape(), (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(code_of([] { Tensor::from_ids({{1, 2}, {3}}); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([] { Tensor::from_ids({{1}, {3, 4}}); }), ErrorCode::kInvalidArgument);
}

TEST(Tensor, ValuesMustFillTheShape) {
  const std::vector<float> values{1, 2, 3, 4};
  EXPECT_EQ(Tensor::from_values(values, {2, 2}).values<float>()[3], 4);
  EXPECT_EQ(code_of([&] { Tensor::from_values(values, {3}); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { Tensor::from_values(values, {5}); }), ErrorCode::kInvalidArgument);
}

TEST(Tensor, CopiesShareAndClonesDoNot) {
  Tensor a = Tensor::from_values(std::vector<float>{1, 2}, {2});
  Tensor shared = a;
  const Tensor cloned = a.clone();
  shared.values<float>()[0] = 7;
  EXPECT_EQ(a.values<float>()[0], 7);
  EXPECT_EQ(cloned.values<float>()[0], 1);
}

TEST(Tensor, WrapKeepsTheOwnerAlive) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3});
  const std::weak_ptr<std::vector<float>> watch = owner;
  float* data = owner->data();
  {
    const Tensor tensor = Tensor::wrap(std::move(owner), data, {3}, Dtype::kF32);
    EXPECT_EQ(tensor.data(), data);
    EXPECT_FALSE(watch.expired());
  }
  EXPECT_TRUE(watch.expired());
}

TEST(Tensor, ElementsAreOnlyGivenAsTheirOwnType) {
  Tensor floats({1}), halves({1}, Dtype::kF16), ids({1}, Dtype::kI32);
  EXPECT_EQ(code_of([&] { floats.values<int32_t>(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { floats.values<uint16_t>(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { halves.values<float>(); }), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of([&] { std::as_const(ids).values<float>(); }), ErrorCode::kInvalidArgument);
}

TEST(Tensor, WidensEveryElementType) {
  Tensor half({1}, Dtype::kF16), brain({1}, Dtype::kBF16), ids({1}, Dtype::kI32);
  half.values<uint16_t>()[0] = float_to_half(0.5f);
  brain.values<uint16_t>()[0] = float_to_bfloat16(-3.0f);
  ids.values<int32_t>()[0] = 12;
  EXPECT_EQ(half.to_float32().values<float>()[0], 0.5f);
  EXPECT_EQ(brain.to_float32().values<float>()[0], -3.0f);
  EXPECT_EQ(ids.to_float32().values<float>()[0], 12.0f);
}

TEST(TensorView, KnowsItsShapeAndDtype) {
  float data[6] = {};
  const TensorView view(data, Dtype::kF32, {2, 3});
  const ConstTensorView constant = view;
  EXPECT_EQ(constant.dim(1), 3);
  EXPECT_EQ(constant.n_elements(), 6);
  EXPECT_EQ(constant.f32(), data);
  EXPECT_TRUE(constant);
  EXPECT_FALSE(TensorView());
  EXPECT_EQ(TensorView().n_elements(), 0);
  EXPECT_EQ(code_of([&] { return view.dim(2); }), ErrorCode::kInternal);
  EXPECT_EQ(code_of([&] { return view.dim(-1); }), ErrorCode::kInternal);
  EXPECT_EQ(code_of([&] { TensorView(data, Dtype::kF16, {6}).f32(); }), ErrorCode::kInternal);
  EXPECT_EQ(code_of([&] { TensorView(data, Dtype::kF32, {1, 1, 1, 1, 1}); }), ErrorCode::kInternal);
}

}  // namespace
}  // namespace minillm
