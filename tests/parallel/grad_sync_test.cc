#include "parallel/grad_sync.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/ops.h"
#include "runtime/random.h"
#include "tests/support/run_ranks.h"

namespace lorica {
namespace {

using testing::Each;
using testing::ElementsAre;

// Parameters of every kind over a tensor group of `ranks`: replicated,
// sharded unevenly, shared by pairs of ranks, replicated again, shared again,
// held whole with a whole gradient, and in halves of which ranks beyond two
// have nothing. Sixteen rows each.
std::vector<ShardSpec> Specs(int ranks) {
  Split pairs;
  for (int rank = 0; rank < ranks; ++rank) {
    const Range half = SplitUnits(16, rank / 2, (ranks + 1) / 2);
    pairs.push_back(half);
  }
  return {Replicated(),
          Sharded(0, SplitEvenly(16, 1, ranks)),
          Sharded(0, pairs),
          Replicated(),
          Sharded(0, pairs),
          Invariant(),
          Sharded(0, SplitEvenly(16, 8, ranks))};
}

constexpr Shape kGlobal = {16, 3};

struct Flat {
  std::vector<FlatSlice> slices;
  int64_t elements = 0;
};

// With a gap after each slice, as alignment makes.
Flat LayOut(int tensor_rank, int tensor_ranks) {
  Flat flat;
  for (const ShardSpec& spec : Specs(tensor_ranks)) {
    const int64_t size = LocalShape(spec, kGlobal, tensor_rank).elements();
    flat.slices.push_back({spec, {flat.elements, flat.elements + size}});
    flat.elements += size + 5;
  }
  return flat;
}

// The gradient term of a parameter's element: an integer where `exact`.
float TermOf(size_t param, int64_t element, int64_t micro_batch,
             int tensor_rank, bool exact) {
  const RandomField field = {
      static_cast<uint64_t>(param),
      static_cast<uint64_t>(micro_batch * 16 + tensor_rank)};
  const uint64_t index = static_cast<uint64_t>(element);
  return exact ? static_cast<float>(field.Word(index) % 100)
               : field.Uniform(index) - 0.5f;
}

struct Result {
  std::vector<std::vector<float>> params;  // This rank's slices.
  double squared_norm = 0.0;
};

// How a step's sums are cut, and where Ready is called.
enum class Buckets : uint8_t { kOne, kThree, kThreeReady };

// Parameters 5 and 2, then 4 alone, then the others, as Specs numbers them.
std::vector<Bucket> BucketsOf(const Flat& layout, Buckets buckets) {
  if (buckets == Buckets::kOne) return {};
  const auto range = [&](size_t p) { return layout.slices[p].range; };
  return {{range(5), range(2)},
          {range(4)},
          {range(0), range(1), range(3), range(6)}};
}

// A step from zeros on.
void Step(const Mesh& mesh, const Flat& layout, int64_t micro_batches,
          bool exact, Buckets buckets, const Tensor& flat, GradSync* sync) {
  const int tensor_rank = mesh.tensor().rank();
  for (int64_t m = 0; m < micro_batches; ++m) {
    std::vector<float> values = flat.ToHost<float>();
    for (size_t p = 0; p < layout.slices.size(); ++p) {
      const FlatSlice& slice = layout.slices[p];
      const int64_t first =
          SliceOf(slice.shard, kGlobal, tensor_rank).rows.begin * 3;
      // Whole gradients are the same on all ranks.
      const int term_rank =
          slice.shard.layout == Layout::kInvariant ? 0 : tensor_rank;
      for (int64_t i = slice.range.begin; i < slice.range.end; ++i) {
        values[i] +=
            TermOf(p, first + i - slice.range.begin,
                   mesh.data().rank() * micro_batches + m, term_rank, exact);
      }
    }
    flat.CopyFrom(values.data());
    if (m + 1 == micro_batches && buckets == Buckets::kThreeReady) {
      for (int b = 0; b < sync->num_buckets(); ++b) sync->Ready(b);
    }
    sync->AddMicroBatch();
  }
  sync->Reduce();
}

Result SyncOn(const Mesh& mesh, int64_t micro_batches, bool exact,
              Buckets buckets = Buckets::kOne) {
  const std::unique_ptr<Device> device = OpenTestDevice();
  const Flat layout = LayOut(mesh.tensor().rank(), mesh.tensor().size());
  const Tensor flat =
      Tensor::Zeros(device.get(), {layout.elements}, DType::kF32);
  GradSync sync(layout.slices, flat, micro_batches, mesh,
                BucketsOf(layout, buckets));
  Step(mesh, layout, micro_batches, exact, buckets, flat, &sync);
  Result result;
  for (const FlatSlice& slice : layout.slices) {
    result.params.push_back(flat.Cols(slice.range).ToHost<float>());
  }
  result.squared_norm = sync.SquaredNorm();
  return result;
}

void OnMesh(int data, int tensor,
            const std::function<void(const Mesh& mesh)>& body) {
  RunRanks(data * tensor, [&](std::unique_ptr<Communicator> world) {
    const absl::StatusOr<Mesh> mesh =
        Mesh::Create({.data = data, .tensor = tensor}, std::move(world));
    ASSERT_TRUE(mesh.ok()) << mesh.status();
    body(*mesh);
  });
}

void CheckSums(int data, int tensor, int64_t micro_batches) {
  OnMesh(data, tensor, [&](const Mesh& mesh) {
    const Result result = SyncOn(mesh, micro_batches, true);
    const std::vector<ShardSpec> specs = Specs(tensor);
    const int rank = mesh.tensor().rank();
    double squared_norm = 0.0;
    for (size_t p = 0; p < specs.size(); ++p) {
      const Slice mine = SliceOf(specs[p], kGlobal, rank);
      for (int64_t i = 0; i < kGlobal.elements(); ++i) {
        // Everybody's terms of the whole parameter, each counted once.
        float whole = 0.0f;
        float held = 0.0f;
        for (int peer = 0; peer < tensor; ++peer) {
          const Slice theirs = SliceOf(specs[p], kGlobal, peer);
          if (i / 3 < theirs.rows.begin || i / 3 >= theirs.rows.end) continue;
          if (specs[p].layout == Layout::kInvariant && peer > 0) continue;
          for (int64_t m = 0; m < data * micro_batches; ++m) {
            whole += TermOf(p, i, m, peer, true);
          }
          held = whole;
        }
        squared_norm += double{whole} * whole;
        if (i / 3 < mine.rows.begin || i / 3 >= mine.rows.end) continue;
        ASSERT_EQ(result.params[p][i - mine.rows.begin * 3], held)
            << "parameter " << p << " element " << i << " rank " << rank;
      }
    }
    EXPECT_EQ(result.squared_norm, squared_norm);
  });
}

TEST(GradSyncTest, EveryTermIsAddedOnce) {
  CheckSums(1, 1, 3);
  CheckSums(1, 2, 1);
  CheckSums(1, 3, 2);
  CheckSums(1, 4, 2);
  CheckSums(1, 5, 1);
  CheckSums(2, 2, 3);
  CheckSums(2, 4, 2);
  CheckSums(4, 2, 1);
}

TEST(GradSyncTest, DataRanksAndAccumulationChangeNoBit) {
  constexpr int64_t kMicroBatches = 8;
  std::vector<Result> expected(2);
  OnMesh(1, 2, [&](const Mesh& mesh) {
    expected[mesh.tensor().rank()] = SyncOn(mesh, kMicroBatches, false);
  });
  for (const int data : {2, 4}) {
    OnMesh(data, 2, [&](const Mesh& mesh) {
      const Result result = SyncOn(mesh, kMicroBatches / data, false);
      const Result& whole = expected[mesh.tensor().rank()];
      EXPECT_EQ(result.params, whole.params) << data;
      EXPECT_EQ(result.squared_norm, whole.squared_norm) << data;
    });
  }
}

TEST(GradSyncTest, BucketsChangeNoBit) {
  for (const int tensor : {1, 3, 4}) {
    OnMesh(2, tensor, [&](const Mesh& mesh) {
      const Result whole = SyncOn(mesh, 3, false);
      for (const Buckets buckets : {Buckets::kThree, Buckets::kThreeReady}) {
        mesh.data().ResetTraffic();
        const Result parts = SyncOn(mesh, 3, false, buckets);
        EXPECT_EQ(parts.params, whole.params);
        EXPECT_EQ(parts.squared_norm, whole.squared_norm);
        EXPECT_EQ(mesh.data().traffic(Purpose::kAdapterGrad).calls, 3);
      }
    });
  }
}

TEST(GradSyncTest, EachStepBeginsAnew) {
  OnMesh(2, 3, [&](const Mesh& mesh) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const Flat layout = LayOut(mesh.tensor().rank(), 3);
    Tensor flat = Tensor::Empty(device.get(), {layout.elements}, DType::kF32);
    GradSync sync(layout.slices, flat, 3, mesh,
                  BucketsOf(layout, Buckets::kThree));
    std::vector<std::vector<float>> sums;
    for (const Buckets buckets :
         {Buckets::kThree, Buckets::kThreeReady, Buckets::kThree}) {
      ops::Fill(0.0f, &flat);
      Step(mesh, layout, 3, false, buckets, flat, &sync);
      sums.push_back(flat.ToHost<float>());
    }
    EXPECT_THAT(sums, Each(sums[0]));
  });
}

TEST(GradSyncTest, AStepCostsOneSumAGroupWhateverTheAccumulation) {
  for (const int64_t micro_batches : {1, 4}) {
    OnMesh(2, 2, [&](const Mesh& mesh) {
      const int64_t elements = LayOut(mesh.tensor().rank(), 2).elements;
      mesh.tensor().ResetTraffic();
      SyncOn(mesh, micro_batches, true);
      EXPECT_EQ(mesh.data().traffic(Purpose::kAdapterGrad),
                (Traffic{1, elements * 4}));
      // Both ranks hold terms of the replicated and of the shared parameters.
      EXPECT_EQ(mesh.tensor().traffic(Purpose::kAdapterGrad).calls, 1);
      EXPECT_EQ(mesh.tensor().traffic(Purpose::kLoss).calls, 1);
    });
  }
}

// Verifies values of which tensor rank `odd` of data rank 0 has one element of
// parameter `param` changed; none with param = -1. What each of the ranks
// data x tensor is told, in order of the world.
std::vector<std::string> ToldOn(int data, int tensor, int odd, int param) {
  std::vector<std::string> told(data * tensor);
  OnMesh(data, tensor, [&](const Mesh& mesh) {
    const std::unique_ptr<Device> device = OpenTestDevice();
    const Flat layout = LayOut(mesh.tensor().rank(), tensor);
    const GradSync sync(
        layout.slices,
        Tensor::Zeros(device.get(), {layout.elements}, DType::kF32), 1, mesh);
    std::vector<float> values(static_cast<size_t>(layout.elements), 0.0f);
    for (const FlatSlice& slice : layout.slices) {
      // Shared slices hold what the ranks share, others what they please.
      const float value = slice.shard.layout == Layout::kSharded
                              ? static_cast<float>(slice.range.size())
                              : 1.0f;
      for (int64_t i = slice.range.begin; i < slice.range.end; ++i) {
        values[i] = value;
      }
    }
    if (param >= 0 && mesh.data().rank() == 0 && mesh.tensor().rank() == odd) {
      values[layout.slices[param].range.begin] += 0.5f;
    }
    const absl::Status same = sync.VerifyReplicas(
        "the adapter",
        Tensor::FromHost<float>(device.get(), {layout.elements}, values));
    told[mesh.data().rank() * tensor + mesh.tensor().rank()] =
        std::string(same.message());
  });
  return told;
}

TEST(GradSyncTest, ReplicasThatAreEqualPass) {
  EXPECT_THAT(ToldOn(1, 1, -1, -1), Each(""));
  EXPECT_THAT(ToldOn(2, 3, -1, -1), Each(""));
  EXPECT_THAT(ToldOn(1, 4, 3, 1), Each(""));  // A slice of its own.
}

TEST(GradSyncTest, AReplicaThatDiffersIsNamedWhereItIsShared) {
  const auto differs = [](int ranks, int odd) {
    return absl::StrCat("the adapter is not the same on all ", ranks,
                        " ranks that hold it: rank ", odd, " differs");
  };
  // Over the data group, where rank 0 is the first of two equal numbers.
  EXPECT_THAT(ToldOn(2, 1, 0, 1), Each(differs(2, 1)));
  // A replicated factor; one held whole; one that ranks 2 and 3 share.
  EXPECT_THAT(ToldOn(1, 3, 2, 3), Each(differs(3, 2)));
  EXPECT_THAT(ToldOn(1, 3, 1, 5), Each(differs(3, 1)));
  EXPECT_THAT(ToldOn(1, 4, 3, 2),
              ElementsAre("", "", differs(2, 3), differs(2, 3)));
}

TEST(GradSyncDeathTest, EverySliceNeedsABucket) {
  const absl::StatusOr<Mesh> mesh = Mesh::Create({}, LoneCommunicator());
  ASSERT_TRUE(mesh.ok());
  const std::vector<FlatSlice> slices = {{Replicated(), {0, 4}},
                                         {Replicated(), {4, 8}}};
  const std::unique_ptr<Device> device = OpenTestDevice();
  const Tensor flat = Tensor::Zeros(device.get(), {8}, DType::kF32);
  EXPECT_DEATH(GradSync(slices, flat, 1, *mesh, {{{0, 4}}, {{5, 8}}}),
               "no bucket holds the slice");
}

TEST(GradSyncDeathTest, AStepNeedsItsMicroBatches) {
  const absl::StatusOr<Mesh> mesh = Mesh::Create({}, LoneCommunicator());
  ASSERT_TRUE(mesh.ok());
  const std::unique_ptr<Device> device = OpenTestDevice();
  GradSync sync({}, Tensor::Zeros(device.get(), {4}, DType::kF32), 2, *mesh);
  sync.AddMicroBatch();
  EXPECT_DEATH(sync.Reduce(), "micro-batches are missing");
}

}  // namespace
}  // namespace lorica
