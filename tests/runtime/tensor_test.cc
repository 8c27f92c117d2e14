#include "runtime/tensor.h"

#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/device.h"
#include "runtime/ops.h"

namespace lorica {
namespace {

using testing::ElementsAre;

class TensorTest : public testing::Test {
 protected:
  std::unique_ptr<Device> device_ =
      OpenCpuDevice({.allocation = Allocation::kDirect});
  Tensor matrix_ = Tensor::FromHost<float>(
      device_.get(), {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
};

TEST_F(TensorTest, ColumnsKeepTheirRowsStride) {
  const Tensor cols = matrix_.Cols({1, 3});
  EXPECT_FALSE(cols.dense());
  EXPECT_EQ(cols.view().row_stride, 3);
  EXPECT_THAT(cols.ToHost<float>(), ElementsAre(2, 3, 5, 6));
}

TEST_F(TensorTest, RowsOfColumnsAreWhereTheyShouldBe) {
  EXPECT_THAT(matrix_.Cols({2, 3}).Rows({1, 2}).ToHost<float>(),
              ElementsAre(6));
}

TEST_F(TensorTest, SlicesShareStorageAndOutliveTheirOrigin) {
  const Tensor row = matrix_.Rows({1, 2});
  matrix_ = {};
  EXPECT_THAT(row.ToHost<float>(), ElementsAre(4, 5, 6));
}

TEST_F(TensorTest, AVectorIsOneRow) {
  const Tensor vector = matrix_.Reshape({6});
  EXPECT_EQ(vector.rows(), 1);
  EXPECT_EQ(vector.cols(), 6);
  EXPECT_THAT(vector.Cols({4, 6}).ToHost<float>(), ElementsAre(5, 6));
}

TEST_F(TensorTest, WhatLiesInTheRoomBesideATensorIsNoPartOfIt) {
  const Tensor whole = Tensor::WithRoom(device_.get(), {2, 3}, DType::kF32, 2);
  EXPECT_EQ(whole.view().row_stride, 64);
  EXPECT_EQ(whole.spare_cols(), 61);
  Tensor beside = whole.Spare(2);
  EXPECT_EQ(beside.shape(), (Shape{2, 2}));
  EXPECT_EQ(beside.data(), whole.view().As<float>() + 3);
  EXPECT_EQ(beside.view().row_stride, 64);
  Tensor values = whole;
  ops::ConvertInto(matrix_, 1.0f, &values);
  ops::Fill(9.0f, &beside);
  EXPECT_THAT(whole.ToHost<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(beside.ToHost<float>(), ElementsAre(9, 9, 9, 9));
}

TEST_F(TensorTest, SlicesKeepTheRoomThatIsBesideThem) {
  const Tensor whole = Tensor::WithRoom(device_.get(), {2, 3}, DType::kF32, 2);
  EXPECT_EQ(whole.Rows({1, 2}).spare_cols(), 61);
  EXPECT_EQ(whole.Cols({1, 3}).spare_cols(), 61);
  EXPECT_EQ(whole.Cols({1, 3}).Spare(1).data(), whole.Spare(1).data());
  EXPECT_EQ(whole.Cols({0, 2}).spare_cols(), 0);
  EXPECT_EQ(matrix_.spare_cols(), 0);
  EXPECT_TRUE(Tensor::WithRoom(device_.get(), {2, 3}, DType::kF32, 0).dense());
  EXPECT_DEATH(whole.Spare(62), "62 of 61 beside \\[2, 3\\]");
}

TEST_F(TensorTest, ADefaultTensorIsAbsent) {
  EXPECT_FALSE(Tensor().present());
  EXPECT_FALSE(Tensor().view().present());
}

TEST_F(TensorTest, AStridedTensorHasNoOtherShape) {
  EXPECT_DEATH(matrix_.Cols({0, 2}).Reshape({4}), "dense");
}

TEST_F(TensorTest, ASliceBeyondTheEndIsFatal) {
  EXPECT_DEATH(matrix_.Rows({1, 3}), "of \\[2, 3\\]");
}

}  // namespace
}  // namespace lorica
