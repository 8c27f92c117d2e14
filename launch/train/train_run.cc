#include "launch/train/train_run.h"

#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/base_model.h"
#include "launch/config/field_error.h"
#include "launch/report/metrics.h"
#include "launch/report/progress.h"
#include "launch/report/step_trace.h"
#include "launch/report/tensorboard.h"
#include "launch/state/resume.h"
#include "launch/state/saver.h"
#include "launch/train/pass_planning.h"
#include "launch/train/run_inputs.h"
#include "launch/train/stop_signals.h"
#include "launch/train/time_limit.h"
#include "launch/train/trainer.h"
#include "model/text/packing.h"
#include "parallel/agreement.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"
#include "runtime/trace.h"

namespace lorica {
namespace {

// What the stop of a run at its time limit is called beside signal numbers.
constexpr int64_t kTimeIsUp = 1000;

// A run once everything is open: what happens around the steps. Rank 0 alone
// has a screen and reports; the tensor ranks of the first data replica save.
class Run {
 public:
  // The arguments must outlive the run. `start`: the time of its process's.
  Run(const LoadedConfig& loaded, const Session& session, const Gpt& gpt,
      Adapter* adapter, const LoraConfig& lora, RunData data,
      std::optional<ResumedRun> resumed, const PlannedPasses& passes,
      TimeLimit::Clock::time_point start)
      : loaded_(loaded),
        config_(loaded.run),
        session_(session),
        gpt_(gpt),
        adapter_(adapter),
        lora_(lora),
        data_(std::move(data)),
        resumed_(std::move(resumed)),
        passes_(passes),
        time_limit_(config_.checkpoint.before_seconds, start),
        trace_(config_.report, config_.train.steps, session) {}

  absl::Status Open();
  absl::Status Train();

 private:
  bool saves() const { return session_.mesh().data().rank() == 0; }
  absl::Status OpenFiles();
  void Describe();
  void DescribeResumption();
  void DescribePasses(const PassRecordings::Counts& counts);
  // Hands a line of measurements to whatever keeps them. What cannot be
  // written, a full disk say, is told once and must not cost the training.
  template <typename Metrics>
  void Record(const Metrics& metrics);
  void OnStep(const StepMetrics& metrics);
  int64_t StopWish();
  void Stop(int64_t wish, int64_t step);
  void Save(const TrainingPosition& position);
  void OnSaved(const std::optional<SaveReport>& report);
  absl::Status FinishSaves();
  void Validate(int64_t step);

  const LoadedConfig& loaded_;
  const RunConfig& config_;
  const Session& session_;
  const Gpt& gpt_;
  Adapter* adapter_;
  const LoraConfig& lora_;
  RunData data_;
  std::optional<ResumedRun> resumed_;
  const PlannedPasses& passes_;
  TimeLimit time_limit_;
  StepTrace trace_;
  std::unique_ptr<Saver> saver_;
  absl::Status last_save_;
  std::optional<MetricsWriter> metrics_;
  std::optional<EventWriter> events_;
  std::optional<Progress> progress_;
  bool record_failed_ = false;
  bool told_of_unplanned_ = false;
};

absl::Status Run::Open() {
  const Mesh& mesh = session_.mesh();
  absl::Status status;
  if (saves()) {
    // The adapter once more in the PEFT directory, and with both moments.
    const int64_t save_bytes =
        4 * adapter_->total_parameters() * static_cast<int64_t>(sizeof(float));
    auto saver = Saver::Open(config_.checkpoint, save_bytes, &mesh.tensor());
    status = saver.status();
    if (saver.ok()) saver_ = *std::move(saver);
    if (status.ok() && session_.leads()) status = OpenFiles();
  }
  return Agree(status, mesh.world());
}

absl::Status Run::OpenFiles() {
  const std::string& directory = config_.checkpoint.directory;
  const std::string& metrics = config_.report.metrics;
  LORICA_RETURN_IF_ERROR(
      WriteFileAtomically(directory + "/run.textproto", loaded_.text));
  LORICA_ASSIGN_OR_RETURN(
      metrics_,
      Of("report.metrics", resumed_.has_value()
                               ? MetricsWriter::Continue(
                                     metrics, resumed_->manifest.position.step)
                               : MetricsWriter::Create(metrics)));
  LORICA_ASSIGN_OR_RETURN(events_,
                          Of("report.tensorboard",
                             EventWriter::Create(config_.report.tensorboard)));
  LORICA_RETURN_IF_ERROR(trace_.OpenFile());
  progress_.emplace(stdout, ScreenOf(stdout, stderr), config_.train.steps,
                    config_.report.every_steps);
  return absl::OkStatus();
}

void Run::DescribeResumption() {
  if (!resumed_.has_value()) return;
  for (const std::string& what : resumed_->passed_over) {
    progress_->Say(absl::StrCat("a save is passed over: ", what));
  }
  const int64_t step = resumed_->manifest.position.step;
  progress_->Say(
      absl::StrCat("going on after step ", step, " from ", resumed_->save));
  if (step == config_.train.steps) {
    progress_->Say(
        absl::StrCat("nothing is left to do: train.steps is ", step,
                     "; raise it, or start anew with checkpoint.resume=NEVER"));
  }
}

void Run::Describe() {
  if (!progress_.has_value()) return;
  const MeshConfig& mesh = config_.mesh;
  progress_->Say(absl::StrFormat(
      "%s: %d layers, %s; adapter of rank %d on %d modules, %d parameters",
      config_.model.path, gpt_.config().num_layers, NameOf(config_.model.dtype),
      lora_.rank, adapter_->modules().size(), adapter_->total_parameters()));
  progress_->Say(absl::StrFormat(
      "%d ranks (data %d x tensor %d) of %d threads on %d host%s",
      session_.mesh().world().size(), mesh.data, mesh.tensor,
      session_.threads(), session_.placement().hosts,
      session_.placement().hosts == 1 ? "" : "s"));
  for (const std::string& note : session_.notes()) progress_->Say(note);
  progress_->Say(passes_.note);
  progress_->Say(DatasetLine(config_.data.train, data_.train));
  if (data_.valid.has_value()) {
    progress_->Say(DatasetLine(config_.data.valid, *data_.valid));
  }
  DescribeResumption();
}

void Run::DescribePasses(const PassRecordings::Counts& counts) {
  if (config_.pass_graphs == 0 || !progress_.has_value()) return;
  progress_->Say(absl::StrFormat(
      "rank 0 replayed %d of %d passes, from %d recorded graphs",
      counts.replayed, counts.passes, counts.recorded));
}

absl::Status Run::Train() {
  Describe();
  const StopSignals signals;
  Trainer trainer(
      config_, session_, gpt_, adapter_,
      [&](int64_t first, int64_t count) {
        return MakeBatch(data_.train, first, count, &data_.order);
      },
      [&](int64_t first, int64_t count) {
        return NumTargets(data_.train, first, count, &data_.order);
      },
      resumed_.has_value() ? resumed_->manifest.position : TrainingPosition(),
      passes_.memory != nullptr ? passes_.memory->allocator() : nullptr);
  const auto always_ok = [](auto call) {
    return [call](const auto&... arguments) {
      call(arguments...);
      return absl::OkStatus();
    };
  };
  const absl::Status trained = trainer.Run(
      {.before_step = [&](int64_t step) { trace_.Before(step); },
       .on_step =
           [&](const StepMetrics& metrics) {
             OnStep(metrics);
             return trace_.After(metrics.step);
           },
       .on_save = always_ok([&](const auto& position) { Save(position); }),
       .on_validate = always_ok([&](int64_t step) { Validate(step); }),
       .stop_wish = [&] { return StopWish(); },
       .on_stop =
           always_ok([&](int64_t wish, int64_t step) { Stop(wish, step); }),
       .on_anomaly = always_ok([&](const std::string& what) {
         if (session_.leads()) progress_->Say(what);
       })});
  DescribePasses(trainer.recorded_passes());
  const absl::Status saved = FinishSaves();
  return trained.ok() ? saved : trained;
}

template <typename Metrics>
void Run::Record(const Metrics& metrics) {
  absl::Status status = events_->Write(metrics);
  if (status.ok()) status = metrics_->Write(metrics);
  if (!status.ok() && !std::exchange(record_failed_, true)) {
    progress_->Say(absl::StrCat("step ", metrics.step, ": ", status.message(),
                                "; training goes on"));
  }
}

void Run::OnStep(const StepMetrics& metrics) {
  if (saver_ != nullptr) OnSaved(saver_->Poll());
  if (!session_.leads()) return;
  progress_->Report(metrics);
  Record(metrics);
  if (metrics.unplanned_bytes > 0 && !std::exchange(told_of_unplanned_, true)) {
    progress_->Say(absl::StrCat("step ", metrics.step, ": activations took ",
                                metrics.unplanned_bytes,
                                " bytes more of a GPU than was planned, which "
                                "does no harm"));
  }
}

int64_t Run::StopWish() {
  const int signal = StopSignals::Received();
  if (signal != 0) return signal;
  return time_limit_.IsUp(TimeLimit::Clock::now()) ? kTimeIsUp : 0;
}

void Run::Stop(int64_t wish, int64_t step) {
  if (!session_.leads()) return;
  const std::string why = wish == kTimeIsUp
                              ? absl::StrCat("checkpoint.before_seconds = ",
                                             config_.checkpoint.before_seconds)
                              : SignalName(static_cast<int>(wish));
  progress_->Say(absl::StrCat("stopped after step ", step, " by ", why));
}

void Run::Save(const TrainingPosition& position) {
  const Span span(SpanKind::kPhase, "save");
  const auto since = TimeLimit::Clock::now();
  if (!saves()) return;
  SaveContent content = {
      .manifest = {.position = position,
                   .mesh = config_.mesh,
                   .config = loaded_.fields,
                   .data_checksum = data_.train_checksum,
                   .tensors = StateTensorsOf(*adapter_)},
      .snapshot = TakeSnapshot(adapter_, session_.mesh().tensor().rank())};
  PeftAdapter peft =
      GatherAdapter(*adapter_, lora_, config_.model.path, session_);
  if (session_.leads()) content.peft = std::move(peft);
  OnSaved(saver_->Start(std::move(content), since));
}

void Run::OnSaved(const std::optional<SaveReport>& report) {
  if (!report.has_value()) return;
  time_limit_.Saved(report->seconds);
  last_save_ = report->status;
  if (!session_.leads()) return;
  // A full disk must not cost the training so far: the saves there are stay.
  if (!report->status.ok()) {
    progress_->Say(absl::StrCat("step ", report->step,
                                " is not saved: ", report->status.message()));
  }
  Record(SaveMetrics{.step = report->step,
                     .saved = report->status.ok(),
                     .save_seconds = report->seconds,
                     .save_blocked_seconds = report->blocked_seconds,
                     .save_bytes = report->bytes});
}

absl::Status Run::FinishSaves() {
  if (saver_ != nullptr) OnSaved(saver_->Finish());
  absl::Status status = last_save_;
  if (!status.ok()) {
    status = absl::Status(
        status.code(),
        absl::StrCat("the run's end is not saved: ", status.message()));
  }
  return Agree(status, session_.mesh().world());
}

void Run::Validate(int64_t step) {
  if (!data_.valid.has_value()) return;
  const Span span(SpanKind::kPhase, "validate");
  const auto start = std::chrono::steady_clock::now();
  const TokenBatch batch = BatchOf(*data_.valid);
  const std::vector<double> losses =
      TokenLosses(batch, gpt_, adapter_, session_);
  if (!session_.leads()) return;
  const ValidMetrics metrics = {
      .step = step,
      .valid_loss = std::accumulate(losses.begin(), losses.end(), 0.0) /
                    static_cast<double>(batch.num_targets),
      .valid_tokens = batch.num_targets,
      .valid_records = std::ssize(data_.valid->records),
      .valid_seconds = std::chrono::duration<double>(
                           std::chrono::steady_clock::now() - start)
                           .count()};
  progress_->Report(metrics);
  Record(metrics);
}

absl::Status CheckPassGraphs(const RunConfig& config, const Session& session) {
  if (config.pass_graphs == 0) return absl::OkStatus();
  const Mesh& mesh = session.mesh();
  const absl::Status records = CheckRecords(*session.device(), mesh.tensor());
  return Agree(records.ok()
                   ? absl::OkStatus()
                   : absl::InvalidArgumentError(absl::StrCat(
                         "pass_graphs is ", config.pass_graphs, ", but ",
                         records.message(), "; set pass_graphs to 0")),
               mesh.world());
}

// All ranks have a device of the same kind.
absl::Status CheckCudaAttention(const RunConfig& config, const Device& device) {
  if (config.cuda_attention == AttentionKernels::kCudnn ||
      device.backend().memory == Memory::kDevice) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cuda_attention is ", NameOf(config.cuda_attention),
                   ", but no rank has a GPU and CPUs have one way of "
                   "attention; set cuda_attention to CUDNN"));
}

}  // namespace

absl::Status RunTraining(const LoadedConfig& loaded, const Session& session) {
  const TimeLimit::Clock::time_point start = TimeLimit::Clock::now();
  const RunConfig& config = loaded.run;
  Communicator& world = session.mesh().world();
  LORICA_RETURN_IF_ERROR(CheckPassGraphs(config, session));
  LORICA_RETURN_IF_ERROR(CheckCudaAttention(config, *session.device()));
  LORICA_ASSIGN_OR_RETURN(
      const BaseModel base,
      Of("model.path", OpenBaseModel(config.model.path, session)));
  absl::StatusOr<AdapterSource> source = OpenAdapterSource(config.adapter);
  LORICA_RETURN_IF_ERROR(Agree(source.status(), world));
  LORICA_ASSIGN_OR_RETURN(
      const std::unique_ptr<Adapter> adapter,
      source->peft.has_value()
          ? LoadAdapter(base, *source->peft, config.adapter.init_from,
                        config.model.dtype, session)
          : MakeAdapter(base, source->lora, config.model.dtype, session));
  if (!source->peft.has_value()) {
    adapter->Initialize(static_cast<uint64_t>(config.train.seed));
  }
  absl::StatusOr<RunData> data = LoadData(config);
  LORICA_RETURN_IF_ERROR(Agree(data.status(), world));
  LORICA_RETURN_IF_ERROR(
      Agree(CheckPositions(config, *data, base.source.config().max_positions),
            world));
  LORICA_ASSIGN_OR_RETURN(
      std::optional<ResumedRun> resumed,
      Resume(config.checkpoint,
             {.config = loaded.fields, .data_checksum = data->train_checksum},
             config.train.steps, adapter.get(), world));
  const std::unique_ptr<Gpt> gpt =
      LoadGpt(base, config.model.dtype,
              config.mesh.tensor_sequence ? kSequenceParallel : kTensorParallel,
              session, adapter.get());
  LORICA_ASSIGN_OR_RETURN(
      const PlannedPasses passes,
      PlanPasses(config, data->train, session, *gpt, *adapter));
  Run run(loaded, session, *gpt, adapter.get(), source->lora, *std::move(data),
          std::move(resumed), passes, start);
  LORICA_RETURN_IF_ERROR(run.Open());
  return run.Train();
}

}  // namespace lorica
