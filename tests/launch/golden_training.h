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
  PassRecordings::Counts passes;  // Of rank 0, where they are recorded.
  // Of rank 0's tensor group, by purpose.
  std::array<Traffic, kNumPurposes> tensor_traffic = {};
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

}  // namespace lorica

#endif  // LORICA_TESTS_LAUNCH_GOLDEN_TRAINING_H_
