#include "parallel/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "runtime/dtype.h"

namespace lorica {
namespace {

// (1 + e) + (e + e) keeps what ((1 + e) + e) + e loses.
TEST(ReduceTest, TermsAreAddedInTheTree) {
  const float e = 0x1p-24f;
  const std::vector<std::vector<float>> terms = {
      std::vector<float>(3000, 1.0f), std::vector<float>(3000, e),
      std::vector<float>(3000, e), std::vector<float>(3000, e)};
  std::vector<const void*> addresses;
  for (const std::vector<float>& term : terms) addresses.push_back(term.data());
  std::vector<float> sum(3000);
  SumTerms<float>(addresses, 3000, sum.data());
  const float in_tree = (1.0f + e) + (e + e);
  ASSERT_NE(in_tree, ((1.0f + e) + e) + e);
  EXPECT_EQ(sum, std::vector<float>(3000, in_tree));
}

TEST(ReduceTest, BFloat16RoundsAsItsConversion) {
  std::vector<BFloat16> x;
  std::vector<BFloat16> y;
  std::vector<BFloat16> expected;
  for (uint32_t i = 0; i < 0x10000; ++i) {  // All numbers, infinities and NaNs.
    x.emplace_back().bits = static_cast<uint16_t>(i);
    y.emplace_back().bits = static_cast<uint16_t>(i * 40503u);
    expected.emplace_back(static_cast<float>(x.back()) +
                          static_cast<float>(y.back()));
  }
  std::vector<BFloat16> sum(x.size());
  SumTerms<BFloat16>({x.data(), y.data()}, std::ssize(x), sum.data());
  for (size_t i = 0; i < x.size(); ++i) {
    // Which NaN comes out of a sum of two is the compiler's choice.
    ASSERT_TRUE(sum[i].bits == expected[i].bits ||
                (std::isnan(static_cast<float>(sum[i])) &&
                 std::isnan(static_cast<float>(expected[i]))))
        << x[i].bits << " + " << y[i].bits;
  }
}

TEST(ReduceTest, AResultMayReplaceATerm) {
  std::vector<int64_t> a(5000, 3);
  const std::vector<int64_t> b(5000, 4);
  const std::vector<int64_t> c(5000, 5);
  SumTerms<int64_t>({b.data(), a.data(), c.data()}, 5000, a.data());
  EXPECT_EQ(a, std::vector<int64_t>(5000, 12));
  MaxTerms<int64_t>({b.data(), a.data()}, 4999, a.data());
  EXPECT_EQ(a.back(), 12);
}

}  // namespace
}  // namespace lorica
