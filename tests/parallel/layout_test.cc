#include "parallel/layout.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "parallel/shard_spec.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

constexpr Purpose kAny = Purpose::kActivation;
constexpr int64_t kRows = 7;
constexpr int64_t kCols = 3;

constexpr Transition kTransitions[] = {
    {Layout::kInvariant, Layout::kReplicated},
    {Layout::kPartial, Layout::kInvariant},
    {Layout::kSharded, Layout::kReplicated},
    {Layout::kPartial, Layout::kSharded},
    {Layout::kInvariant, Layout::kInvariant},
    {Layout::kSharded, Layout::kSharded},
};

// Some integer array of the layout; `salt` tells arrays apart.
Tensor Make(Device* device, Layout layout, int salt,
            const Communicator& group) {
  Range rows = {0, kRows};
  int term = 0;
  if (layout == Layout::kSharded) {
    rows = SplitUnits(kRows, group.rank(), group.size());
  } else if (layout == Layout::kPartial) {
    term = group.rank() + 1;
  }
  std::vector<float> values;
  for (int64_t i = rows.begin * kCols; i < rows.end * kCols; ++i) {
    values.push_back(static_cast<float>((i * 5 + salt * 3 + term * 2) % 11));
  }
  return Tensor::FromHost<float>(device, {rows.size(), kCols}, values);
}

// The product of a value and a gradient, over the whole array. `layout` is the
// value's; the gradient has its dual, so over the ranks the products of what
// they hold add up, except that invariant arrays are whole on all of them.
double Product(const Tensor& value, const Tensor& grad, Layout layout,
               Communicator& group) {
  const std::vector<float> v = value.ToHost<float>();
  const std::vector<float> g = grad.ToHost<float>();
  EXPECT_EQ(v.size(), g.size());
  double product = 0.0;
  for (size_t i = 0; i < v.size(); ++i) product += v[i] * g[i];
  if (layout == Layout::kInvariant) return product;
  group.AllReduceSum(absl::MakeSpan(&product, 1), kAny);
  return product;
}

class LayoutTest : public testing::TestWithParam<std::tuple<Transition, int>> {
};

TEST_P(LayoutTest, BackwardOfATransitionIsTheDualTransition) {
  const auto& [transition, ranks] = GetParam();
  RunRanks(ranks, [t = transition](std::unique_ptr<Communicator> group) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const auto make = [&](Layout layout, int salt) {
      return Make(device.get(), layout, salt, *group);
    };
    // Redistribute may work in place, so each use gets its own.
    const Tensor y = Redistribute(make(t.from, 1), t, kRows, *group, kAny);
    const Tensor dx =
        RedistributeGrad(make(Dual(t.to), 2), t, kRows, *group, kAny);
    EXPECT_EQ(Product(y, make(Dual(t.to), 2), t.to, *group),
              Product(make(t.from, 1), dx, t.from, *group));
  });
}

INSTANTIATE_TEST_SUITE_P(Transitions, LayoutTest,
                         testing::Combine(testing::ValuesIn(kTransitions),
                                          testing::Values(1, 2, 3, 5)));

TEST(LayoutTest, OnlyTransitionsBetweenLayoutsMoveBytes) {
  RunRanks(3, [](std::unique_ptr<Communicator> group) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const std::vector<int> calls = {0, 1, 1, 1, 0, 0};
    for (size_t i = 0; i < calls.size(); ++i) {
      const Transition t = kTransitions[i];
      group->ResetTraffic();
      Redistribute(Make(device.get(), t.from, 0, *group), t, kRows, *group,
                   Purpose::kActivation);
      EXPECT_EQ(group->traffic(Purpose::kActivation).calls, calls[i]) << t;
      EXPECT_EQ(NeedsCollective(t, *group), calls[i] > 0) << t;
    }
  });
}

TEST(LayoutTest, PartialTermsAddUpAndSlicesJoin) {
  RunRanks(2, [](std::unique_ptr<Communicator> group) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const float last = group->rank() == 0 ? 4.0f : 8.0f;
    const Tensor term =
        Tensor::FromHost<float>(device.get(), {3, 1}, {1.0f, 2.0f, last});
    const Tensor slice = Redistribute(
        term, {Layout::kPartial, Layout::kSharded}, 3, *group, kAny);
    EXPECT_EQ(slice.ToHost<float>(), group->rank() == 0
                                         ? (std::vector<float>{2.0f, 4.0f})
                                         : (std::vector<float>{12.0f}));
    const Tensor whole = Redistribute(
        slice, {Layout::kSharded, Layout::kReplicated}, 3, *group, kAny);
    EXPECT_EQ(whole.ToHost<float>(), (std::vector<float>{2.0f, 4.0f, 12.0f}));
  });
}

TEST(LayoutDeathTest, OtherTransitionsAreMistakes) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      RunRanks(2,
               [](std::unique_ptr<Communicator> group) {
                 const std::unique_ptr<Device> device = OpenTestDevice();
                 Redistribute(
                     Make(device.get(), Layout::kReplicated, 0, *group),
                     {Layout::kReplicated, Layout::kInvariant}, kRows, *group,
                     kAny);
               }),
      "no transition replicated -> invariant");
}

}  // namespace
}  // namespace lorica
