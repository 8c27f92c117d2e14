#include "tests/support/run_ranks.h"

#include <thread>
#include <utility>
#include <vector>

namespace lorica {

void RunRanks(
    int ranks,
    const std::function<void(std::unique_ptr<Communicator> world)>& body,
    const LocalOptions& options) {
  std::vector<std::unique_ptr<Communicator>> worlds =
      LocalCommunicators(ranks, options);
  std::vector<std::thread> threads;
  for (std::unique_ptr<Communicator>& world : worlds) {
    threads.emplace_back(
        [&body](std::unique_ptr<Communicator> mine) { body(std::move(mine)); },
        std::move(world));
  }
  for (std::thread& thread : threads) thread.join();
}

std::unique_ptr<Device> OpenTestDevice() {
  return OpenCpuDevice({.threads = 1, .allocation = Allocation::kDirect});
}

}  // namespace lorica
