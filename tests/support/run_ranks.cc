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

namespace {

std::unique_ptr<Device> OpenCpu() {
  return OpenCpuDevice({.threads = 1, .allocation = Allocation::kDirect});
}

std::unique_ptr<Device> (*open_test_device)() = OpenCpu;

}  // namespace

std::unique_ptr<Device> OpenTestDevice() { return open_test_device(); }

void SetTestDevice(std::unique_ptr<Device> (*open)()) {
  open_test_device = open;
}

}  // namespace lorica
