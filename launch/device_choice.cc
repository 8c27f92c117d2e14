#include "launch/device_choice.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kOtherwise[] = "; or set device to CPU or AUTO";

// The GPU that this rank would take.
absl::StatusOr<int> IndexFor(const Placement& placement,
                             std::vector<CudaDevice>* devices) {
  absl::StatusOr<std::vector<CudaDevice>> listed = ListCudaDevices();
  if (!listed.ok()) {
    return absl::Status(listed.status().code(),
                        absl::StrCat("device is CUDA, but ",
                                     listed.status().message(), kOtherwise));
  }
  *devices = *std::move(listed);
  if (devices->empty()) {
    return absl::NotFoundError(absl::StrCat(
        "device is CUDA, but ", placement.host,
        " shows no GPU to this rank (CUDA_VISIBLE_DEVICES?)", kOtherwise));
  }
  return placement.local_rank % static_cast<int>(devices->size());
}

// Whether no two ranks named the same GPU.
absl::Status CheckOwn(const std::string& uuid, const std::string& name,
                      const Placement& placement, int visible,
                      Communicator& world) {
  const std::vector<std::string> all =
      world.AllGatherBytes(uuid, Purpose::kControl);
  for (int peer = 0; peer < world.size(); ++peer) {
    if (peer == world.rank() || all[static_cast<size_t>(peer)] != uuid) {
      continue;
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "device is CUDA, but it would share ", name, " (", uuid, ") of ",
        placement.host, " with rank ", world.world_rank(peer), ": ",
        placement.local_ranks, " ranks started there and ", visible,
        visible == 1 ? " GPU is" : " GPUs are", " visible; start a rank a GPU",
        kOtherwise));
  }
  return absl::OkStatus();
}

absl::StatusOr<ChosenDevice> OpenGpu(const std::string& product_choices,
                                     const Placement& placement,
                                     Communicator& world) {
  std::vector<CudaDevice> devices;
  LORICA_ASSIGN_OR_RETURN(const int index,
                          AgreeOn(IndexFor(placement, &devices), world));
  const CudaDevice& mine = devices[static_cast<size_t>(index)];
  LORICA_RETURN_IF_ERROR(
      Agree(CheckOwn(mine.uuid, mine.name, placement,
                     static_cast<int>(devices.size()), world),
            world));
  absl::StatusOr<std::unique_ptr<Device>> device = OpenCudaDevice(
      {.index = index,
       .product_choices = product_choices,
       .missing = world.rank() == 0 ? CudaOptions::Missing::kMeasured
                                    : CudaOptions::Missing::kUnmeasured});
  LORICA_RETURN_IF_ERROR(Agree(device.status(), world));
  return ChosenDevice{.device = *std::move(device), .gpu = mine.name};
}

}  // namespace

absl::StatusOr<ChosenDevice> OpenDevice(const DeviceOptions& options,
                                        const Placement& placement,
                                        const CpuOptions& cpu,
                                        Communicator& world) {
  if (options.kind != DeviceKind::kCpu) {
    absl::StatusOr<ChosenDevice> gpu =
        OpenGpu(options.product_choices, placement, world);
    // A file that is wrong is no reason to compute elsewhere.
    if (gpu.ok() || options.kind == DeviceKind::kCuda ||
        absl::IsInvalidArgument(gpu.status())) {
      return gpu;
    }
  }
  return ChosenDevice{.device = OpenCpuDevice(cpu)};
}

}  // namespace lorica
