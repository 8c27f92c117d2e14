#include "runtime/cuda/sdpa_cudnn.h"

#include <cudnn_frontend.h>

#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/check.h"
#include "runtime/status_macros.h"

// A packed row is a batch of ragged records: [records, heads, longest,
// head_dim] with each record's rows where its offset says. Statistics are
// padded, as Ampere takes them in no other way backward.

namespace lorica::cuda {
namespace {

namespace fe = cudnn_frontend;
using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

// Records of no tokens among others are read rightly from here on.
constexpr size_t kLeastVersion = 90600;

absl::Status StatusOf(fe::error_t error) {
  if (error.is_good()) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("cuDNN: ", error.get_message()));
}

absl::Status StatusOf(cudnnStatus_t status) {
  if (status == CUDNN_STATUS_SUCCESS) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cuDNN: ", cudnnGetErrorString(status)));
}

int64_t UidOf(SdpaUid first, SdpaMatrix matrix) {
  return static_cast<int64_t>(first) + static_cast<int64_t>(IndexOf(matrix));
}

// What plans are for: the device of a handle, or one that is described.
struct Target {
  ~Target() {
    if (handle != nullptr) cudnnDestroy(handle);
  }

  cudnnHandle_t handle = nullptr;
  int sm = 0;
  std::shared_ptr<fe::DeviceProperties> properties;
};

class CudnnPlan : public SdpaPlan {
 public:
  CudnnPlan(const SdpaShape& shape, std::shared_ptr<const Target> target);

  absl::Status Build();
  size_t workspace_bytes() const override { return workspace_bytes_; }
  const std::string& engine() const override { return engine_; }
  absl::Status Run(const SdpaArrays& arrays) override;

 private:
  Attributes Make(SdpaUid uid, std::vector<int64_t> dims,
                  std::vector<int64_t> strides, fe::DataType_t type);
  Attributes Operand(SdpaMatrix matrix);
  // Gives a result of the graph its place.
  void Place(SdpaMatrix matrix, const Attributes& result);
  std::vector<int64_t> DimsOf(SdpaMatrix matrix) const;
  std::vector<int64_t> StridesOf(SdpaMatrix matrix) const;
  Attributes OffsetsOf(SdpaMatrix matrix);
  Attributes Lengths(SdpaUid uid);
  template <typename Options>
  void MakeCausal(Options* options);
  void AddForward();
  void AddBackward();
  std::vector<int64_t> StatsDims() const {
    return {shape_.records, shape_.heads, shape_.longest, 1};
  }
  std::vector<int64_t> StatsStrides() const {
    return {shape_.heads * shape_.longest, shape_.longest, 1, 1};
  }

  SdpaShape shape_;
  std::shared_ptr<const Target> target_;
  fe::graph::Graph graph_;
  std::string engine_;
  size_t workspace_bytes_ = 0;
};

CudnnPlan::CudnnPlan(const SdpaShape& shape,
                     std::shared_ptr<const Target> target)
    : shape_(shape), target_(std::move(target)) {
  graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  if (target_->properties != nullptr) {
    graph_.set_device_properties(target_->properties);
    graph_.set_sm_version(target_->sm);
  }
  if (shape_.direction == Direction::kForward) {
    AddForward();
  } else {
    AddBackward();
  }
}

Attributes CudnnPlan::Make(SdpaUid uid, std::vector<int64_t> dims,
                           std::vector<int64_t> strides, fe::DataType_t type) {
  const auto number = static_cast<int64_t>(uid);
  return graph_.tensor(fe::graph::Tensor_attributes()
                           .set_name(absl::StrCat("array ", number))
                           .set_uid(number)
                           .set_dim(std::move(dims))
                           .set_stride(std::move(strides))
                           .set_data_type(type));
}

std::vector<int64_t> CudnnPlan::DimsOf(SdpaMatrix matrix) const {
  return {shape_.records, IsOfKeys(matrix) ? shape_.kv_heads : shape_.heads,
          shape_.longest, shape_.head_dim};
}

std::vector<int64_t> CudnnPlan::StridesOf(SdpaMatrix matrix) const {
  const int64_t row = shape_.row_strides[IndexOf(matrix)];
  return {shape_.longest * row, shape_.head_dim, row, 1};
}

Attributes CudnnPlan::OffsetsOf(SdpaMatrix matrix) {
  const auto uid = static_cast<SdpaUid>(UidOf(SdpaUid::kOffsets, matrix));
  return Make(uid, {shape_.records + 1, 1, 1, 1}, {1, 1, 1, 1},
              fe::DataType_t::INT32);
}

Attributes CudnnPlan::Lengths(SdpaUid uid) {
  return Make(uid, {shape_.records, 1, 1, 1}, {1, 1, 1, 1},
              fe::DataType_t::INT32);
}

Attributes CudnnPlan::Operand(SdpaMatrix matrix) {
  const auto uid = static_cast<SdpaUid>(UidOf(SdpaUid::kMatrices, matrix));
  Attributes operand =
      Make(uid, DimsOf(matrix), StridesOf(matrix), fe::DataType_t::BFLOAT16);
  operand->set_ragged_offset(OffsetsOf(matrix));
  return operand;
}

void CudnnPlan::Place(SdpaMatrix matrix, const Attributes& result) {
  result->set_output(true)
      .set_uid(UidOf(SdpaUid::kMatrices, matrix))
      .set_dim(DimsOf(matrix))
      .set_stride(StridesOf(matrix))
      .set_ragged_offset(OffsetsOf(matrix));
}

template <typename Options>
void CudnnPlan::MakeCausal(Options* options) {
  options->set_name("attention").set_attn_scale(shape_.scale);
  options->set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
      .set_diagonal_band_right_bound(0);
  options->set_padding_mask(true)
      .set_seq_len_q(Lengths(SdpaUid::kQueryLengths))
      .set_seq_len_kv(Lengths(SdpaUid::kKeyLengths));
}

void CudnnPlan::AddForward() {
  fe::graph::SDPA_attributes options;
  MakeCausal(&options);
  options.set_generate_stats(true);
  auto [out, stats] =
      graph_.sdpa(Operand(SdpaMatrix::kQ), Operand(SdpaMatrix::kK),
                  Operand(SdpaMatrix::kV), options);
  Place(SdpaMatrix::kOut, out);
  stats->set_output(true)
      .set_uid(static_cast<int64_t>(SdpaUid::kStats))
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim(StatsDims())
      .set_stride(StatsStrides());
}

void CudnnPlan::AddBackward() {
  fe::graph::SDPA_backward_attributes options;
  MakeCausal(&options);
  options.set_deterministic_algorithm(shape_.order == GradOrder::kFixed);
  // Without these the workspace has room for every slot at its longest.
  options.set_max_total_seq_len_q(shape_.tokens);
  options.set_max_total_seq_len_kv(shape_.tokens);
  const Attributes stats =
      Make(SdpaUid::kStats, StatsDims(), StatsStrides(), fe::DataType_t::FLOAT);
  auto [dq, dk, dv] = graph_.sdpa_backward(
      Operand(SdpaMatrix::kQ), Operand(SdpaMatrix::kK), Operand(SdpaMatrix::kV),
      Operand(SdpaMatrix::kOut), Operand(SdpaMatrix::kDout), stats, options);
  Place(SdpaMatrix::kDq, dq);
  Place(SdpaMatrix::kDk, dk);
  Place(SdpaMatrix::kDv, dv);
}

absl::Status CudnnPlan::Build() {
  const cudnnHandle_t handle = target_->handle;
  LORICA_RETURN_IF_ERROR(StatusOf(graph_.validate()));
  LORICA_RETURN_IF_ERROR(StatusOf(handle != nullptr
                                      ? graph_.build_operation_graph(handle)
                                      : graph_.build_operation_graph()));
  LORICA_RETURN_IF_ERROR(
      StatusOf(graph_.create_execution_plans({fe::HeurMode_t::A})));
  LORICA_RETURN_IF_ERROR(StatusOf(graph_.check_support()));
  LORICA_RETURN_IF_ERROR(
      StatusOf(graph_.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE)));
  int64_t bytes = 0;
  LORICA_RETURN_IF_ERROR(StatusOf(graph_.get_workspace_size(bytes)));
  workspace_bytes_ = static_cast<size_t>(bytes);
  return StatusOf(graph_.get_plan_name(engine_));
}

absl::Status CudnnPlan::Run(const SdpaArrays& arrays) {
  const auto as_void = [](const int32_t* numbers) {
    return static_cast<void*>(const_cast<int32_t*>(numbers));
  };
  std::unordered_map<int64_t, void*> by_uid = {
      {static_cast<int64_t>(SdpaUid::kQueryLengths), as_void(arrays.lengths)},
      {static_cast<int64_t>(SdpaUid::kKeyLengths), as_void(arrays.lengths)},
      {static_cast<int64_t>(SdpaUid::kStats), arrays.stats}};
  for (size_t i = 0; i < NumMatrices(shape_.direction); ++i) {
    const SdpaMatrix matrix = kSdpaMatrices[i];
    by_uid[UidOf(SdpaUid::kMatrices, matrix)] = arrays.matrices[i];
    by_uid[UidOf(SdpaUid::kOffsets, matrix)] = as_void(arrays.offsets[i]);
  }
  return StatusOf(graph_.execute(target_->handle, by_uid, arrays.workspace));
}

class Cudnn : public SdpaLibrary {
 public:
  explicit Cudnn(std::shared_ptr<const Target> target)
      : target_(std::move(target)) {}

  absl::StatusOr<std::unique_ptr<SdpaPlan>> Plan(
      const SdpaShape& shape) override {
    auto plan = std::make_unique<CudnnPlan>(shape, target_);
    LORICA_RETURN_IF_ERROR(plan->Build());
    return plan;
  }

 private:
  std::shared_ptr<const Target> target_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SdpaLibrary>> OpenSdpa(cudaStream_t stream) {
  if (cudnnGetVersion() < kLeastVersion) {
    return absl::UnavailableError(
        absl::StrCat("cuDNN is of version ", cudnnGetVersion(), ", ",
                     kLeastVersion, " or later is needed for attention"));
  }
  auto target = std::make_shared<Target>();
  LORICA_RETURN_IF_ERROR(StatusOf(cudnnCreate(&target->handle)));
  LORICA_RETURN_IF_ERROR(StatusOf(cudnnSetStream(target->handle, stream)));
  return std::make_unique<Cudnn>(std::move(target));
}

absl::StatusOr<std::unique_ptr<SdpaLibrary>> OpenSdpaFor(
    const SdpaDevice& device) {
  auto target = std::make_shared<Target>();
  target->sm = device.sm;
  target->properties = std::make_shared<fe::DeviceProperties>();
  LORICA_RETURN_IF_ERROR(StatusOf(target->properties->deserialize(
      {device.properties.begin(), device.properties.end()})));
  return std::make_unique<Cudnn>(std::move(target));
}

}  // namespace lorica::cuda
