#include "parallel/cpu_share.h"

#include <gtest/gtest.h>

#include <thread>

namespace lorica {
namespace {

// Eight CPUs, CPU i and i + 4 on one core.
HostCpus FourCores(Binding binding) {
  HostCpus host = {.usable = {0, 1, 2, 3, 4, 5, 6, 7}, .binding = binding};
  for (const int cpu : host.usable) host.core_of[cpu] = cpu % 4;
  return host;
}

TEST(CpuShareTest, ADefaultBindingGivesWayToEqualRunsOfCores) {
  const HostCpus host = FourCores(Binding::kDefault);
  const std::vector<Cpus> one_core_each = {{0, 4}, {1, 5}};
  EXPECT_EQ(ShareOf(host, one_core_each, 0),
            (CpuShare{.cpus = {0, 1, 4, 5}, .threads = 2, .bind = true}));
  EXPECT_EQ(ShareOf(host, one_core_each, 1),
            (CpuShare{.cpus = {2, 3, 6, 7}, .threads = 2, .bind = true}));
  const std::vector<Cpus> three = {{0}, {1}, {2}};
  EXPECT_EQ(ShareOf(host, three, 0).cpus, (Cpus{0, 1, 4, 5}));
  EXPECT_EQ(ShareOf(host, three, 2).cpus, (Cpus{3, 7}));
}

TEST(CpuShareTest, MoreRanksThanCoresStayWhereTheyAre) {
  const HostCpus host = FourCores(Binding::kDefault);
  const std::vector<Cpus> crowd(5, host.usable);
  EXPECT_EQ(ShareOf(host, crowd, 4),
            (CpuShare{.cpus = host.usable, .threads = 1, .bind = false}));
}

TEST(CpuShareTest, AChosenBindingIsKept) {
  const HostCpus host = FourCores(Binding::kChosen);
  const std::vector<Cpus> apart = {{0, 4}, {1, 2, 3}};
  EXPECT_EQ(ShareOf(host, apart, 0),
            (CpuShare{.cpus = {0, 4}, .threads = 1, .bind = false}));
  EXPECT_EQ(ShareOf(host, apart, 1).threads, 3);
  const std::vector<Cpus> unbound(2, host.usable);
  EXPECT_EQ(ShareOf(host, unbound, 1),
            (CpuShare{.cpus = host.usable, .threads = 2, .bind = false}));
}

TEST(CpuShareTest, ThisHostIsSeenAndItsBindingRestored) {
  std::thread([] {
    const HostCpus host = SeeHost();
    ASSERT_FALSE(host.started_on.empty());
    EXPECT_GE(host.usable.size(), host.started_on.size());
    EXPECT_EQ(host.core_of.size(), host.usable.size());
    BindTo({host.usable[0]});
    EXPECT_EQ(SeeHost().started_on, (Cpus{host.usable[0]}));
    EXPECT_EQ(SeeHost().usable, host.usable);
  }).join();
}

TEST(CpuShareTest, NumbersAreWrittenAsRanges) {
  EXPECT_EQ(RangesOf({}), "");
  EXPECT_EQ(RangesOf({3}), "3");
  EXPECT_EQ(RangesOf({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
}

}  // namespace
}  // namespace lorica
