// Runs CUDA kernels on the host: what tests and stand-ins of the CUDA library
// say to the simulator. Kernels see it through target/cuda_target.h.
//
// The threads of a block are fibers of one system thread, blocks run one after
// another. What a GPU leaves open is chosen by Order; what it forbids is
// reported: threads that wait for each other forever or meet at different
// barriers and, in a program whose kernels are compiled with -fsanitize=thread,
// accesses that nothing orders, out of bounds, misaligned or of memory that was
// never written.
#ifndef LORICA_TESTS_SUPPORT_CUDA_SIM_SIMULATOR_H_
#define LORICA_TESTS_SUPPORT_CUDA_SIM_SIMULATOR_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace lorica::cuda_sim {

// Shared memory that a block can have on every GPU we build for.
inline constexpr size_t kMaxSharedBytes = 99 * 1024;

// A launch with its arguments, which it owns.
struct KernelCall {
  const void* kernel;  // Its address on the host.
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
  std::shared_ptr<void> arguments;
  size_t argument_bytes;
  void (*run_thread)(void* arguments);
};

// Executes the grid now. One at a time; other system threads wait.
void Run(const KernelCall& call);

// What a launch does with a call: Run it, unless a stand-in for the CUDA
// library keeps it for later. Returns what the launch reports.
using Launcher = std::function<cudaError_t(cudaStream_t, KernelCall)>;
void SetLauncher(Launcher launcher);
// What a launch calls.
cudaError_t Submit(cudaStream_t stream, KernelCall call);

// In which order the runnable threads of a block take turns. Asynchronous
// copies happen when waited for, or with kRandom at any time until then.
enum class Order : uint8_t { kForward, kReverse, kRandom };
void SetOrder(Order order, uint32_t seed);

// What was found wrong since the last call, at most 16 texts.
std::vector<std::string> TakeReports();

// Device memory, at multiples of 256, that kernels may touch: filled with 0xff,
// which is NaN. Its ends are watched by the address sanitizer or by the access
// checks.
void* Allocate(size_t bytes);
void Free(void* data);
// What the host has copied to the device.
void MarkWritten(const void* data, size_t bytes);

// Whether the program's kernels are compiled for access checks.
bool ChecksAccesses();

enum class Access : uint8_t { kRead, kWrite };
// Is told of every access of a kernel to device memory, with access checks.
using AccessObserver = void (*)(const void* data, size_t bytes, Access access);
void SetAccessObserver(AccessObserver observer);

}  // namespace lorica::cuda_sim

#endif  // LORICA_TESTS_SUPPORT_CUDA_SIM_SIMULATOR_H_
