// All-reduce by size, each communicator against MPI's own:
//
//   mpirun -n 4 collectives_bench        processes of this host
//   collectives_bench 4                  threads of this process
//
// Bandwidth in GB/s: algorithm, bytes of the array per second; bus, what each
// rank must send at least, algorithm times 2 (n - 1) / n.
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "parallel/local_communicator.h"
#include "parallel/mpi_communicator.h"
#include "runtime/check.h"

namespace lorica {
namespace {

constexpr int64_t kSizes[] = {64,        1 << 10, 16 << 10, 64 << 10,
                              256 << 10, 589824,  2359296,  16 << 20};

// The best of several rounds of one collective, in seconds, by the slowest
// rank.
double SecondsOf(Communicator& world, int64_t bytes,
                 const std::function<void()>& collective) {
  const int calls =
      static_cast<int>(std::clamp<int64_t>((16 << 20) / bytes, 5, 200));
  double best = 1e9;
  for (int round = 0; round < 5; ++round) {
    world.Barrier();
    const auto start = std::chrono::steady_clock::now();
    for (int call = 0; call < calls; ++call) collective();
    const std::chrono::duration<double> elapsed =
        std::chrono::steady_clock::now() - start;
    std::vector<int64_t> nanoseconds = {
        static_cast<int64_t>(elapsed.count() * 1e9)};
    world.AllReduceMax(absl::MakeSpan(nanoseconds), Purpose::kControl);
    best = std::min(best, static_cast<double>(nanoseconds[0]) * 1e-9 / calls);
  }
  return best;
}

void Print(const Communicator& world, const std::string& name, int64_t bytes,
           double seconds) {
  if (world.rank() != 0) return;
  const double n = world.size();
  const double algorithm = static_cast<double>(bytes) / seconds * 1e-9;
  std::printf("%5d %-22s %10lld %10.1f %10.2f %10.2f\n", world.size(),
              name.c_str(), static_cast<long long>(bytes), seconds * 1e6,
              algorithm, algorithm * 2.0 * (n - 1.0) / n);
}

void Header(const Communicator& world) {
  if (world.rank() != 0) return;
  std::printf("ranks %-22s %10s %10s %10s %10s\n", "all-reduce", "bytes", "us",
              "algorithm", "bus");
}

void Measure(Communicator& world, const std::string& name) {
  const std::unique_ptr<Device> device = OpenCpuDevice({.threads = 1});
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const int64_t bytes : kSizes) {
      Tensor tensor = Tensor::Zeros(
          device.get(), {bytes / static_cast<int64_t>(SizeOf(dtype))}, dtype);
      const double seconds = SecondsOf(world, bytes, [&] {
        world.AllReduceSum(&tensor, Purpose::kActivation);
      });
      Print(world, name + " " + NameOf(dtype), bytes, seconds);
    }
  }
}

void MeasureMpi(Communicator& world) {
  for (const int64_t bytes : kSizes) {
    std::vector<float> values(static_cast<size_t>(bytes / 4), 0.0f);
    const double seconds = SecondsOf(world, bytes, [&] {
      MPI_Allreduce(MPI_IN_PLACE, values.data(),
                    static_cast<int>(values.size()), MPI_FLOAT, MPI_SUM,
                    MPI_COMM_WORLD);
    });
    Print(world, "MPI_Allreduce F32", bytes, seconds);
  }
}

void RunThreads(int ranks) {
  std::vector<std::unique_ptr<Communicator>> worlds = LocalCommunicators(ranks);
  std::vector<std::thread> threads;
  for (std::unique_ptr<Communicator>& world : worlds) {
    threads.emplace_back([mine = std::move(world)] {
      Header(*mine);
      Measure(*mine, "threads");
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void RunProcesses(const MpiEnvironment& environment) {
  const std::unique_ptr<Communicator> world = environment.World();
  Header(*world);
  if (environment.placement().hosts == 1) Measure(*world, "shared memory");
  Measure(*environment.World(HostPath::kMessages), "messages");
  MeasureMpi(*world);
}

}  // namespace
}  // namespace lorica

int main(int argc, char** argv) {
  if (argc > 1) {
    lorica::RunThreads(std::max(1, std::atoi(argv[1])));
    return 0;
  }
  auto environment = lorica::MpiEnvironment::Start();
  CHECK(environment.ok()) << environment.status();
  if (environment->get()->World()->size() < 2) {
    std::fprintf(stderr, "start with mpirun -n N, or name a number of ranks\n");
    return 2;
  }
  lorica::RunProcesses(**environment);
  return 0;
}
