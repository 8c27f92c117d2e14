#include "launch/device_choice.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Why a rank cannot have a GPU: an error where the user wants one.
absl::Status Refusal(DeviceKind wanted, absl::StatusCode code,
                     absl::string_view reason) {
  if (wanted == DeviceKind::kAuto) return absl::Status(code, reason);
  return absl::Status(code, absl::StrCat("device is CUDA, but ", reason,
                                         "; or set device to CPU or AUTO"));
}

// The GPU that this rank would take.
absl::StatusOr<int> IndexFor(DeviceKind wanted, const Placement& placement,
                             std::vector<CudaDevice>* devices) {
  absl::StatusOr<std::vector<CudaDevice>> listed = ListCudaDevices();
  if (!listed.ok()) {
    return Refusal(wanted, listed.status().code(), listed.status().message());
  }
  *devices = *std::move(listed);
  if (devices->empty()) {
    return Refusal(
        wanted, absl::StatusCode::kNotFound,
        absl::StrCat(placement.host,
                     " shows no GPU to this rank (CUDA_VISIBLE_DEVICES?)"));
  }
  return placement.local_rank % static_cast<int>(devices->size());
}

// Whether no two ranks named the same GPU, of `visible` ones.
absl::Status CheckOwn(DeviceKind wanted, const CudaDevice& mine,
                      const Placement& placement, size_t visible,
                      Communicator& world) {
  const std::string& uuid = mine.uuid;
  const std::vector<std::string> all =
      world.AllGatherBytes(uuid, Purpose::kControl);
  for (int peer = 0; peer < world.size(); ++peer) {
    if (peer == world.rank() || all[static_cast<size_t>(peer)] != uuid) {
      continue;
    }
    return Refusal(
        wanted, absl::StatusCode::kFailedPrecondition,
        absl::StrCat(mine.name, " (", uuid, ") of ", placement.host,
                     " would be shared with rank ", world.world_rank(peer),
                     ": ", placement.local_ranks, " ranks started there and ",
                     visible, visible == 1 ? " GPU is" : " GPUs are",
                     " visible; start a rank a GPU"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ChosenDevice> OpenGpu(const DeviceOptions& options,
                                     const Placement& placement,
                                     Communicator& world) {
  std::vector<CudaDevice> devices;
  LORICA_ASSIGN_OR_RETURN(
      const int index,
      AgreeOn(IndexFor(options.kind, placement, &devices), world));
  const CudaDevice& mine = devices[static_cast<size_t>(index)];
  LORICA_RETURN_IF_ERROR(Agree(
      CheckOwn(options.kind, mine, placement, devices.size(), world), world));
  absl::StatusOr<std::unique_ptr<Device>> device = OpenCudaDevice(
      {.index = index,
       .product_choices = options.product_choices,
       .missing = world.rank() == 0 ? CudaOptions::Missing::kMeasured
                                    : CudaOptions::Missing::kUnmeasured,
       .attention = options.attention});
  LORICA_RETURN_IF_ERROR(Agree(device.status(), world));
  return ChosenDevice{.device = *std::move(device), .gpu = mine.name};
}

}  // namespace

absl::StatusOr<ChosenDevice> OpenDevice(const DeviceOptions& options,
                                        const Placement& placement,
                                        const CpuOptions& cpu,
                                        Communicator& world) {
  ChosenDevice chosen;
  if (options.kind != DeviceKind::kCpu) {
    absl::StatusOr<ChosenDevice> gpu = OpenGpu(options, placement, world);
    // A file that is wrong is no reason to compute elsewhere.
    if (gpu.ok() || options.kind == DeviceKind::kCuda ||
        absl::IsInvalidArgument(gpu.status())) {
      return gpu;
    }
    if (!absl::IsUnimplemented(gpu.status())) {
      chosen.why_cpu = std::string(gpu.status().message());
    }
  }
  chosen.device = OpenCpuDevice(cpu);
  return chosen;
}

}  // namespace lorica
