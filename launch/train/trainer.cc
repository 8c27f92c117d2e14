#include "launch/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "launch/train/anomaly.h"
#include "model/pass.h"
#include "model/pass_memory.h"
#include "model/tuning/lr_schedule.h"
#include "runtime/check.h"
#include "runtime/ops.h"
#include "runtime/status_macros.h"
#include "runtime/trace.h"

namespace lorica {
namespace {

// What the device takes at a time.
std::vector<RecordRange> PassesOf(const TokenBatch& batch,
                                  const Session& session) {
  return CutIntoPasses(batch, session.device()->backend().pass_tokens);
}

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

// Buckets of whole layers from the last down, each closed by the layer that
// brings it to the wanted size, which `completed_by` receives. No buckets where
// none are wanted.
std::vector<Bucket> BucketsOf(const Adapter& adapter, int64_t num_layers,
                              int64_t bucket_bytes,
                              std::vector<int64_t>* completed_by) {
  std::vector<Bucket> buckets;
  if (bucket_bytes == 0) return buckets;
  std::map<std::string, int64_t> layer_of;
  for (const LoraModule& module : adapter.modules()) {
    layer_of[module.linear.module] = module.linear.layer;
  }
  Bucket open;
  int64_t open_bytes = 0;
  for (int64_t layer = num_layers - 1; layer >= adapter.lowest_layer();
       --layer) {
    for (const Factor& factor : adapter.factors()) {
      if (layer_of.at(factor.module) != layer) continue;
      open.push_back({factor.offset, factor.offset + factor.elements});
      open_bytes += factor.elements * static_cast<int64_t>(sizeof(float));
    }
    const bool last = layer == adapter.lowest_layer();
    if (open_bytes < bucket_bytes && !last) continue;
    completed_by->push_back(layer);
    buckets.push_back(std::exchange(open, {}));
    open_bytes = 0;
  }
  return buckets;
}

int64_t MicroBatchesOfARank(const RunConfig& config, const Session& session) {
  return config.train.global_batch / config.train.micro_batch /
         session.mesh().data().size();
}

// Of activations, beyond the memory that was taken for them.
int64_t UnplannedBytes(const Allocator* activations) {
  return activations != nullptr
             ? static_cast<int64_t>(activations->slab_bytes())
             : 0;
}

double Sum(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum;
}

// Of a micro-batch, given those of its passes.
double Sum(const std::vector<RowLosses>& passes) {
  double sum = 0.0;
  for (const RowLosses& losses : passes) sum += Sum(losses.Read());
  return sum;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const Session& session,
                 const Gpt& gpt, Adapter* adapter, RowSource rows,
                 std::function<int64_t(int64_t, int64_t)> targets,
                 TrainingPosition position, Allocator* activations)
    : config_(config),
      session_(session),
      gpt_(gpt),
      adapter_(adapter),
      rows_(std::move(rows)),
      targets_(std::move(targets)),
      sync_(SlicesOf(*adapter), *adapter->grads(),
            MicroBatchesOfARank(config, session), session.mesh(),
            BucketsOf(*adapter, gpt.config().num_layers,
                      config.mesh.gradient_bucket_bytes, &bucket_layers_)),
      position_(std::move(position)),
      adamw_numbers_(Tensor::Empty(session.device(), ops::kAdamWNumbersShape,
                                   DType::kF32)),
      update_(session.device()),
      activations_(activations) {
  if (config.pass_graphs > 0) {
    recordings_.emplace(gpt, *adapter, config.recompute, session.device(),
                        config.pass_graphs, activations);
    adapter->Refresh();  // Makes the table that it keeps, once for all.
    sync_.Record(recordings_->work_recorder());
    update_ = RecordedWork(session.device(), recordings_->work_recorder());
  }
}

absl::Status Trainer::Run(const TrainerEvents& events) {
  const TrainOptions& train = config_.train;
  if (position_.step == 0 && events.on_validate) {
    LORICA_RETURN_IF_ERROR(events.on_validate(0));
  }
  BackUp();
  while (position_.step < train.steps) {
    if (events.before_step) events.before_step(position_.step + 1);
    const StepResult result = Step(events);
    LORICA_RETURN_IF_ERROR(events.on_step(result.metrics));
    if (result.anomaly.empty()) {
      ++position_.step;
    } else {
      LORICA_RETURN_IF_ERROR(React(result, events));
    }
    const bool last = position_.step == train.steps;
    const auto due = [&](int64_t every) {
      return last || (every > 0 && position_.step % every == 0);
    };
    const bool stops = result.stop_wish != 0;
    if (position_.step != result.metrics.step) continue;  // Rolled back.
    if (events.on_validate && due(train.valid_every_steps)) {
      LORICA_RETURN_IF_ERROR(events.on_validate(position_.step));
    }
    if (stops || due(config_.checkpoint.every_steps)) {
      VerifyReplicas();
      LORICA_RETURN_IF_ERROR(Save(events));
    }
    if (stops) return events.on_stop(result.stop_wish, position_.step);
  }
  return absl::OkStatus();
}

absl::Status Trainer::Save(const TrainerEvents& events) {
  BackUp();
  return events.on_save ? events.on_save(position_) : absl::OkStatus();
}

absl::Status Trainer::React(const StepResult& result,
                            const TrainerEvents& events) {
  const TrainOptions& train = config_.train;
  const int64_t step = result.metrics.step;
  const std::string what = absl::StrCat("step ", step, ": ", result.anomaly);
  if (train.on_anomaly == OnAnomaly::kStop) {
    return absl::AbortedError(
        absl::StrCat(what,
                     "; the last save is kept. A smaller train.learning_rate "
                     "may help, or train.on_anomaly"));
  }
  if (position_.anomalies > train.max_anomalies) {
    return absl::AbortedError(
        absl::StrCat(what, "; that is anomaly ", position_.anomalies,
                     " and train.max_anomalies is ", train.max_anomalies,
                     "; the last save is kept"));
  }
  if (train.on_anomaly == OnAnomaly::kSkip) {
    ++position_.step;
    return events.on_anomaly(absl::StrCat(what, "; skipped"));
  }
  RollBack();
  return events.on_anomaly(
      absl::StrCat(what, "; rolled back to step ", position_.step));
}

void Trainer::BackUp() {
  if (config_.train.on_anomaly != OnAnomaly::kRollBack) return;
  backup_ = {.position = position_,
             .values = adapter_->values()->ToHost<float>(),
             .first_moments = adapter_->first_moments()->ToHost<float>(),
             .second_moments = adapter_->second_moments()->ToHost<float>()};
}

// What came after the backup is done again with the batches after the bad one,
// which would bring the same anomaly again.
void Trainer::RollBack() {
  adapter_->values()->CopyFrom(backup_->values.data());
  adapter_->first_moments()->CopyFrom(backup_->first_moments.data());
  adapter_->second_moments()->CopyFrom(backup_->second_moments.data());
  adapter_->Refresh();
  TrainingPosition position = backup_->position;
  const int64_t next_batch = position_.step + 1 + position_.skipped_batches;
  position.skipped_batches = next_batch - position.step;
  position.anomalies = position_.anomalies;
  position_ = std::move(position);
}

Trainer::BatchLoss Trainer::Accumulate(int64_t first_row, int64_t targets) {
  const TrainOptions& train = config_.train;
  Communicator& data = session_.mesh().data();
  const int64_t mine = MicroBatchesOfARank(config_, session_);
  const int64_t micro_batches = mine * data.size();
  // A slot for each micro-batch of the global batch, filled by its owner; the
  // last one counts tokens.
  std::vector<double> losses(static_cast<size_t>(micro_batches) + 1, 0.0);
  std::vector<std::vector<RowLosses>> unread;  // By micro-batch of this rank.
  for (int64_t i = 0; i < mine; ++i) {
    const int64_t number = data.rank() * mine + i;
    const TokenBatch batch = Rows(first_row + number * train.micro_batch);
    unread.push_back(
        MicroBatch(batch, 1.0f / static_cast<float>(targets),
                   i + 1 < mine ? Follows::kMore : Follows::kNothing));
    losses.back() += static_cast<double>(batch.tokens.size());
    sync_.AddMicroBatch();
  }
  Reduce();
  // The device has the whole batch before the host waits for it.
  for (int64_t i = 0; i < mine; ++i) {
    losses[static_cast<size_t>(data.rank() * mine + i)] =
        Sum(unread[static_cast<size_t>(i)]);
  }
  data.AllReduceSum(absl::MakeSpan(losses), Purpose::kLoss);
  const auto tokens = static_cast<int64_t>(losses.back());
  losses.pop_back();
  return {.loss = Sum(losses) / static_cast<double>(targets), .tokens = tokens};
}

Trainer::StepResult Trainer::Step(const TrainerEvents& events) {
  const Span span(SpanKind::kPhase, "step");
  const Clock::time_point start = Clock::now();
  const TrainOptions& train = config_.train;
  const int64_t step = position_.step + 1;
  const int64_t first_row =
      (step - 1 + position_.skipped_batches) * train.global_batch;
  const int64_t targets = targets_(first_row, train.global_batch);
  const BatchLoss batch = Accumulate(first_row, targets);
  StepResult result;
  StepMetrics& metrics = result.metrics;
  metrics = {.step = step,
             .loss = batch.loss,
             .learning_rate = LearningRate({.peak = train.learning_rate,
                                            .warmup_steps = train.warmup_steps,
                                            .steps = train.steps,
                                            .schedule = train.schedule},
                                           step),
             .grad_norm = std::sqrt(sync_.SquaredNorm()),
             .target_tokens = targets,
             .tokens = batch.tokens};
  result.anomaly = AnomalyOf(metrics.loss, metrics.grad_norm,
                             train.outlier_factor, position_);
  if (result.anomaly.empty()) {
    Update(step, metrics.grad_norm, metrics.learning_rate);
    Remember(metrics.loss, metrics.grad_norm, &position_);
  } else {
    ++position_.anomalies;
    adapter_->ZeroGrad();
  }
  if (DCHECK_IS_ON()) VerifyReplicas();
  metrics.anomalies = position_.anomalies;
  const Device& device = *session_.device();
  int64_t maxima[] = {PeakRssBytes(), events.stop_wish ? events.stop_wish() : 0,
                      device.backend().peak_memory(device.queue()),
                      UnplannedBytes(activations_)};
  session_.mesh().world().AllReduceMax(absl::MakeSpan(maxima),
                                       Purpose::kControl);
  metrics.peak_rss_bytes = maxima[0];
  metrics.peak_device_bytes = maxima[2];
  metrics.unplanned_bytes = maxima[3];
  result.stop_wish = maxima[1];
  metrics.step_seconds = SecondsSince(start);
  metrics.tokens_per_second =
      static_cast<double>(batch.tokens) / metrics.step_seconds;
  return result;
}

TokenBatch Trainer::Rows(int64_t first) const {
  const Span span(SpanKind::kPhase, "data");
  return rows_(first, config_.train.micro_batch);
}

void Trainer::Reduce() {
  const Span span(SpanKind::kPhase, "reduce");
  sync_.Reduce();
}

LayersDone Trainer::BucketsDone() {
  return {.layers = bucket_layers_, .tell = [this](int64_t layer) {
            const auto found =
                std::find(bucket_layers_.begin(), bucket_layers_.end(), layer);
            if (found == bucket_layers_.end()) return;
            sync_.Ready(static_cast<int>(found - bucket_layers_.begin()));
          }};
}

std::vector<RowLosses> Trainer::MicroBatch(const TokenBatch& batch,
                                           float grad_scale, Follows follows) {
  const Span span(SpanKind::kPhase, "micro-batch");
  std::vector<RowLosses> losses;
  const std::vector<RecordRange> passes = PassesOf(batch, session_);
  for (size_t i = 0; i < passes.size(); ++i) {
    const TrainingRows rows =
        CollectTrainingRows(batch, passes[i], gpt_.selection(),
                            static_cast<uint64_t>(config_.train.seed));
    // Only after its last pass is a layer's gradient complete.
    const bool last = follows == Follows::kNothing && i + 1 == passes.size();
    const LayersDone done =
        last && sync_.num_buckets() > 1 ? BucketsDone() : LayersDone();
    if (recordings_) {
      losses.push_back(recordings_->Train(rows, grad_scale, done));
      continue;
    }
    const Pass pass = MakeTrainingPass(session_.device(), rows);
    losses.emplace_back(session_.device(), rows.targets);
    const ActivationScope scope(session_.device(), activations_);
    gpt_.Train(pass, config_.recompute, grad_scale, *adapter_, done.tell,
               &losses.back());
  }
  return losses;
}

void Trainer::Update(int64_t step, double grad_norm, double learning_rate) {
  const Span span(SpanKind::kPhase, "update");
  const double limit = config_.train.max_grad_norm;
  // As PyTorch's clip_grad_norm_.
  const double clip =
      limit > 0.0 ? std::min(1.0, limit / (grad_norm + 1e-6)) : 1.0;
  const AdamWNumbers numbers = ops::NumbersOf(
      {.learning_rate = static_cast<float>(learning_rate),
       .weight_decay = static_cast<float>(config_.train.weight_decay),
       .grad_scale = static_cast<float>(clip),
       .step = step});
  adamw_numbers_.CopyFrom(&numbers);
  update_.Do([this] {
    ops::AdamW(adamw_numbers_, *adapter_->grads(), adapter_->values(),
               adapter_->first_moments(), adapter_->second_moments());
    adapter_->Refresh();
    adapter_->ZeroGrad();
  });
}

// What ranks hold alike must be alike to the last bit, or a save would not be
// the model that was trained. Fatal, as the ranks that share nothing with those
// that differ know of no error.
void Trainer::VerifyReplicas() {
  const auto verify = [this](absl::string_view what, const Tensor& flat) {
    const absl::Status same = sync_.VerifyReplicas(what, flat);
    CHECK(same.ok()) << same.message();
  };
  verify("the adapter", *adapter_->values());
  verify("AdamW's first moment", *adapter_->first_moments());
  verify("AdamW's second moment", *adapter_->second_moments());
}

std::vector<double> TokenLosses(const TokenBatch& batch, const Gpt& gpt,
                                const Adapter* adapter,
                                const Session& session) {
  Communicator& data = session.mesh().data();
  std::vector<double> losses(batch.tokens.size(), 0.0);
  const std::vector<RecordRange> passes = PassesOf(batch, session);
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
