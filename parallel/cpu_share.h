// Which CPUs of its host a rank computes on, and with how many threads.
#ifndef LORICA_PARALLEL_CPU_SHARE_H_
#define LORICA_PARALLEL_CPU_SHARE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace lorica {

// CPU numbers of the operating system, ascending.
using Cpus = std::vector<int>;

// Whether somebody chose the CPUs a rank was started on. mpirun of Open MPI
// that is told nothing ties each of two ranks to a single core, however many
// the host has; nobody wants that of a program with threads.
enum class Binding : uint8_t { kChosen, kDefault };

// What this process sees of its host.
struct HostCpus {
  Cpus started_on;             // Where the launcher put the calling thread.
  Cpus usable;                 // Where it may go: what the container allows.
  std::map<int, int> core_of;  // The lowest CPU of each usable CPU's core.
  Binding binding = Binding::kChosen;
};
HostCpus SeeHost();

// A rank's share.
struct CpuShare {
  Cpus cpus;
  int threads = 1;    // At most one a core: two would share its arithmetic.
  bool bind = false;  // Whether `cpus` is to become the rank's binding.
  friend bool operator==(const CpuShare&, const CpuShare&) = default;
};

// The share of local rank `rank` of a host, from what each of its ranks was
// started on. A chosen binding is kept, and ranks that overlap divide its
// cores. A default one gives way to runs of neighbouring cores, unless there
// are fewer cores than ranks. All ranks of a host get the same number of
// threads then, since results are bit-identical only at equal numbers.
CpuShare ShareOf(const HostCpus& host, absl::Span<const Cpus> started_on,
                 int rank);

// Ties the calling thread, and those it starts from now on, to these CPUs. The
// system may refuse; the rank then runs where it did.
void BindTo(const Cpus& cpus);

// "0-3,8"
std::string RangesOf(const Cpus& cpus);

}  // namespace lorica

#endif  // LORICA_PARALLEL_CPU_SHARE_H_
