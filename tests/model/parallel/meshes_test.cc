// The invariance contract: a split run is the whole run.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "tests/model/parallel/split_run.h"

namespace lorica {
namespace {

constexpr int kMostRanks = 8;

// A run on one rank and how far rounding may carry others from it.
struct Reference {
  SplitResult one;
  Deviation bound;
};

Reference MakeReference(SplitOptions options) {
  options.mesh = {};
  Reference reference = {.one = RunOnThreads(options)};
  options.perturbation = RoundingOf(options.dtype);
  reference.bound =
      BoundOf(reference.one, RunOnThreads(options), options.dtype);
  return reference;
}

void CheckMeshes(DType dtype, const std::vector<MeshConfig>& meshes) {
  std::map<int64_t, Reference> references;  // By micro-batches of a step.
  std::puts(DeviationHeader().c_str());
  for (const MeshConfig& mesh : meshes) {
    SCOPED_TRACE(NameOf(mesh));
    SplitOptions options = {.mesh = mesh, .dtype = dtype};
    options.micro_batches = std::max(mesh.data, 2);
    auto [place, fresh] = references.try_emplace(options.micro_batches);
    if (fresh) {
      place->second = MakeReference(options);
      std::puts(DeviationLine("bound", place->second.bound).c_str());
    }
    const Reference& reference = place->second;
    const SplitResult split = RunOnThreads(options);
    EXPECT_EQ(split.start, reference.one.start);
    EXPECT_EQ(split.rows.size(), reference.one.rows.size());
    const Deviation observed = DeviationOf(split, reference.one);
    std::puts(DeviationLine(NameOf(mesh), observed).c_str());
    ExpectWithin(observed, reference.bound);
    if (mesh.tensor == 1) {
      EXPECT_EQ(split.gradients, reference.one.gradients);
      EXPECT_EQ(split.training, reference.one.training);
    }
  }
}

// Every data x tensor of up to eight ranks.
TEST(MeshesTest, EveryMeshTrainsAsOneRankWithinTheRoundingBound) {
  std::vector<MeshConfig> meshes;
  for (int data = 1; data <= kMostRanks; ++data) {
    for (int tensor = 1; data * tensor <= kMostRanks; ++tensor) {
      meshes.push_back({.data = data, .tensor = tensor});
      if (tensor == 1) continue;
      meshes.push_back(
          {.data = data, .tensor = tensor, .tensor_sequence = true});
    }
  }
  CheckMeshes(DType::kF32, meshes);
}

TEST(MeshesTest, InBF16AsWell) {
  CheckMeshes(DType::kBF16, {{.tensor = 2},
                             {.tensor = 3, .tensor_sequence = true},
                             {.data = 2, .tensor = 4},
                             {.data = 4}});
}

// Eight micro-batches a step: one rank accumulates eight, eight ranks none.
TEST(MeshesTest, DataRanksAndAccumulationChangeNoBit) {
  for (const int tensor : {1, 2}) {
    SplitOptions options = {.mesh = {.tensor = tensor}, .micro_batches = 8};
    options.steps = 5;
    const SplitResult one = RunOnThreads(options);
    for (const int data : {2, 4, 8}) {
      if (data * tensor > kMostRanks) continue;
      options.mesh.data = data;
      SCOPED_TRACE(NameOf(options.mesh));
      const SplitResult split = RunOnThreads(options);
      EXPECT_EQ(split.start, one.start);
      EXPECT_EQ(split.gradients, one.gradients);
      EXPECT_EQ(split.training, one.training);
    }
  }
}

// A sum for every layer, begun in the last micro-batch's backward.
TEST(MeshesTest, SummingDuringBackwardChangesNoBit) {
  for (const MeshConfig& mesh : std::vector<MeshConfig>{
           {.data = 2}, {.data = 2, .tensor = 4, .tensor_sequence = true}}) {
    SplitOptions options = {.mesh = mesh, .micro_batches = 4, .steps = 3};
    const SplitResult late = RunOnThreads(options);
    options.mesh.gradient_bucket_bytes = 1;
    EXPECT_EQ(RunOnThreads(options).training, late.training) << NameOf(mesh);
  }
}

// Each row of each step is computed once, by the data rank that the numbering
// of micro-batches gives it to.
TEST(MeshesTest, EveryMeshReadsTheSameRows) {
  for (const MeshConfig& mesh :
       std::vector<MeshConfig>{{}, {.data = 4}, {.data = 2, .tensor = 3}}) {
    SplitOptions options = {.mesh = mesh, .micro_batches = 4};
    options.steps = 2;
    std::vector<std::pair<int64_t, int64_t>> expected;
    const int64_t mine = options.micro_batches / mesh.data;
    for (int data = 0; data < mesh.data; ++data) {
      for (int64_t step = 0; step < options.steps; ++step) {
        for (int64_t i = 0; i < mine; ++i) {
          expected.emplace_back(step * 4 + data * mine + i, 1);
        }
      }
    }
    EXPECT_EQ(RunOnThreads(options).rows, expected) << NameOf(mesh);
  }
}

}  // namespace
}  // namespace lorica
