// Every entry of the CPU's table against its scalar reference, on every case,
// with each kind of product and of vectors.
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "hwy/targets.h"
#include "runtime/allocator.h"
#include "runtime/device.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

struct Machine {
  const char* word;
  CpuIsa isa;
  int threads;
  int64_t targets;  // Of Highway; all where zero.
};

constexpr Machine kMachines[] = {
    {"OneThread", CpuIsa::kBest, 1, 0},
    {"TwoThreads", CpuIsa::kBest, 2, 0},
    {"WidenedProducts", CpuIsa::kF32, 2, 0},
    {"Avx2", CpuIsa::kF32, 1, HWY_AVX2},
    {"NoVectors", CpuIsa::kF32, 1, HWY_SCALAR},
};

// Kernels use only `targets` while it lives.
class TargetsLimited {
 public:
  explicit TargetsLimited(int64_t targets) { Limit(targets); }
  ~TargetsLimited() { Limit(0); }

 private:
  static void Limit(int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

void ExpectMatch(const OpCase& op_case,
                 const std::vector<OpExpectation>& expected,
                 const Machine& machine) {
  SCOPED_TRACE(machine.word);
  const TargetsLimited limited(machine.targets);
  const std::unique_ptr<Device> device =
      OpenCpuDevice({.threads = machine.threads,
                     .allocation = Allocation::kDirect,
                     .isa = machine.isa});
  const PreparedOp op = op_case.prepare(device.get());
  op.run();
  ASSERT_EQ(op.results.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(op.results[i].name, expected[i].name);
    ASSERT_EQ(op.results[i].value.elements(),
              static_cast<int64_t>(expected[i].value.values.size()));
    EXPECT_EQ(FirstDeviation(expected[i], op.results[i].value), "");
  }
}

// The parameter is an entry of the table.
class OpsReferenceTest : public ::testing::TestWithParam<std::string> {};

TEST_P(OpsReferenceTest, MatchesItsReference) {
  for (const OpCase& op_case : OpCases()) {
    if (op_case.entry != GetParam()) continue;
    SCOPED_TRACE(op_case.name);
    const std::vector<OpExpectation> expected = op_case.expect();
    for (const Machine& machine : kMachines) {
      ExpectMatch(op_case, expected, machine);
    }
  }
}

std::set<std::string> EntriesWithCases() {
  std::set<std::string> entries;
  for (const OpCase& op_case : OpCases()) entries.insert(op_case.entry);
  return entries;
}

INSTANTIATE_TEST_SUITE_P(Entries, OpsReferenceTest,
                         ::testing::ValuesIn(EntriesWithCases()),
                         [](const auto& test) { return test.param; });

// Entries that compute: those of memory, order and recording, which come
// before, have no case.
constexpr size_t kComputeEntries =
    (sizeof(Backend) - offsetof(Backend, fill)) / sizeof(Entry<void(Queue*)>);

TEST(OpCasesTest, EveryEntryOfTheTableHasACase) {
  EXPECT_EQ(EntriesWithCases().size(), kComputeEntries);
}

TEST(OpCasesTest, NamesAreUnique) {
  std::set<std::string> names;
  for (const OpCase& op_case : OpCases()) {
    const std::string name = op_case.entry + "/" + op_case.name;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

}  // namespace
}  // namespace lorica
