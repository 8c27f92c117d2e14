// Sums gradients until something stops it: what faults.sh tries its faults on.
// Goes on when told to end, as training does to the end of a step. Arguments:
// the watchdog's timeout in seconds; "messages" for broadcasts and barriers by
// messages instead.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/time/clock.h"
#include "parallel/mpi_communicator.h"
#include "parallel/watchdog.h"
#include "runtime/check.h"

namespace {
volatile std::sig_atomic_t told_to_end = 0;
}  // namespace

int main(int argc, char** argv) {
  CHECK_GE(argc, 2);
  const bool messages = argc > 2 && std::string(argv[2]) == "messages";
  auto environment = lorica::MpiEnvironment::Start();
  CHECK(environment.ok()) << environment.status();
  std::signal(SIGTERM, [](int) { told_to_end = 1; });
  lorica::Watchdog watchdog(absl::Seconds(std::atoi(argv[1])),
                            [] { return told_to_end != 0; });
  const auto world = environment->get()->World(
      messages ? lorica::HostPath::kMessages : lorica::HostPath::kSharedMemory);
  world->SetWatchdog(&watchdog);
  const auto device = lorica::OpenCpuDevice({.threads = 1});
  auto gradient =
      lorica::Tensor::Zeros(device.get(), {100000}, lorica::DType::kF32);
  std::printf("rank %d is process %d\n", world->rank(), getpid());
  std::fflush(stdout);
  for (int step = 0;; ++step) {
    if (messages) {
      // More than MPI sends before the receiver asks.
      world->BroadcastBytes(std::string(400000, 'x'), 0,
                            lorica::Purpose::kControl);
      world->Barrier();
    } else {
      world->AllReduceSum(&gradient, lorica::Purpose::kAdapterGrad);
    }
    if (step == 10 && world->rank() == 0) {
      std::printf("running\n");
      std::fflush(stdout);
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
}
