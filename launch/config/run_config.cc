#include "launch/config/run_config.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "runtime/check.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::Status Invalid(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(field, " ", problem));
}

absl::Status Given(absl::string_view field, const std::string& value,
                   absl::string_view example) {
  if (!value.empty()) return absl::OkStatus();
  return Invalid(field, absl::StrCat("is not given; set it, for example to \"",
                                     example, "\""));
}

absl::Status AtLeast(absl::string_view field, int64_t value, int64_t least) {
  if (value >= least) return absl::OkStatus();
  return Invalid(field,
                 absl::StrCat("is ", value, "; it must be at least ", least));
}

absl::Status AtMost(absl::string_view field, int64_t value, int64_t most) {
  if (value <= most) return absl::OkStatus();
  return Invalid(field,
                 absl::StrCat("is ", value, "; it must be at most ", most));
}

absl::Status Positive(absl::string_view field, double value) {
  if (value > 0 && std::isfinite(value)) return absl::OkStatus();
  return Invalid(field, absl::StrCat("is ", value, "; it must be above zero"));
}

absl::Status NotNegative(absl::string_view field, double value) {
  if (value >= 0 && std::isfinite(value)) return absl::OkStatus();
  return Invalid(field, absl::StrCat("is ", value, "; it must not be below 0"));
}

absl::Status Check(const AdapterOptions& adapter) {
  if (adapter.rank) {
    LORICA_RETURN_IF_ERROR(AtLeast("adapter.rank", *adapter.rank, 1));
  }
  if (adapter.alpha) {
    LORICA_RETURN_IF_ERROR(Positive("adapter.alpha", *adapter.alpha));
  }
  if (!(adapter.dropout >= 0 && adapter.dropout < 1)) {
    return Invalid("adapter.dropout",
                   absl::StrCat("is ", adapter.dropout,
                                "; it must be at least 0 and below 1"));
  }
  for (const std::string& target : adapter.targets) {
    if (target.empty()) {
      return Invalid("adapter.target",
                     "is an empty name; use names such as \"q_proj\"");
    }
    if (target == "all-linear" && adapter.targets.size() > 1) {
      return Invalid("adapter.target",
                     "is \"all-linear\" beside other names; give it alone");
    }
  }
  return absl::OkStatus();
}

absl::Status Check(const DataOptions& data) {
  LORICA_RETURN_IF_ERROR(
      Given("data.train", data.train, "configs/data/train.jsonl"));
  // One token to read and one to predict; positions are 32-bit on devices.
  LORICA_RETURN_IF_ERROR(
      AtLeast("data.sequence_length", data.sequence_length, 2));
  return AtMost("data.sequence_length", data.sequence_length, 1 << 24);
}

absl::Status Check(const TrainOptions& train) {
  constexpr int64_t kMostRows = int64_t{1} << 24;
  LORICA_RETURN_IF_ERROR(AtLeast("train.steps", train.steps, 1));
  LORICA_RETURN_IF_ERROR(AtLeast("train.global_batch", train.global_batch, 1));
  LORICA_RETURN_IF_ERROR(
      AtMost("train.global_batch", train.global_batch, kMostRows));
  LORICA_RETURN_IF_ERROR(AtLeast("train.micro_batch", train.micro_batch, 1));
  LORICA_RETURN_IF_ERROR(
      AtMost("train.micro_batch", train.micro_batch, kMostRows));
  LORICA_RETURN_IF_ERROR(Positive("train.learning_rate", train.learning_rate));
  LORICA_RETURN_IF_ERROR(AtLeast("train.warmup_steps", train.warmup_steps, 0));
  LORICA_RETURN_IF_ERROR(NotNegative("train.weight_decay", train.weight_decay));
  LORICA_RETURN_IF_ERROR(
      NotNegative("train.max_grad_norm", train.max_grad_norm));
  LORICA_RETURN_IF_ERROR(
      AtLeast("train.valid_every_steps", train.valid_every_steps, 0));
  LORICA_RETURN_IF_ERROR(
      NotNegative("train.outlier_factor", train.outlier_factor));
  if (train.outlier_factor > 0 && train.outlier_factor <= 1) {
    return Invalid("train.outlier_factor",
                   absl::StrCat("is ", train.outlier_factor,
                                "; it must be above 1, or 0 for no limit"));
  }
  return AtLeast("train.max_anomalies", train.max_anomalies, 0);
}

absl::Status Check(const CheckpointOptions& checkpoint) {
  LORICA_RETURN_IF_ERROR(
      Given("checkpoint.directory", checkpoint.directory, "runs/demo"));
  LORICA_RETURN_IF_ERROR(
      AtLeast("checkpoint.every_steps", checkpoint.every_steps, 0));
  LORICA_RETURN_IF_ERROR(AtLeast("checkpoint.keep", checkpoint.keep, 0));
  LORICA_RETURN_IF_ERROR(
      AtLeast("checkpoint.keep_every_steps", checkpoint.keep_every_steps, 0));
  LORICA_RETURN_IF_ERROR(
      NotNegative("checkpoint.before_seconds", checkpoint.before_seconds));
  return Given("checkpoint.resume", checkpoint.resume, "AUTO");
}

// What cannot be part of a graph.
absl::Status CheckPassGraphs(const RunConfig& run) {
  if (run.pass_graphs == 0) return absl::OkStatus();
  const auto refuse = [&](absl::string_view why) {
    return Invalid("pass_graphs", absl::StrCat("is ", run.pass_graphs, ", but ",
                                               why, ", or pass_graphs to 0"));
  };
  if (run.device == DeviceKind::kCpu) {
    return refuse("device is CPU, which has no graphs; set device to CUDA");
  }
  return absl::OkStatus();
}

absl::Status CheckCudaAttention(const RunConfig& run) {
  if (run.cuda_attention == AttentionKernels::kCudnn ||
      run.device != DeviceKind::kCpu) {
    return absl::OkStatus();
  }
  return Invalid("cuda_attention",
                 absl::StrCat("is ", NameOf(run.cuda_attention),
                              ", but device is CPU, which has one way of "
                              "attention; set device to CUDA, or "
                              "cuda_attention to CUDNN"));
}

// What two fields must be to each other.
absl::Status CheckTogether(const RunConfig& run) {
  LORICA_RETURN_IF_ERROR(CheckCudaAttention(run));
  LORICA_RETURN_IF_ERROR(CheckPassGraphs(run));
  const int64_t rows = run.train.micro_batch * run.mesh.data;
  if (run.train.global_batch % rows != 0) {
    return Invalid(
        "train.global_batch",
        absl::StrCat("is ", run.train.global_batch,
                     " rows; it must be a multiple of train.micro_batch * "
                     "mesh.data = ",
                     run.train.micro_batch, " * ", run.mesh.data, " = ", rows));
  }
  if (run.train.valid_every_steps > 0 && run.data.valid.empty()) {
    return Invalid("train.valid_every_steps",
                   absl::StrCat("is ", run.train.valid_every_steps,
                                " but data.valid names no file"));
  }
  if (!run.report.trace.empty() &&
      run.report.trace_first_step > run.train.steps) {
    return Invalid("report.trace_first_step",
                   absl::StrCat("is ", run.report.trace_first_step,
                                ", after the last of train.steps = ",
                                run.train.steps, ": nothing would be traced"));
  }
  return absl::OkStatus();
}

}  // namespace

const char* NameOf(AttentionKernels kernels) {
  switch (kernels) {
    case AttentionKernels::kOwn:
      return "OWN";
    case AttentionKernels::kCudnn:
      return "CUDNN";
    case AttentionKernels::kCudnnAnyOrder:
      return "CUDNN_ANY_ORDER";
  }
  LOG(FATAL) << "unknown attention " << static_cast<int>(kernels);
}

absl::Status RunConfig::Validate() const {
  LORICA_RETURN_IF_ERROR(
      Given("model.path", model.path, "models/SmolLM2-135M-Instruct.gguf"));
  LORICA_RETURN_IF_ERROR(Check(adapter));
  LORICA_RETURN_IF_ERROR(Check(data));
  LORICA_RETURN_IF_ERROR(Check(train));
  LORICA_RETURN_IF_ERROR(AtLeast("mesh.data", mesh.data, 1));
  LORICA_RETURN_IF_ERROR(AtLeast("mesh.tensor", mesh.tensor, 1));
  LORICA_RETURN_IF_ERROR(
      Positive("mesh.timeout_seconds", mesh.timeout_seconds));
  LORICA_RETURN_IF_ERROR(
      AtLeast("mesh.gradient_bucket_bytes", mesh.gradient_bucket_bytes, 0));
  LORICA_RETURN_IF_ERROR(Check(checkpoint));
  LORICA_RETURN_IF_ERROR(AtLeast("report.every_steps", report.every_steps, 1));
  LORICA_RETURN_IF_ERROR(
      AtLeast("report.trace_first_step", report.trace_first_step, 1));
  LORICA_RETURN_IF_ERROR(AtLeast("report.trace_steps", report.trace_steps, 1));
  LORICA_RETURN_IF_ERROR(AtLeast("threads", threads, 0));
  LORICA_RETURN_IF_ERROR(AtMost("threads", threads, 4096));
  LORICA_RETURN_IF_ERROR(AtLeast("pass_graphs", pass_graphs, 0));
  LORICA_RETURN_IF_ERROR(AtMost("pass_graphs", pass_graphs, 4096));
  return CheckTogether(*this);
}

}  // namespace lorica
