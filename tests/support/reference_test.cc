// The references' backward functions against complex steps through their
// forward functions: an imaginary step h leaves h times the derivative in the
// imaginary part, without cancellation, so h may be as small as 1e-50.
#include "tests/support/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <functional>
#include <vector>

#include "tests/support/operands.h"
#include "tests/support/reference_attention.h"

namespace lorica::reference {
namespace {

using Complex = std::complex<double>;
using ComplexMatrix = Matrix<Complex>;

constexpr double kStep = 1e-50;

// Of sums of a few hundred terms in double precision, relative to their norm.
constexpr double kRounding = 256.0 * 0x1p-52;

ComplexMatrix ToComplex(const HostMatrix& x) {
  ComplexMatrix y(x.rows, x.cols);
  for (size_t i = 0; i < x.values.size(); ++i) y.values[i] = x.values[i];
  return y;
}

// Checks dx against the derivatives of `loss` at x, element by element.
void ExpectGradient(const HostMatrix& x, const HostMatrix& dx,
                    const std::function<Complex(const ComplexMatrix&)>& loss) {
  double norm = 0.0;
  for (const double value : dx.values) norm += value * value;
  const double tolerance = kRounding * (1.0 + std::sqrt(norm));
  ASSERT_EQ(x.values.size(), dx.values.size());
  for (size_t i = 0; i < x.values.size(); ++i) {
    ComplexMatrix moved = ToComplex(x);
    moved.values[i] += Complex(0.0, kStep);
    EXPECT_NEAR(dx.values[i], loss(moved).imag() / kStep, tolerance)
        << "element " << i;
  }
}

Complex Dot(const HostMatrix& dy, const ComplexMatrix& y) {
  Complex sum = 0.0;
  for (size_t i = 0; i < dy.values.size(); ++i) {
    sum += dy.values[i] * y.values[i];
  }
  return sum;
}

HostMatrix Random(const char* name, int64_t rows, int64_t cols) {
  return RandomMatrix(name, rows, cols, DType::kF32);
}

TEST(ReferenceTest, RmsNormBackwardIsTheDerivative) {
  const HostMatrix x = Random("x", 3, 7);
  const HostMatrix weight = Random("weight", 1, 7);
  const HostMatrix dy = Random("dy", 3, 7);
  ExpectGradient(x, RmsNormBackward(dy, x, weight, 1e-5, Signs::kTrue),
                 [&](const ComplexMatrix& z) {
                   return Dot(dy, RmsNorm(z, ToComplex(weight), 1e-5));
                 });
}

TEST(ReferenceTest, LayerNormBackwardIsTheDerivative) {
  const HostMatrix x = Random("x", 3, 7);
  const HostMatrix weight = Random("weight", 1, 7);
  const HostMatrix bias = Random("bias", 1, 7);
  const HostMatrix dy = Random("dy", 3, 7);
  ExpectGradient(
      x, LayerNormBackward(dy, x, weight, 1e-5), [&](const ComplexMatrix& z) {
        return Dot(dy, LayerNorm(z, ToComplex(weight), ToComplex(bias), 1e-5));
      });
}

TEST(ReferenceTest, RopeTurnedBackIsTheDerivative) {
  const HostMatrix x = Random("x", 3, 12);
  const HostMatrix cos = Random("cos", 5, 3);
  const HostMatrix sin = Random("sin", 5, 3);
  const HostMatrix dy = Random("dy", 3, 12);
  const std::vector<int32_t> positions = {4, 0, 2};
  ExpectGradient(x, Rope(dy, cos, Scaled(sin, -1.0), positions, Signs::kTrue),
                 [&](const ComplexMatrix& z) {
                   return Dot(dy, Rope(z, ToComplex(cos), ToComplex(sin),
                                       positions, Signs::kTrue));
                 });
}

TEST(ReferenceTest, SwigluBackwardIsTheDerivative) {
  const HostMatrix gate = Scaled(Random("gate", 4, 9), 8.0);
  const HostMatrix up = Random("up", 4, 9);
  const HostMatrix dy = Random("dy", 4, 9);
  const auto grads = SwigluBackward(dy, gate, up, Signs::kTrue);
  ExpectGradient(gate, grads.dgate, [&](const ComplexMatrix& z) {
    return Dot(dy, Swiglu(z, ToComplex(up)));
  });
  ExpectGradient(up, grads.dup, [&](const ComplexMatrix& z) {
    return Dot(dy, Swiglu(ToComplex(gate), z));
  });
}

TEST(ReferenceTest, GeluBackwardIsTheDerivative) {
  const HostMatrix x = Scaled(Random("x", 4, 9), 4.0);
  const HostMatrix dy = Random("dy", 4, 9);
  ExpectGradient(x, GeluBackward(dy, x),
                 [&](const ComplexMatrix& z) { return Dot(dy, Gelu(z)); });
}

TEST(ReferenceTest, GeluIsTheTanhForm) {
  const HostMatrix x = Scaled(Random("x", 4, 9), 4.0);
  const HostMatrix y = Gelu(x);
  for (size_t i = 0; i < x.values.size(); ++i) {
    const double v = x.values[i];
    const double tanh =
        std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v));
    EXPECT_NEAR(y.values[i], 0.5 * v * (1.0 + tanh), kRounding);
  }
}

TEST(ReferenceTest, AttentionBackwardIsTheDerivative) {
  // Two records, the second with earlier keys, and two heads on one.
  const AttentionShape shape = {
      .segments = {{0, 5, 0, 5}, {5, 3, 5, 6}}, .head_dim = 4, .scale = 0.5};
  const HostMatrix q = Scaled(Random("q", 8, 8), 2.0);
  const HostMatrix k = Scaled(Random("k", 11, 4), 2.0);
  const HostMatrix v = Random("v", 11, 4);
  const HostMatrix dout = Random("dout", 8, 8);
  const auto grads = AttentionBackward(dout, q, k, v, shape, Signs::kTrue);
  const auto loss = [&](const ComplexMatrix& at_q, const ComplexMatrix& at_k,
                        const ComplexMatrix& at_v) {
    return Dot(dout, Attention(at_q, at_k, at_v, shape).out);
  };
  ExpectGradient(q, grads.dq, [&](const ComplexMatrix& z) {
    return loss(z, ToComplex(k), ToComplex(v));
  });
  ExpectGradient(k, grads.dk, [&](const ComplexMatrix& z) {
    return loss(ToComplex(q), z, ToComplex(v));
  });
  ExpectGradient(v, grads.dv, [&](const ComplexMatrix& z) {
    return loss(ToComplex(q), ToComplex(k), z);
  });
}

TEST(ReferenceTest, LogitGradIsTheDerivativeOfTheLoss) {
  const HostMatrix h = Random("h", 4, 6);
  const HostMatrix weight = Random("weight", 9, 6);
  const std::vector<int32_t> targets = {2, 8, 0, 5};
  constexpr double kScale = 0.25;
  const auto stats = LogitStats(h, weight, targets, 0);
  ExpectGradient(
      h, LogitGrad(h, weight, targets, stats, 0, kScale, Signs::kTrue),
      [&](const ComplexMatrix& z) {
        Complex loss = 0.0;
        for (const HeadRow<Complex>& row :
             LogitStats(z, ToComplex(weight), targets, 0)) {
          loss += kScale * (row.max + std::log(row.sum) - row.target_logit);
        }
        return loss;
      });
}

// Of a vocabulary of nine, five in the first slice.
struct SplitWeight {
  HostMatrix whole = Random("weight", 9, 6);
  HostMatrix first = HostMatrix(5, 6);
  HostMatrix second = HostMatrix(4, 6);

  SplitWeight() {
    for (int64_t r = 0; r < whole.rows; ++r) {
      for (int64_t c = 0; c < 6; ++c) {
        (r < 5 ? first(r, c) : second(r - 5, c)) = whole(r, c);
      }
    }
  }
};

TEST(ReferenceTest, StatisticsOfSlicesMergeToThoseOfTheWhole) {
  const HostMatrix h = Random("h", 4, 6);
  const SplitWeight weight;
  const std::vector<int32_t> targets = {2, 8, -1, 5};
  const auto whole = LogitStats(h, weight.whole, targets, 0);
  const auto merged =
      MergeLogitStats<double>({LogitStats(h, weight.first, targets, 0),
                               LogitStats(h, weight.second, targets, 5)});
  ASSERT_EQ(merged.size(), whole.size());
  for (size_t r = 0; r < whole.size(); ++r) {
    EXPECT_EQ(merged[r].max, whole[r].max);
    EXPECT_NEAR(merged[r].sum, whole[r].sum, kRounding);
    EXPECT_EQ(merged[r].target_logit, whole[r].target_logit);
  }
}

TEST(ReferenceTest, SlicesOfTheVocabularyAddUpToTheWholeGradient) {
  const HostMatrix h = Random("h", 4, 6);
  const auto [weight, first, second] = SplitWeight();
  const std::vector<int32_t> targets = {2, 8, 0, 5};
  const auto stats = LogitStats(h, weight, targets, 0);
  const HostMatrix whole =
      LogitGrad(h, weight, targets, stats, 0, 1.0, Signs::kTrue);
  const HostMatrix sum =
      Sum(LogitGrad(h, first, targets, stats, 0, 1.0, Signs::kTrue),
          LogitGrad(h, second, targets, stats, 5, 1.0, Signs::kTrue));
  for (size_t i = 0; i < whole.values.size(); ++i) {
    EXPECT_NEAR(whole.values[i], sum.values[i], kRounding);
  }
}

}  // namespace
}  // namespace lorica::reference
