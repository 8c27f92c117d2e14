#include "runtime/cpu/dense_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/allocator.h"
#include "runtime/cpu/queue.h"
#include "runtime/device.h"
#include "runtime/tensor.h"
#include "tests/support/operands.h"
#include "tests/support/reference.h"
#include "tests/support/tolerance.h"

namespace lorica {
namespace {

struct Shape {
  MatmulForm form;
  int64_t rows;
  int64_t cols;
  std::vector<int64_t> depths;  // K of each term.
  DType result = DType::kBF16;
  Update update = Update::kAssign;
};

std::ostream& operator<<(std::ostream& out, const Shape& s) {
  out << (s.form == MatmulForm::kNT ? "NT " : "NN ") << s.rows << " x "
      << s.cols << " from";
  for (const int64_t depth : s.depths) out << " " << depth;
  return out << (s.result == DType::kF32 ? ", F32" : ", BF16")
             << (s.update == Update::kAdd ? ", added" : "");
}

// The operands of a shape on the host.
struct Terms {
  explicit Terms(const Shape& shape) {
    for (size_t i = 0; i < shape.depths.size(); ++i) {
      const bool rows_are_cols = shape.form == MatmulForm::kNT;
      const int64_t k = shape.depths[i];
      a.push_back(RandomMatrix(absl::StrCat("a", i).c_str(), shape.rows, k,
                               DType::kBF16));
      b.push_back(RandomMatrix(absl::StrCat("b", i).c_str(),
                               rows_are_cols ? shape.cols : k,
                               rows_are_cols ? k : shape.cols, DType::kBF16));
    }
    before = RandomMatrix("y", shape.rows, shape.cols, shape.result);
  }

  std::vector<HostMatrix> a;
  std::vector<HostMatrix> b;
  HostMatrix before;
};

class DenseProductsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (QueueOf(*one_)->bf16_products == cpu::Bf16Products::kWidened) {
      GTEST_SKIP() << "this processor has no BF16 products";
    }
  }

  static cpu::Queue* QueueOf(Device& device) {
    return static_cast<cpu::Queue*>(device.queue());
  }

  // Operands and result are slices of wider matrices.
  static std::vector<float> Run(Device* device, const Shape& shape,
                                const Terms& host, Range rows) {
    std::vector<Tensor> operands;
    std::vector<ProductTerm> terms;
    for (size_t i = 0; i < host.a.size(); ++i) {
      const Tensor a =
          Upload(device, host.a[i], DType::kBF16, Layout2d::kStrided);
      const Tensor b =
          Upload(device, host.b[i], DType::kBF16, Layout2d::kStrided);
      terms.push_back({a.Rows(rows).view(), b.view()});
      operands.push_back(a);
      operands.push_back(b);
    }
    const Tensor y =
        Upload(device, host.before, shape.result, Layout2d::kStrided);
    const ArrayView<ProductTerm> all = {terms.data(),
                                        static_cast<int64_t>(terms.size())};
    EXPECT_TRUE(cpu::IsDense(*QueueOf(*device), shape.form, all));
    cpu::SumOfProducts(QueueOf(*device), shape.form, all, {}, shape.update,
                       y.Rows(rows).view());
    return y.Rows(rows).ToFloats();
  }

  static std::unique_ptr<Device> Open(int threads) {
    return OpenCpuDevice(
        {.threads = threads, .allocation = Allocation::kDirect});
  }

  std::unique_ptr<Device> one_ = Open(1);
  std::unique_ptr<Device> three_ = Open(3);
};

// The exact sum, and the sum of the terms' magnitudes.
struct Exact {
  HostMatrix value;
  HostMatrix magnitude;
};

Exact ExactSum(const Shape& shape, const Terms& terms) {
  Exact exact{terms.before, reference::Absolute(terms.before)};
  if (shape.update == Update::kAssign) {
    exact.value = exact.magnitude = HostMatrix(shape.rows, shape.cols);
  }
  for (size_t t = 0; t < terms.a.size(); ++t) {
    const HostMatrix product =
        reference::Matmul(shape.form, terms.a[t], terms.b[t]);
    const HostMatrix sizes =
        reference::Matmul(shape.form, reference::Absolute(terms.a[t]),
                          reference::Absolute(terms.b[t]));
    for (size_t i = 0; i < product.values.size(); ++i) {
      exact.value.values[i] += product.values[i];
      exact.magnitude.values[i] += sizes.values[i];
    }
  }
  return exact;
}

const std::vector<Shape>& Shapes() {
  using enum MatmulForm;
  static const std::vector<Shape>* const shapes = new std::vector<Shape>{
      // Blocks of 12, 8, 4 and single rows; whole and partial panels.
      {kNT, 25, 64, {64}},
      {kNN, 27, 64, {64}},
      {kNT, 8, 33, {34}},
      {kNN, 8, 33, {34}},
      {kNT, 13, 1, {2}, DType::kF32},
      {kNN, 13, 1, {2}, DType::kF32},
      {kNT, 9, 17, {30}, DType::kF32, Update::kAdd},
      {kNN, 9, 49, {66}, DType::kBF16, Update::kAdd},
      // A frozen product and an adapter's; three parts and an adapter's.
      {kNT, 12, 40, {48, 8}},
      {kNN, 12, 40, {48, 16, 16, 6}},
      // More than one panel holds, and a term that begins in the second.
      {kNT, 9, 35, {4096, 10}},
      {kNN, 9, 35, {4090, 4100, 8}},
      {kNN, 9, 35, {8194}, DType::kF32, Update::kAdd},
      {kNT, 9, 35, {4098}, DType::kBF16, Update::kAdd},
      // Rows that are dealt to threads.
      {kNT, 301, 20, {16}},
  };
  return *shapes;
}

TEST_F(DenseProductsTest, AreSummedExactlyAndRoundedOnce) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(::testing::Message() << shape);
    const Terms terms(shape);
    const Exact exact = ExactSum(shape, terms);
    int64_t length = 1;
    for (const int64_t depth : shape.depths) length += depth;
    const std::vector<float> got =
        Run(three_.get(), shape, terms, {0, shape.rows});
    for (size_t i = 0; i < got.size(); ++i) {
      const double bound = Tolerance(DType::kF32, shape.result, length,
                                     {.value = std::abs(exact.value.values[i]),
                                      .rounded = 0.0,
                                      .summed = exact.magnitude.values[i]});
      ASSERT_NEAR(got[i], exact.value.values[i], bound) << i;
    }
  }
}

TEST_F(DenseProductsTest, BitsDependOnNeitherThreadsNorOtherRows) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(::testing::Message() << shape);
    const Terms terms(shape);
    const std::vector<float> whole =
        Run(three_.get(), shape, terms, {0, shape.rows});
    // From row 0 a block of 12 has these rows, from row 1 one of 8.
    const Range rows = {1, 9};
    if (rows.end > shape.rows) continue;
    const std::vector<float> part = Run(one_.get(), shape, terms, rows);
    for (size_t i = 0; i < part.size(); ++i) {
      ASSERT_EQ(part[i], whole[i + static_cast<size_t>(shape.cols)]) << i;
    }
  }
}

TEST_F(DenseProductsTest, OthersAreLeftToOneDnn) {
  const auto is_dense = [&](MatmulForm form, int64_t rows, int64_t depth,
                            DType dtype) {
    const Tensor a = Tensor::Empty(one_.get(), {rows, depth}, dtype);
    const Tensor b = Tensor::Empty(one_.get(), {depth, depth}, dtype);
    const ProductTerm term = {a.view(), b.view()};
    return cpu::IsDense(*QueueOf(*one_), form, {&term, 1});
  };
  EXPECT_TRUE(is_dense(MatmulForm::kNT, 8, 16, DType::kBF16));
  EXPECT_TRUE(is_dense(MatmulForm::kNN, 8, 16, DType::kBF16));
  EXPECT_FALSE(is_dense(MatmulForm::kTN, 8, 16, DType::kBF16));
  EXPECT_FALSE(is_dense(MatmulForm::kNT, 8, 15, DType::kBF16)) << "odd depth";
  EXPECT_FALSE(is_dense(MatmulForm::kNT, 7, 16, DType::kBF16)) << "few rows";
  EXPECT_FALSE(is_dense(MatmulForm::kNT, 8, 16, DType::kF32));
}

}  // namespace
}  // namespace lorica
