// Training runs of one tiny model on any mesh. Weights, adapter, rows and
// dropout are functions of global indices, so that runs on different meshes
// differ in nothing but the split.
#ifndef LORICA_TESTS_MODEL_PARALLEL_SPLIT_RUN_H_
#define LORICA_TESTS_MODEL_PARALLEL_SPLIT_RUN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "launch/session.h"
#include "launch/train/trainer.h"
#include "model/adapter.h"
#include "model/gpt.h"
#include "parallel/mesh.h"

namespace lorica {

struct SplitOptions {
  MeshConfig mesh;
  std::vector<std::string> targets = {"all-linear"};
  float dropout = 0.2f;
  DType dtype = DType::kF32;
  int64_t micro_batches = 2;  // Of a step, a row each, over all data ranks.
  int64_t steps = 10;
  // The embedding's elements are multiplied by 1 + perturbation times a value
  // of their own in [-1, 1).
  double perturbation = 0.0;
};

std::string NameOf(const MeshConfig& mesh);  // "data 2 tensor 4 sequence"

// Nine query and three key/value heads, 25 pairs of words and ten quads of
// hidden features: uneven over most numbers of ranks.
GptConfig UnevenModel();
// Row `number` of the endless training data: three records, the first tokens of
// which have no target.
TokenBatch RowOf(int64_t number);

// A model and its adapter on one rank of a session, B not zero.
struct SplitModelRun {
  SplitModelRun(const SplitOptions& options, const Session& session);

  std::unique_ptr<Gpt> gpt;
  std::unique_ptr<Adapter> adapter;
};

// A rank's view of a run; the same on every rank but for `rows`.
struct SplitResult {
  // Whole arrays, by name: "loss" of each target of a step's rows and "dX" for
  // the embedded tokens; "dA MODULE", "dB MODULE" of the step's mean loss.
  std::map<std::string, std::vector<float>> gradients;
  // Of training: "losses" and "norms" by step, "A MODULE", "B MODULE".
  std::map<std::string, std::vector<double>> training;
  // The adapter before training, as bits.
  std::map<std::string, std::vector<float>> start;
  // The rows this rank asked for, as (first, count), in order.
  std::vector<std::pair<int64_t, int64_t>> rows;
};

// On this rank of the session; all ranks call it.
SplitResult RunSplit(const SplitOptions& options, const Session& session);
// On data x tensor threads; expects all ranks to agree and returns rank 0's,
// with the rows of the first tensor rank of each data rank, in their order.
SplitResult RunOnThreads(const SplitOptions& options);

// How far apart two results may be and are, in the order of the columns: the
// largest over the arrays of each kind.
struct Deviation {
  double loss = 0.0;
  double dx = 0.0;
  double da = 0.0;
  double db = 0.0;
  double losses = 0.0;   // Of ten training steps.
  double adapter = 0.0;  // After them.
};

// The relative error of every number of a run that rounding may cause when
// sums are split over ranks: see docs/parallelism.md. `one` is a run on one
// rank and `perturbed` the same with RoundingOf's perturbation.
double RoundingOf(DType dtype);
// The largest of | a - b | / | b |, Euclidean norms over each array.
Deviation DeviationOf(const SplitResult& a, const SplitResult& b);
Deviation BoundOf(const SplitResult& one, const SplitResult& perturbed,
                  DType dtype);
// Expects each entry to be within its bound.
void ExpectWithin(const Deviation& observed, const Deviation& bound);
// Lines of a table.
std::string DeviationHeader();
std::string DeviationLine(const std::string& name, const Deviation& deviation);

}  // namespace lorica

#endif  // LORICA_TESTS_MODEL_PARALLEL_SPLIT_RUN_H_
