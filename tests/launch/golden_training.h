// Training steps over the golden micro-batches, on any device and mesh.
#ifndef LORICA_TESTS_LAUNCH_GOLDEN_TRAINING_H_
#define LORICA_TESTS_LAUNCH_GOLDEN_TRAINING_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "launch/config/run_config.h"
#include "model/pass_recordings.h"
#include "parallel/communicator.h"
#include "parallel/mesh.h"
#include "runtime/device.h"

namespace lorica {

// What users are promised of an F32 run against PEFT, in nats and in units of
// the gradient's norm.
inline constexpr double kCurveBound = 1e-4;

// By step.
struct Curve {
  std::vector<double> losses;
  std::vector<double> grad_norms;
  std::vector<int64_t> peak_device_bytes;
  std::vector<int64_t> unplanned_bytes;
  PassRecordings::Counts passes;  // Of rank 0, where they are recorded.
  // Of rank 0's tensor group, by purpose.
  std::array<Traffic, kNumPurposes> tensor_traffic = {};
  int64_t longest_sum = 0;  // Terms of the longest sum in a pass.
};

// Whether the frozen weights are loaded for the adapter or for none.
enum class AdapterPlace : uint8_t { kResident, kApart };

// A golden model and its adapter.
struct GoldenModel {
  std::string folder = "heads_9_3_tied_sharded";
  std::string adapter = "adapter_all";
  AdapterPlace place = AdapterPlace::kResident;
  float dropout = 0.0f;  // Of the adapter's input.
  // Tokens of a pass; 0: as many as the device takes.
  int64_t pass_tokens = 0;
  // Activations in memory planned for passes of so many tokens; 0: in the
  // device's.
  int64_t planned_tokens = 0;
  // Called by each rank before each of its micro-batches; may be absent.
  std::function<void()> before_micro_batch;
};

inline constexpr int64_t kGoldenRows = 2;  // Of a golden micro-batch.

// Ten steps of two micro-batches.
RunConfig GoldenRun(const MeshConfig& mesh, DType dtype);

// Trains the adapter over the golden micro-batches, each rank a thread. A rank
// that sees another curve fails the test.
Curve TrainGolden(const std::function<std::unique_ptr<Device>(int rank)>& open,
                  const RunConfig& config, const GoldenModel& model = {});
// On a CPU a rank.
Curve TrainGoldenOnCpu(const RunConfig& config, const GoldenModel& model = {});

// The largest difference of a loss or norm; infinite where one misses steps.
double Distance(const Curve& a, const Curve& b);

struct Deviation {
  double loss;
  double grad_norm;
};

// How far the curve of a golden run, or of its first steps, lies from PEFT's
// and PyTorch's in double: the largest of all steps.
Deviation DeviationFromExact(const Curve& curve, const GoldenModel& model);

// How far from it rounding may lead so many steps in F32, in whatever order
// they sum.
//
// What a change of relative size u in every stored number makes of the curve is
// measured where u is 2^-8: by the same steps in BF16, whose sums are of F32.
// It is random and in proportion to u, so numbers stored in F32 lead 2^-16 as
// far. Their sums round as finely as they are stored and so count as well: n
// terms of mean zero are off by the order of u times the sum of their
// magnitudes, in any order, which is sqrt(n) u times that of their sum. (Higham
// and Mary 2020, Sharper probabilistic backward error analysis.) So
//
//   bound = 4 sqrt(n) 2^-16 r
//
// with n the terms of the longest sum and r the root mean square, over the
// steps, of what BF16 is off: its standard deviation. Of forty normal numbers
// one in 400 times has one beyond four of them.
//
// What a mistake that both types make adds to the bound is some 2^-10 of what
// it adds to the curve.
Deviation F32Bound(const GoldenModel& model, int64_t steps);

// Expects that of two golden runs in F32, of ten steps at most, either is as
// near to exact arithmetic as rounding lets. So they are apart by twice that at
// most.
void ExpectSameButForRounding(const Curve& a, const Curve& b,
                              const GoldenModel& model = {});

}  // namespace lorica

#endif  // LORICA_TESTS_LAUNCH_GOLDEN_TRAINING_H_
