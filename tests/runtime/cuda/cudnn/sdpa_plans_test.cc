// cuDNN's attention for the shapes of models, planned down to compiled kernels
// by the real library for devices that are not here: their properties are
// given as JSON and the driver is fake_driver.cc. Says whether cuDNN takes a
// shape, with which engine and how much workspace, and what a call is given;
// runs nothing. Plans are printed as rows of a table, which
// tests/bench/results keeps.
#include <cuda_runtime_api.h>
#include <cudnn_backend.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "runtime/cuda/cudnn_attention.h"
#include "runtime/cuda/sdpa_cudnn.h"

namespace {

// What the last call was given. The library takes variant packs and does not
// show them again.
std::vector<int64_t> call_uids;
std::vector<void*> call_pointers;
void* call_workspace = nullptr;

template <typename T>
void Keep(int64_t count, const void* elements, std::vector<T>* to) {
  const T* first = static_cast<const T*>(elements);
  to->assign(first, first + count);
}

}  // namespace

// In the place of cuDNN's own, which would reach a device; no_device.cc has the
// CUDA runtime's.
extern "C" {

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type,
                                       int64_t count, const void* elements) {
  if (name == CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS) {
    Keep(count, elements, &call_uids);
  } else if (name == CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS) {
    Keep(count, elements, &call_pointers);
  } else if (name == CUDNN_ATTR_VARIANT_PACK_WORKSPACE) {
    call_workspace = *static_cast<void* const*>(elements);
  }
  static const auto next =
      reinterpret_cast<decltype(&cudnnBackendSetAttribute)>(
          dlsym(RTLD_NEXT, "cudnnBackendSetAttribute"));
  return next(descriptor, name, type, count, elements);
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t,
                                  cudnnBackendDescriptor_t) {
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t, cudaStream_t* stream) {
  *stream = nullptr;
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"

namespace lorica::cuda {
namespace {

// A packed row: so many records of at most so many tokens.
constexpr int64_t kRecords = 8;
constexpr int64_t kLongest = 2048;
constexpr int64_t kTokens = 4096;

struct Architecture {
  const char* name;
  int sm;
  const char* json;  // What differs between devices.
};

// From the data sheets; the heuristics need them roughly.
constexpr Architecture kA100 = {
    "A100", 80,
    R"("multiProcessorCount":108,"maxSharedMemoryPerBlockOptin":166912,)"
    R"("totalGlobalMem":85094825984,"smClockRateKHz":1410000,)"
    R"("memClockRateKHz":1593000,"l2CacheSize":41943040,"deviceVer":800,)"
    R"("deviceName":"NVIDIA A100-SXM4-80GB")"};
constexpr Architecture kH200 = {
    "H200", 90,
    R"("multiProcessorCount":132,"maxSharedMemoryPerBlockOptin":232448,)"
    R"("totalGlobalMem":150754820096,"smClockRateKHz":1980000,)"
    R"("memClockRateKHz":3201000,"l2CacheSize":62914560,"deviceVer":900,)"
    R"("deviceName":"NVIDIA H200")"};
constexpr Architecture kB200 = {
    "B200", 100,
    R"("multiProcessorCount":148,"maxSharedMemoryPerBlockOptin":232448,)"
    R"("totalGlobalMem":191503138816,"smClockRateKHz":1965000,)"
    R"("memClockRateKHz":3996000,"l2CacheSize":132644864,"deviceVer":1000,)"
    R"("deviceName":"NVIDIA B200")"};

constexpr char kCommonJson[] =
    R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],)"
    R"("regsPerBlock":65536,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
    R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
    R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,)"
    R"("pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,)"
    R"("cudaDeviceId":0,"driverVer":13000,)";

struct Heads {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
};
// Of the models lorica trains, of larger ones and of GPT-like ones.
constexpr Heads kHeads[] = {{9, 3, 64}, {32, 8, 128}, {32, 32, 96}};

// As columns of a table.
std::ostream& operator<<(std::ostream& out, const SdpaShape& shape) {
  return out << shape.heads << " over " << shape.kv_heads << " of "
             << shape.head_dim << " | "
             << (shape.direction == Direction::kForward ? "forward"
                 : shape.order == GradOrder::kFixed ? "backward, fixed order"
                                                    : "backward, any order");
}

std::unique_ptr<SdpaLibrary> LibraryFor(const Architecture& architecture) {
  auto library = OpenSdpaFor(
      {.sm = architecture.sm,
       .properties = std::string(kCommonJson) + architecture.json + "}"});
  if (library.ok()) return *std::move(library);
  ADD_FAILURE() << std::string(library.status().message());
  return nullptr;
}

// Queries, keys and values are slices of one matrix.
SdpaShape ShapeOf(const Heads& heads, Direction direction, GradOrder order) {
  SdpaShape shape = {.direction = direction,
                     .order = order,
                     .heads = heads.heads,
                     .kv_heads = heads.kv_heads,
                     .head_dim = heads.head_dim,
                     .records = kRecords,
                     .longest = kLongest,
                     .scale = 0.125f};
  if (direction == Direction::kBackward) shape.tokens = kTokens;
  const int64_t fused = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
  for (size_t i = 0; i < NumMatrices(direction); ++i) {
    const SdpaMatrix matrix = kSdpaMatrices[i];
    shape.row_strides[i] = matrix < SdpaMatrix::kOut ? fused
                           : IsOfKeys(matrix) ? heads.kv_heads * heads.head_dim
                                              : heads.heads * heads.head_dim;
  }
  return shape;
}

// The plan's engine and workspace, printed; null where there is none, with the
// reason printed.
std::unique_ptr<SdpaPlan> PlanOf(const Architecture& architecture,
                                 const SdpaShape& shape) {
  const std::unique_ptr<SdpaLibrary> library = LibraryFor(architecture);
  auto plan = library->Plan(shape);
  std::cout << "| " << architecture.name << " | " << shape << " | ";
  if (!plan.ok()) {
    std::cout << plan.status().message() << " | |\n";
    return nullptr;
  }
  std::cout << "`" << (*plan)->engine() << "` | "
            << static_cast<double>((*plan)->workspace_bytes()) * 1e-6 << " |\n";
  return *std::move(plan);
}

bool Serves(const SdpaPlan* plan) {
  return plan != nullptr &&
         plan->workspace_bytes() <= CudnnAttention::kMaxWorkspaceBytes;
}

TEST(SdpaPlansTest, ForwardServesEveryModelOnEveryArchitecture) {
  for (const Architecture& architecture : {kA100, kH200, kB200}) {
    for (const Heads& heads : kHeads) {
      const SdpaShape shape =
          ShapeOf(heads, Direction::kForward, GradOrder::kFixed);
      EXPECT_TRUE(Serves(PlanOf(architecture, shape).get()));
    }
  }
}

TEST(SdpaPlansTest, BackwardInAnyOrderServesEveryModelOnEveryArchitecture) {
  for (const Architecture& architecture : {kA100, kH200, kB200}) {
    for (const Heads& heads : kHeads) {
      const SdpaShape shape =
          ShapeOf(heads, Direction::kBackward, GradOrder::kAny);
      EXPECT_TRUE(Serves(PlanOf(architecture, shape).get()));
    }
  }
}

// Where it does not, lorica's own kernels do.
TEST(SdpaPlansTest, BackwardInAFixedOrderServesFromHopperOn) {
  for (const Heads& heads : kHeads) {
    const SdpaShape shape =
        ShapeOf(heads, Direction::kBackward, GradOrder::kFixed);
    EXPECT_FALSE(Serves(PlanOf(kA100, shape).get())) << heads.head_dim;
    EXPECT_TRUE(Serves(PlanOf(kH200, shape).get())) << heads.head_dim;
    EXPECT_TRUE(Serves(PlanOf(kB200, shape).get())) << heads.head_dim;
  }
}

TEST(SdpaPlansTest, ShapesOutsideTheLibraryAreRefusedInWords) {
  const std::unique_ptr<SdpaLibrary> library = LibraryFor(kH200);
  for (const Heads& heads : {Heads{9, 4, 64}, Heads{8, 8, 60}}) {
    const auto plan =
        library->Plan(ShapeOf(heads, Direction::kForward, GradOrder::kFixed));
    EXPECT_FALSE(plan.ok());
    EXPECT_GT(plan.status().message().size(), 20u);
  }
}

// Every array has an address of its own, below those of the host's memory.
// Whatever else a call is given is a number on the host or in the workspace.
TEST(SdpaPlansTest, ACallIsGivenEveryArrayByItsNumber) {
  for (const Direction direction :
       {Direction::kForward, Direction::kBackward}) {
    const auto made =
        LibraryFor(kH200)->Plan(ShapeOf(kHeads[0], direction, GradOrder::kAny));
    ASSERT_TRUE(made.ok()) << made.status().message();
    SdpaPlan* plan = made->get();
    constexpr uintptr_t kAddresses = 30;
    const auto at = [](uintptr_t number) {
      return reinterpret_cast<void*>(number << 40);
    };
    SdpaArrays arrays = {.lengths = static_cast<int32_t*>(at(1)),
                         .stats = static_cast<float*>(at(2)),
                         .workspace = at(3)};
    std::map<int64_t, void*> expected = {
        {static_cast<int64_t>(SdpaUid::kQueryLengths), at(1)},
        {static_cast<int64_t>(SdpaUid::kKeyLengths), at(1)},
        {static_cast<int64_t>(SdpaUid::kStats), at(2)}};
    for (size_t i = 0; i < NumMatrices(direction); ++i) {
      const auto number = static_cast<int64_t>(i);
      arrays.matrices[i] = at(10 + i);
      arrays.offsets[i] = static_cast<int32_t*>(at(20 + i));
      expected[static_cast<int64_t>(SdpaUid::kMatrices) + number] = at(10 + i);
      expected[static_cast<int64_t>(SdpaUid::kOffsets) + number] = at(20 + i);
    }
    const absl::Status status = plan->Run(arrays);
    ASSERT_TRUE(status.ok()) << status.message();
    const auto in_workspace = [&](const void* pointer) {
      const auto offset = reinterpret_cast<uintptr_t>(pointer) -
                          reinterpret_cast<uintptr_t>(arrays.workspace);
      return offset <= plan->workspace_bytes();
    };
    EXPECT_TRUE(in_workspace(call_workspace));
    ASSERT_EQ(call_uids.size(), call_pointers.size());
    size_t given = 0;
    for (size_t i = 0; i < call_uids.size(); ++i) {
      const auto array = expected.find(call_uids[i]);
      if (array == expected.end()) {
        EXPECT_TRUE(in_workspace(call_pointers[i]) ||
                    call_pointers[i] > at(kAddresses))
            << call_uids[i];
      } else {
        EXPECT_EQ(call_pointers[i], array->second) << call_uids[i];
        ++given;
      }
    }
    EXPECT_EQ(given, expected.size());
  }
}

}  // namespace
}  // namespace lorica::cuda
