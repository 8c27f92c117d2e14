// Sums gradients until something stops it: what faults.sh tries its faults on.
// Goes on when told to end, as training does to the end of a step. Argument:
// the watchdog's timeout in seconds.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "absl/time/clock.h"
#include "parallel/mpi_communicator.h"
#include "parallel/watchdog.h"
#include "runtime/check.h"

namespace {
volatile std::sig_atomic_t told_to_end = 0;
}  // namespace

int main(int argc, char** argv) {
  CHECK_EQ(argc, 2);
  auto environment = lorica::MpiEnvironment::Start();
  CHECK(environment.ok()) << environment.status();
  std::signal(SIGTERM, [](int) { told_to_end = 1; });
  lorica::Watchdog watchdog(absl::Seconds(std::atoi(argv[1])),
                            [] { return told_to_end != 0; });
  const auto world = environment->get()->World();
  world->SetWatchdog(&watchdog);
  const auto device = lorica::OpenCpuDevice({.threads = 1});
  auto gradient =
      lorica::Tensor::Zeros(device.get(), {100000}, lorica::DType::kF32);
  std::printf("rank %d is process %d\n", world->rank(), getpid());
  std::fflush(stdout);
  for (int step = 0;; ++step) {
    world->AllReduceSum(&gradient, lorica::Purpose::kAdapterGrad);
    if (step == 10 && world->rank() == 0) {
      std::printf("running\n");
      std::fflush(stdout);
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
}
