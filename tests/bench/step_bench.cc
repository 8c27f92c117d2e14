// Where the time of a training step goes: trains as a config says and prints,
// per op, layer and direction, calls, time, share of the step and rate; then
// the step beside what this machine's products and copies allow.
//
//   step_bench CONFIG [path=value ...]
//
// One rank; or as many as mpirun starts, of which rank 0 prints its own.
// Quoted are medians over the steps but for the first two.
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "launch/config/config.h"
#include "launch/session.h"
#include "launch/train/train_run.h"
#include "runtime/check.h"
#include "runtime/trace.h"
#include "runtime/traced_backend.h"
#include "tests/bench/recorded_products.h"

namespace lorica {
namespace {

constexpr int64_t kWarmUp = 2;
constexpr int kRounds = 7;

// What an op is counted under.
struct Place {
  std::string layer;
  std::string direction;
  std::string op;
  friend auto operator<=>(const Place&, const Place&) = default;
};

struct Total {
  int64_t calls = 0;
  double seconds = 0;
  Work work;
};

struct StepTotals {
  double seconds = 0;
  std::map<Place, Total> ops;
};

bool Inside(const SpanRecord& inner, const SpanRecord& outer) {
  return inner.thread == outer.thread && outer.begin_ns <= inner.begin_ns &&
         inner.end_ns <= outer.end_ns;
}

double SecondsOf(const SpanRecord& span) {
  return static_cast<double>(span.end_ns - span.begin_ns) * 1e-9;
}

// A span ends after all that it encloses, so a walk from the last backwards
// meets the enclosing layer before its ops. Ops outside any layer are counted
// under their phase.
std::vector<StepTotals> TotalsOf(const std::vector<SpanRecord>& spans) {
  std::vector<StepTotals> steps;
  std::vector<const SpanRecord*> open;
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
    while (!open.empty() && !Inside(*span, *open.back())) open.pop_back();
    const bool work =
        span->kind == SpanKind::kOp || span->kind == SpanKind::kCollective;
    if (span->kind == SpanKind::kPhase && std::string(span->name) == "step") {
      steps.push_back({.seconds = SecondsOf(*span), .ops = {}});
    }
    const bool in_step =
        !open.empty() && std::string(open.front()->name) == "step";
    if (work && in_step) {
      const SpanRecord& outer = *open.back();
      Total& total = steps.back().ops[{
          outer.name, outer.about,
          absl::StrCat(span->name, *span->about ? " " : "", span->about)}];
      ++total.calls;
      total.seconds += SecondsOf(*span);
      total.work.flops += span->work.flops;
      total.work.bytes += span->work.bytes;
    }
    if (!work) open.push_back(&*span);
  }
  std::reverse(steps.begin(), steps.end());
  return steps;
}

void PrintLine(const std::string& layer, const std::string& direction,
               const std::string& op, const Total& total, double step) {
  std::printf("| %-9s | %-8s | %-27s | %5lld | %8.2f | %5.1f %% |",
              layer.c_str(), direction.c_str(), op.c_str(),
              static_cast<long long>(total.calls), total.seconds * 1e3,
              total.seconds / step * 100);
  if (total.work.flops > 0) {
    std::printf(" %7.1f GFLOP/s |\n", total.work.flops / total.seconds * 1e-9);
  } else {
    std::printf(" %7.2f GB/s    |\n", total.work.bytes / total.seconds * 1e-9);
  }
}

// The step of median length, so that the parts add up to the whole.
const StepTotals& MedianStep(std::vector<StepTotals>& steps) {
  const auto first = steps.begin() + kWarmUp;
  const auto middle = first + (steps.end() - first) / 2;
  std::nth_element(first, middle, steps.end(),
                   [](const StepTotals& a, const StepTotals& b) {
                     return a.seconds < b.seconds;
                   });
  return *middle;
}

void Print(const StepTotals& step, const ProductsAlone& alone, double copy) {
  std::printf(
      "| layer     |          | op                          | calls |       "
      "ms |   share |            rate |\n"
      "|---|---|---|---|---|---|---|\n");
  double sum = 0;
  std::vector<std::pair<Place, Total>> ops(step.ops.begin(), step.ops.end());
  std::sort(ops.begin(), ops.end(), [](const auto& a, const auto& b) {
    return a.second.seconds > b.second.seconds;
  });
  for (const auto& [place, total] : ops) {
    PrintLine(place.layer, place.direction, place.op, total, step.seconds);
    sum += total.seconds;
  }
  std::printf("| between   |          | %-27s |       | %8.2f | %5.1f %% | |\n",
              "ops", (step.seconds - sum) * 1e3,
              (1 - sum / step.seconds) * 100);
  std::printf(
      "\nstep %.3f s; its frozen products alone %.3f s (%.0f GFLOP/s), %.1f %% "
      "of the step\n"
      "this machine: products up to %.0f GFLOP/s, copies %.1f GB/s\n",
      step.seconds, alone.seconds, alone.flops / alone.seconds * 1e-9,
      alone.seconds / step.seconds * 100, alone.best_flops_per_second * 1e-9,
      copy * 1e-9);
}

absl::Status Run(const std::string& path, std::vector<std::string> overrides) {
  const auto mpi = MpiEnvironment::Start();
  if (!mpi.ok()) return mpi.status();
  const auto config = LoadConfig(path, overrides);
  if (!config.ok()) return config.status();
  const RunConfig& run = config->run;
  CHECK_GT(run.train.steps, kWarmUp) << "train.steps";
  const auto session = Session::Open(
      **mpi, run.mesh, {run.device, run.product_choices, run.cuda_attention},
      run.threads);
  if (!session.ok()) return session.status();
  Device* device = (*session)->device();
  const Backend* plain = &device->backend();
  device->Interpose(TracedBackend(RecordProducts(plain)));
  StartTrace();
  const absl::Status status = RunTraining(*config, **session);
  std::vector<StepTotals> steps = TotalsOf(StopTrace());
  if (!status.ok()) return status;
  if (std::ssize(steps) <= kWarmUp) {
    return absl::FailedPreconditionError(absl::StrCat(
        "only ", steps.size(), " steps were trained: begin anew with ",
        "checkpoint.resume=NEVER, and set train.steps to 4 or more"));
  }
  device->Interpose(plain);
  std::map<Product, int64_t> products = TakeProducts();
  for (auto& [product, count] : products) count /= run.train.steps;
  const ProductsAlone alone = MeasureProducts(device, products, kRounds);
  const double copy = MeasureCopy(device);
  if ((*session)->leads()) Print(MedianStep(steps), alone, copy);
  return absl::OkStatus();
}

}  // namespace
}  // namespace lorica

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("step_bench CONFIG [path=value ...]\n", stderr);
    return 2;
  }
  const absl::Status status =
      lorica::Run(argv[1], std::vector<std::string>(argv + 2, argv + argc));
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 2;
}
