// Speed of the CPU's entries at the shapes of a 135M Llama, on all cores.
// OMP_NUM_THREADS limits the threads; --benchmark_filter chooses.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <memory>
#include <string>

#include "runtime/allocator.h"
#include "runtime/device.h"
#include "tests/support/op_cases.h"

namespace lorica {
namespace {

void Measure(benchmark::State& state, const OpCase& op_case) {
  const std::unique_ptr<Device> device =
      OpenCpuDevice({.threads = omp_get_max_threads()});
  const PreparedOp op = op_case.prepare(device.get());
  op.run();  // Compiles products and grows scratch memory.
  for (auto _ : state) {
    op.run();
    device->Synchronize();
  }
  const auto runs = benchmark::Counter::kIsIterationInvariantRate;
  if (op_case.flops > 0) {
    state.counters["flops"] = benchmark::Counter(op_case.flops, runs);
  }
  if (op_case.bytes > 0) {
    state.counters["bytes"] = benchmark::Counter(op_case.bytes, runs);
  }
}

void RegisterAll() {
  for (const OpCase& op_case : ModelSizeCases()) {
    const std::string name = op_case.entry + "/" + op_case.name;
    benchmark::RegisterBenchmark(
        name.c_str(),
        [op_case](benchmark::State& state) { Measure(state, op_case); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace
}  // namespace lorica

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  lorica::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
}
