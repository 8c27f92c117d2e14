// The options of a training run as plain structs. configs/lorica.proto says
// what each field means; the defaults here and there are the same.
#ifndef LORICA_LAUNCH_CONFIG_RUN_CONFIG_H_
#define LORICA_LAUNCH_CONFIG_RUN_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/recompute.h"
#include "model/text/dataset.h"
#include "model/tuning/lr_schedule.h"
#include "parallel/mesh.h"
#include "runtime/device.h"
#include "runtime/dtype.h"

namespace lorica {

struct ModelOptions {
  std::string path;
  DType dtype = DType::kBF16;  // kBF16 or kF32.
  friend bool operator==(const ModelOptions&, const ModelOptions&) = default;
};

// What init_from decides is absent, or empty, beside init_from unless the user
// gave it as well; without init_from everything is present.
struct AdapterOptions {
  std::optional<int64_t> rank = 8;
  std::optional<double> alpha = 16;
  std::optional<bool> rslora = false;
  double dropout = 0;
  std::vector<std::string> targets = {"q_proj", "v_proj"};
  std::string init_from;
  friend bool operator==(const AdapterOptions&,
                         const AdapterOptions&) = default;
};

struct DataOptions {
  std::string train;
  std::string valid;  // May be empty.
  int64_t sequence_length = 512;
  bool pack = true;
  bool shuffle = true;
  bool append_eos = true;
  LongRecords overlong = LongRecords::kCut;
  friend bool operator==(const DataOptions&, const DataOptions&) = default;
};

enum class OnAnomaly : uint8_t { kStop, kSkip, kRollBack };

struct TrainOptions {
  int64_t steps = 200;
  int64_t global_batch = 16;  // A multiple of micro_batch * mesh.data.
  int64_t micro_batch = 4;
  double learning_rate = 2e-4;
  int64_t warmup_steps = 10;
  Schedule schedule = Schedule::kCosine;
  double weight_decay = 0;
  double max_grad_norm = 1;  // 0: off.
  int64_t seed = 1;
  int64_t valid_every_steps = 0;  // 0: first and last only.
  OnAnomaly on_anomaly = OnAnomaly::kStop;
  double outlier_factor = 0;  // 0: nothing is an outlier.
  int64_t max_anomalies = 10;
  friend bool operator==(const TrainOptions&, const TrainOptions&) = default;
};

struct CheckpointOptions {
  std::string directory;
  int64_t every_steps = 50;               // 0: last only.
  int64_t keep = 3;                       // 0: all.
  int64_t keep_every_steps = 0;           // 0: none beside the newest.
  std::string resume = "AUTO";            // AUTO, NEVER or a path.
  std::vector<std::string> allow_change;  // Fields, when resuming.
  double before_seconds = 0;              // 0: no limit.
  friend bool operator==(const CheckpointOptions&,
                         const CheckpointOptions&) = default;
};

struct ReportOptions {
  int64_t every_steps = 1;
  std::string metrics;      // A file; never empty in a loaded config.
  std::string tensorboard;  // A directory; likewise.
  std::string trace;        // A file; empty: no trace.
  int64_t trace_first_step = 3;
  int64_t trace_steps = 2;
  friend bool operator==(const ReportOptions&, const ReportOptions&) = default;
};

enum class DeviceKind : uint8_t { kAuto, kCpu, kCuda };

// As the config has it.
const char* NameOf(AttentionKernels kernels);

struct RunConfig {
  ModelOptions model;
  AdapterOptions adapter;
  DataOptions data;
  TrainOptions train;
  MeshConfig mesh;
  CheckpointOptions checkpoint;
  ReportOptions report;
  DeviceKind device = DeviceKind::kAuto;
  int threads = 0;  // Of each rank; 0: the host's cores divided by its ranks.
  Recompute recompute = Recompute::kCheap;
  std::string product_choices;  // A file; empty: nothing is measured.
  int pass_graphs = 0;          // Kept at most; 0: none are made.
  AttentionKernels cuda_attention = AttentionKernels::kCudnn;

  // Whether each value is possible by itself and beside the others. Messages
  // name field, value and what to change.
  absl::Status Validate() const;

  friend bool operator==(const RunConfig&, const RunConfig&) = default;
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_CONFIG_RUN_CONFIG_H_
