#include "runtime/cpu/matmul.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/allocator.h"
#include "runtime/cpu/queue.h"
#include "runtime/device.h"
#include "runtime/ops.h"
#include "runtime/tensor.h"
#include "tests/support/operands.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace lorica {
namespace {

class MatmulTest : public ::testing::Test {
 protected:
  MatmulArgs Dense(MatmulForm form, int64_t m, int64_t n, int64_t k) {
    const bool a_transposed = form == MatmulForm::kTN;
    const bool b_transposed = form == MatmulForm::kNT;
    a_ = Tensor::Empty(device_.get(),
                       {a_transposed ? k : m, a_transposed ? m : k},
                       DType::kF32);
    b_ = Tensor::Empty(device_.get(),
                       {b_transposed ? n : k, b_transposed ? k : n},
                       DType::kF32);
    y_ = Tensor::Empty(device_.get(), {m, n}, DType::kF32);
    return {.form = form, .a = a_.view(), .b = b_.view(), .y = y_.view()};
  }

  cpu::Queue* queue() { return static_cast<cpu::Queue*>(device_->queue()); }
  cpu::MatmulCache& cache() { return queue()->matmuls; }

  std::unique_ptr<Device> device_ =
      OpenCpuDevice({.allocation = Allocation::kDirect});
  Tensor a_;
  Tensor b_;
  Tensor y_;
};

// The blocked code reads plain row-major operands at 93 to 96 % of the
// processor's peak; its fallback loses a few percent.
TEST_F(MatmulTest, DenseProductsRunInBlockedCode) {
  struct Shape3 {
    MatmulForm form;
    int64_t n;
    int64_t k;
  };
  constexpr Shape3 kShapes[] = {
      {MatmulForm::kNT, 576, 576},  {MatmulForm::kNT, 192, 576},
      {MatmulForm::kNT, 1536, 576}, {MatmulForm::kNT, 576, 1536},
      {MatmulForm::kNN, 576, 192},  {MatmulForm::kNN, 576, 1536},
      {MatmulForm::kNN, 1536, 576}, {MatmulForm::kNT, 2048, 576},
      {MatmulForm::kNN, 576, 2048}};
  for (const auto& [form, n, k] : kShapes) {
    for (const Update update : {Update::kAssign, Update::kAdd}) {
      MatmulArgs args = Dense(form, 256, n, k);
      args.update = update;
      EXPECT_NE(cache().Implementation(args).find("brg"), std::string::npos)
          << cache().Implementation(args) << " for " << n << " x " << k;
    }
  }
}

TEST_F(MatmulTest, CompiledProductsAreReused) {
  const MatmulArgs args = Dense(MatmulForm::kNN, 16, 16, 16);
  cache().Run(queue(), args);
  cache().Run(queue(), args);
  EXPECT_EQ(cache().size(), 1u);
  MatmulArgs other = args;
  other.update = Update::kAdd;
  cache().Run(queue(), other);
  EXPECT_EQ(cache().size(), 2u);
}

TEST_F(MatmulTest, TheLatestProductsAreKept) {
  const auto run = [&](int64_t m) {
    cache().Run(queue(), Dense(MatmulForm::kNN, m, 8, 8));
  };
  const auto capacity = static_cast<int64_t>(cpu::MatmulCache::kCapacity);
  for (int64_t m = 1; m <= capacity + 20; ++m) run(m);
  EXPECT_EQ(cache().size(), cpu::MatmulCache::kCapacity);
}

// Rows beyond the last that fits the few-rows path take the other one; both
// must give the same product.
TEST_F(MatmulTest, FewRowsAreTheFirstRowsOfMany) {
  const HostMatrix a = RandomMatrix("a", 16, 40, DType::kF32);
  const HostMatrix b = RandomMatrix("b", 24, 40, DType::kF32);
  const Tensor on_a = Upload(device_.get(), a, DType::kF32);
  const Tensor on_b = Upload(device_.get(), b, DType::kF32);
  const std::vector<float> many = ops::MatmulNT(on_a, on_b).ToFloats();
  const int64_t few = cpu::kMaxFewRows;
  const std::vector<float> some =
      ops::MatmulNT(on_a.Rows({0, few}), on_b).ToFloats();
  const HostMatrix terms =
      Matmul(MatmulForm::kNT, reference::Absolute(a), reference::Absolute(b));
  for (size_t i = 0; i < some.size(); ++i) {
    const double tolerance = Tolerance(
        DType::kF32, DType::kF32, a.cols,
        {.value = 0.0, .rounded = terms.values[i], .summed = terms.values[i]});
    EXPECT_NEAR(some[i], many[i], 2.0 * tolerance) << i;
  }
}

}  // namespace
}  // namespace lorica
