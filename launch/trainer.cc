#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/pass.h"
#include "model/tuning/lr_schedule.h"
#include "runtime/check.h"
#include "runtime/ops.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Tokens of one forward and backward: products run at full speed from a few
// hundred tokens on, while activations grow with every token.
constexpr int64_t kPassTokens = 512;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<FlatSlice> SlicesOf(const Adapter& adapter) {
  std::vector<FlatSlice> slices;
  for (const Factor& factor : adapter.factors()) {
    slices.push_back(
        {factor.shard, {factor.offset, factor.offset + factor.elements}});
  }
  return slices;
}

double Sum(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const Session& session,
                 const Gpt& gpt, Adapter* adapter, RowSource rows,
                 std::function<int64_t(int64_t, int64_t)> targets)
    : config_(config),
      session_(session),
      gpt_(gpt),
      adapter_(adapter),
      rows_(std::move(rows)),
      targets_(std::move(targets)),
      sync_(SlicesOf(*adapter), adapter->elements(), session.mesh()) {}

absl::Status Trainer::Run(const TrainerEvents& events) {
  const TrainOptions& train = config_.train;
  LORICA_RETURN_IF_ERROR(events.on_validate(0));
  for (int64_t step = 1; step <= train.steps; ++step) {
    LORICA_ASSIGN_OR_RETURN(const StepMetrics metrics, Step(step));
    LORICA_RETURN_IF_ERROR(events.on_step(metrics));
    const bool last = step == train.steps;
    const auto due = [&](int64_t every) {
      return last || (every > 0 && step % every == 0);
    };
    if (due(train.valid_every_steps)) {
      LORICA_RETURN_IF_ERROR(events.on_validate(step));
    }
    if (due(config_.checkpoint.every_steps)) {
      VerifyReplicas();
      LORICA_RETURN_IF_ERROR(events.on_save(step));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<StepMetrics> Trainer::Step(int64_t step) {
  const Clock::time_point start = Clock::now();
  const TrainOptions& train = config_.train;
  Communicator& data = session_.mesh().data();
  const int64_t first_row = (step - 1) * train.global_batch;
  const int64_t targets = targets_(first_row, train.global_batch);
  const int64_t micro_batches = train.global_batch / train.micro_batch;
  const int64_t mine = micro_batches / data.size();
  // A slot for each micro-batch of the global batch, filled by its owner; the
  // last one counts tokens.
  std::vector<double> losses(static_cast<size_t>(micro_batches) + 1, 0.0);
  for (int64_t i = 0; i < mine; ++i) {
    const int64_t number = data.rank() * mine + i;
    const TokenBatch batch =
        rows_(first_row + number * train.micro_batch, train.micro_batch);
    losses[static_cast<size_t>(number)] =
        MicroBatch(batch, 1.0f / static_cast<float>(targets));
    losses.back() += static_cast<double>(batch.tokens.size());
    sync_.AddMicroBatch(adapter_->grads());
  }
  sync_.Reduce(adapter_->grads());
  data.AllReduceSum(absl::MakeSpan(losses), Purpose::kLoss);
  const double tokens = losses.back();
  losses.pop_back();
  StepMetrics metrics = {
      .step = step,
      .loss = Sum(losses) / static_cast<double>(targets),
      .learning_rate = LearningRate({.peak = train.learning_rate,
                                     .warmup_steps = train.warmup_steps,
                                     .steps = train.steps,
                                     .schedule = train.schedule},
                                    step),
      .grad_norm = std::sqrt(sync_.SquaredNorm(*adapter_->grads())),
      .target_tokens = targets,
      .tokens = static_cast<int64_t>(tokens)};
  if (!std::isfinite(metrics.loss) || !std::isfinite(metrics.grad_norm)) {
    return absl::AbortedError(absl::StrCat(
        "step ", step, ": the loss is ", metrics.loss,
        " and the gradient's norm ", metrics.grad_norm,
        "; the last save is kept. A smaller train.learning_rate may help"));
  }
  Update(step, metrics.grad_norm, metrics.learning_rate);
  if (DCHECK_IS_ON()) VerifyReplicas();
  adapter_->ZeroGrad();
  std::vector<int64_t> peak = {PeakRssBytes()};
  session_.mesh().world().AllReduceMax(absl::MakeSpan(peak), Purpose::kControl);
  metrics.peak_rss_bytes = peak[0];
  metrics.step_seconds = SecondsSince(start);
  metrics.tokens_per_second = tokens / metrics.step_seconds;
  return metrics;
}

double Trainer::MicroBatch(const TokenBatch& batch, float grad_scale) {
  double loss = 0.0;
  for (const RecordRange& records : CutIntoPasses(batch, kPassTokens)) {
    const Pass pass =
        MakeTrainingPass(session_.device(), batch, records, gpt_.selection(),
                         static_cast<uint64_t>(config_.train.seed));
    loss += Sum(gpt_.Train(pass, config_.recompute, grad_scale, *adapter_));
  }
  return loss;
}

void Trainer::Update(int64_t step, double grad_norm, double learning_rate) {
  const double limit = config_.train.max_grad_norm;
  // As PyTorch's clip_grad_norm_.
  const double clip =
      limit > 0.0 ? std::min(1.0, limit / (grad_norm + 1e-6)) : 1.0;
  ops::AdamW({.learning_rate = static_cast<float>(learning_rate),
              .weight_decay = static_cast<float>(config_.train.weight_decay),
              .grad_scale = static_cast<float>(clip),
              .step = step},
             *adapter_->grads(), adapter_->values(), adapter_->first_moments(),
             adapter_->second_moments());
  adapter_->Refresh();
}

// What ranks hold alike must be alike to the last bit, or a save would not be
// the model that was trained.
void Trainer::VerifyReplicas() {
  sync_.VerifyReplicas("the adapter", *adapter_->values());
  sync_.VerifyReplicas("AdamW's first moment", *adapter_->first_moments());
  sync_.VerifyReplicas("AdamW's second moment", *adapter_->second_moments());
}

std::vector<double> TokenLosses(const TokenBatch& batch, const Gpt& gpt,
                                const Adapter* adapter,
                                const Session& session) {
  Communicator& data = session.mesh().data();
  std::vector<double> losses(batch.tokens.size(), 0.0);
  const std::vector<RecordRange> passes = CutIntoPasses(batch, kPassTokens);
  for (size_t i = 0; i < passes.size(); ++i) {
    if (static_cast<int>(i % static_cast<size_t>(data.size())) != data.rank()) {
      continue;
    }
    std::vector<int64_t> place;
    const Pass pass =
        MakePass(session.device(), batch, passes[i], gpt.selection(), &place);
    const std::vector<double> rows = gpt.Evaluate(pass, adapter);
    for (size_t row = 0; row < rows.size(); ++row) {
      if (place[row] >= 0) losses[static_cast<size_t>(place[row])] = rows[row];
    }
  }
  // Each entry is set on one rank and zero on the others: the sum is exact.
  data.AllReduceSum(absl::MakeSpan(losses), Purpose::kLoss);
  return losses;
}

}  // namespace lorica
