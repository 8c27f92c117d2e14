// What tests say to the stand-ins that live beside this file. Those for the
// CUDA runtime, cuBLASLt and NCCL define the libraries' functions behind the
// real headers, in host memory and without a device; the one for cuDNN's
// attention stands behind runtime/cuda/sdpa.h.
//
// Nothing a stream is given runs before somebody waits for it, and then in an
// order that the library would be free to take, chosen by a policy. Whatever
// the order, every operation carries a vector clock of what is certain to have
// happened before it, and two accesses to device memory of which one is a
// write and which nothing orders are reported: a missing event, a use after
// cudaFreeAsync, a buffer taken again too early. Kernels run on the simulator;
// with its access checks their accesses count as well.
//
// Work of captured streams runs when its graph is launched, with the same
// checks each time: only what events order is ordered. Calls that the runtime
// refuses in a capture are reported, a stream that waits for the capture's
// events and is not waited for, and calls that lorica has no use for there:
// memory and copies of host memory.
//
// Ranks are threads. Collectives are matched over the ranks by kind, count and
// type, those of graphs at each launch and by what was captured together; where
// all threads wait for each other, or nothing happens for long, a report says
// who waits for whom, and the calls that wait fail.
#ifndef LORICA_TESTS_SUPPORT_CUDA_FAKES_FAKES_H_
#define LORICA_TESTS_SUPPORT_CUDA_FAKES_FAKES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace lorica::cuda_fakes {

// kEager runs everything as soon as it can. kLazyRandom runs what is waited
// for and now and then something else, in random order. kLazyLast runs only
// what is waited for, the youngest stream first.
enum class Policy : uint8_t { kEager, kLazyRandom, kLazyLast };
inline constexpr Policy kPolicies[] = {Policy::kEager, Policy::kLazyRandom,
                                       Policy::kLazyLast};

inline std::ostream& operator<<(std::ostream& out, Policy policy) {
  constexpr const char* kWords[] = {"Eager", "LazyRandom", "LazyLast"};
  return out << kWords[static_cast<size_t>(policy)];
}

struct Settings {
  Policy policy = Policy::kLazyRandom;
  uint32_t seed = 1;
  int devices = 8;
  int compute_major = 9;
  size_t memory_bytes = size_t{1} << 30;  // Of all devices together.
  bool nccl_connects = true;              // Or ranks never find each other.
  // What plans of cuDNN's attention ask for, for each slot of a record; lorica
  // is built without it if absent.
  std::optional<size_t> sdpa_workspace_bytes;
  // What a product takes by each algorithm that cuBLASLt proposes, in its
  // order.
  std::vector<double> product_microseconds = {1.0};
  size_t cublas_lt_version = 130000;
  int nccl_version = 22800;
  int nccl_registering_ranks = 1000;  // Those below it register memory.
  double silence_seconds = 20;        // Without any progress, then a report.
};

// Starts over with all streams forgotten. No other thread may be in a call.
void Reset(const Settings& settings);

// What was found wrong since Reset or the last call, at most 16 texts.
std::vector<std::string> TakeReports();

// Collectives of NCCL that all ranks have come to since Reset; a group of
// messages is one.
int64_t Collectives();

// Calls of ranks, since Reset, all of whose buffers were registered with NCCL.
int64_t RegisteredCalls();

// How often the calling thread waited for work that had not run, since Reset.
int64_t HostWaits();

// Kernels and products that the calling thread has given to streams since
// Reset; attention by a library is one.
int64_t Launches();

// Launches of graphs since Reset.
int64_t GraphLaunches();

// Bytes allocated now, and how often memory was asked for since Reset.
size_t BytesAllocated();
int64_t Allocations();

// What all products since Reset took, by Settings::product_microseconds. Events
// tell this time.
double DeviceMicroseconds();

}  // namespace lorica::cuda_fakes

#endif  // LORICA_TESTS_SUPPORT_CUDA_FAKES_FAKES_H_
