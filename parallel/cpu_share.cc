#include "parallel/cpu_share.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "parallel/shard_spec.h"

namespace lorica {
namespace {

constexpr int kMaxCpus = CPU_SETSIZE;

Cpus MaskOfThread() {
  cpu_set_t set;
  CPU_ZERO(&set);
  Cpus cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return {0};
  for (int cpu = 0; cpu < kMaxCpus; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// The system cuts a mask of everything down to what the container allows.
Cpus UsableCpus(const Cpus& now) {
  Cpus all(kMaxCpus);
  for (int cpu = 0; cpu < kMaxCpus; ++cpu) all[cpu] = cpu;
  BindTo(all);
  Cpus usable = MaskOfThread();
  BindTo(now);
  return usable;
}

// The list of a core's CPUs begins with its lowest, such as "0,32" or "0-1".
int CoreOf(int cpu) {
  std::ifstream file(absl::StrCat("/sys/devices/system/cpu/cpu", cpu,
                                  "/topology/thread_siblings_list"));
  int lowest = cpu;
  return file >> lowest ? lowest : cpu;
}

Binding BindingOfLauncher() {
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) return Binding::kChosen;
  if (std::getenv("OMPI_MCA_hwloc_base_binding_policy") != nullptr) {
    return Binding::kChosen;
  }
  // "--map-by slot:PE=4" binds as well: to four cores.
  const char* mapping = std::getenv("OMPI_MCA_rmaps_base_mapping_policy");
  return mapping != nullptr &&
                 absl::StrContains(absl::AsciiStrToLower(mapping), "pe=")
             ? Binding::kChosen
             : Binding::kDefault;
}

bool Overlap(const Cpus& a, const Cpus& b) {
  return std::any_of(a.begin(), a.end(), [&b](int cpu) {
    return std::binary_search(b.begin(), b.end(), cpu);
  });
}

// The cores of some CPUs, each by its lowest CPU, ascending.
Cpus CoresOf(const HostCpus& host, const Cpus& cpus) {
  std::set<int> cores;
  for (const int cpu : cpus) {
    const auto core = host.core_of.find(cpu);
    cores.insert(core == host.core_of.end() ? cpu : core->second);
  }
  return {cores.begin(), cores.end()};
}

}  // namespace

HostCpus SeeHost() {
  HostCpus host;
  host.started_on = MaskOfThread();
  host.usable = UsableCpus(host.started_on);
  for (const int cpu : host.usable) host.core_of[cpu] = CoreOf(cpu);
  host.binding = BindingOfLauncher();
  return host;
}

CpuShare ShareOf(const HostCpus& host, absl::Span<const Cpus> started_on,
                 int rank) {
  const int ranks = static_cast<int>(started_on.size());
  const Cpus cores = CoresOf(host, host.usable);
  if (host.binding == Binding::kDefault && std::ssize(cores) >= ranks) {
    const Range mine = SplitUnits(std::ssize(cores), rank, ranks);
    CpuShare share = {.threads = static_cast<int>(std::ssize(cores) / ranks),
                      .bind = true};
    for (const int cpu : host.usable) {
      const int core = host.core_of.at(cpu);
      const bool is_mine =
          core >= cores[mine.begin] && core <= cores[mine.end - 1];
      if (is_mine) share.cpus.push_back(cpu);
    }
    return share;
  }
  CpuShare share = {.cpus = started_on[rank]};
  const auto sharers = std::count_if(
      started_on.begin(), started_on.end(),
      [&](const Cpus& theirs) { return Overlap(theirs, share.cpus); });
  share.threads =
      std::max(1, static_cast<int>(std::ssize(CoresOf(host, share.cpus)) /
                                   std::max<std::ptrdiff_t>(1, sharers)));
  return share;
}

void BindTo(const Cpus& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) {
    if (cpu < kMaxCpus) CPU_SET(cpu, &set);
  }
  [[maybe_unused]] const int refused = sched_setaffinity(0, sizeof(set), &set);
}

std::string RangesOf(const Cpus& cpus) {
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    absl::StrAppend(&text, text.empty() ? "" : ",", cpus[i]);
    if (last > i) absl::StrAppend(&text, "-", cpus[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace lorica
