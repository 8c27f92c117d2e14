// Run under mpirun: every mesh of as many processes, against one rank.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "runtime/check.h"
#include "tests/model/parallel/split_run.h"

namespace lorica {
namespace {

const MpiEnvironment* environment = nullptr;

TEST(MpiMeshesTest, ProcessesTrainAsOneRankDoes) {
  const std::unique_ptr<Communicator> world = environment->World();
  const int ranks = world->size();
  for (int data = 1; data <= ranks; ++data) {
    if (ranks % data != 0) continue;
    SplitOptions options = {.mesh = {.data = data, .tensor = ranks / data}};
    options.micro_batches = 2 * data;
    // The first process makes the reference, without any collective, and
    // compares; the others only train.
    SplitResult one;
    Deviation bound;
    if (world->rank() == 0) {
      SplitOptions alone = options;
      alone.mesh = {};
      one = RunOnThreads(alone);
      alone.perturbation = RoundingOf(alone.dtype);
      bound = BoundOf(one, RunOnThreads(alone), alone.dtype);
    }
    for (const bool sequence : {false, true}) {
      if (sequence && options.mesh.tensor == 1) continue;
      options.mesh.tensor_sequence = sequence;
      SCOPED_TRACE(NameOf(options.mesh));
      const auto session =
          Session::Over(environment->World(), environment->placement(),
                        options.mesh, {.allocation = Allocation::kDirect});
      ASSERT_TRUE(session.ok()) << session.status();
      const SplitResult split = RunSplit(options, **session);
      if (!(*session)->leads()) continue;
      EXPECT_EQ(split.start, one.start);
      const Deviation observed = DeviationOf(split, one);
      ExpectWithin(observed, bound);
      if (options.mesh.tensor == 1) {
        EXPECT_EQ(split.gradients, one.gradients);
        EXPECT_EQ(split.training, one.training);
      }
      std::puts(DeviationHeader().c_str());
      std::puts(DeviationLine("bound", bound).c_str());
      std::puts(DeviationLine(NameOf(options.mesh), observed).c_str());
    }
  }
}

}  // namespace
}  // namespace lorica

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  auto started = lorica::MpiEnvironment::Start();
  CHECK(started.ok()) << started.status();
  lorica::environment = started->get();
  return RUN_ALL_TESTS();
}
