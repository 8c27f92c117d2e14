#include "launch/train_run.h"

#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/base_model.h"
#include "launch/checkpoint.h"
#include "launch/field_error.h"
#include "launch/metrics.h"
#include "launch/progress.h"
#include "launch/tensorboard.h"
#include "launch/trainer.h"
#include "model/text/dataset.h"
#include "model/text/load_tokenizer.h"
#include "model/text/packing.h"
#include "parallel/agreement.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// The adapter's start: a PEFT directory, or none and its configuration.
struct AdapterSource {
  LoraConfig lora;
  std::optional<PeftAdapter> peft;
};

absl::Status Differs(const char* field, const std::string& here,
                     const std::string& there, const std::string& directory) {
  return absl::InvalidArgumentError(
      absl::StrCat("adapter.", field, " is ", here, " and that of ", directory,
                   ", which adapter.init_from names, is ", there,
                   "; leave one of them out"));
}

// What the config says beside init_from must be what the directory says.
absl::Status CheckAgainst(const AdapterOptions& options,
                          const LoraConfig& lora) {
  const std::string& from = options.init_from;
  if (options.rank.has_value() && *options.rank != lora.rank) {
    return Differs("rank", absl::StrCat(*options.rank), absl::StrCat(lora.rank),
                   from);
  }
  if (options.alpha.has_value() && *options.alpha != lora.alpha) {
    return Differs("alpha", absl::StrCat(*options.alpha),
                   absl::StrCat(lora.alpha), from);
  }
  using Names = std::set<std::string>;
  const Names here(options.targets.begin(), options.targets.end());
  const Names there(lora.targets.begin(), lora.targets.end());
  if (!here.empty() && here != there) {
    return Differs("target", absl::StrJoin(here, " "),
                   absl::StrJoin(there, " "), from);
  }
  const bool rslora = lora.scaling == LoraScaling::kRankStabilized;
  if (options.rslora.has_value() && *options.rslora != rslora) {
    return Differs("rslora", *options.rslora ? "true" : "false",
                   rslora ? "true" : "false", from);
  }
  return absl::OkStatus();
}

absl::StatusOr<AdapterSource> OpenAdapterSource(const AdapterOptions& options) {
  AdapterSource source;
  if (!options.init_from.empty()) {
    LORICA_ASSIGN_OR_RETURN(
        source.peft,
        Of("adapter.init_from", ReadPeftAdapter(options.init_from)));
    LORICA_RETURN_IF_ERROR(CheckAgainst(options, source.peft->lora));
    source.lora = source.peft->lora;
  } else {
    source.lora.rank = options.rank.value();
    source.lora.alpha = options.alpha.value();
    source.lora.scaling = options.rslora.value() ? LoraScaling::kRankStabilized
                                                 : LoraScaling::kStandard;
    source.lora.targets = options.targets;
  }
  source.lora.dropout = static_cast<float>(options.dropout);
  return source;
}

struct RunData {
  Dataset train;
  DataOrder order;
  std::optional<Dataset> valid;
};

absl::StatusOr<RunData> LoadData(const RunConfig& config) {
  LORICA_ASSIGN_OR_RETURN(const Tokenizer tokenizer,
                          Of("model.path", LoadTokenizer(config.model.path)));
  const DatasetOptions options = {
      .end_mark = config.data.append_eos ? EndMark::kAppendEos : EndMark::kOmit,
      .max_tokens = config.data.sequence_length,
      .long_records = config.data.overlong};
  LORICA_ASSIGN_OR_RETURN(
      Dataset train,
      Of("data.train", ReadDataset(config.data.train, tokenizer, options)));
  LORICA_ASSIGN_OR_RETURN(
      DataOrder order,
      Of(absl::StrCat("data.train ", config.data.train),
         MakeDataOrder(
             train, {.row_tokens = config.data.sequence_length,
                     .packing = config.data.pack ? Packing::kSeveralPerRow
                                                 : Packing::kOnePerRow,
                     .shuffling = config.data.shuffle ? Shuffling::kEachEpoch
                                                      : Shuffling::kFileOrder,
                     .seed = static_cast<uint64_t>(config.train.seed)})));
  RunData data = {.train = std::move(train), .order = std::move(order)};
  if (!config.data.valid.empty()) {
    LORICA_ASSIGN_OR_RETURN(
        data.valid,
        Of("data.valid", ReadDataset(config.data.valid, tokenizer, options)));
    if (data.valid->num_without_target == std::ssize(data.valid->records)) {
      return absl::InvalidArgumentError(absl::StrCat(
          config.data.valid, ": no record has a token to predict within ",
          config.data.sequence_length, " tokens (data.sequence_length)"));
    }
  }
  return data;
}

std::string DatasetLine(const std::string& path, const Dataset& data) {
  std::string line = absl::StrCat(path, ": ", data.records.size(), " records");
  if (data.num_cut > 0) {
    absl::StrAppend(&line, ", ", data.num_cut, " cut to the row's length");
  }
  if (data.num_without_target > 0) {
    absl::StrAppend(&line, ", ", data.num_without_target,
                    " without a token to predict");
  }
  return line;
}

// A run once everything is open: what happens around the steps. Rank 0 alone
// has files and a screen.
class Run {
 public:
  Run(const RunConfig& config, const Session& session, const Gpt& gpt,
      Adapter* adapter, const LoraConfig& lora, RunData data)
      : config_(config),
        session_(session),
        gpt_(gpt),
        adapter_(adapter),
        lora_(lora),
        data_(std::move(data)) {}

  absl::Status Open(const std::string& config_text) {
    absl::Status status;
    if (session_.leads()) status = OpenFiles(config_text);
    return Agree(status, session_.mesh().world());
  }

  absl::Status Train();

 private:
  absl::Status OpenFiles(const std::string& config_text);
  void Describe();
  absl::Status OnStep(const StepMetrics& metrics);
  absl::Status Save(int64_t step);
  absl::Status Validate(int64_t step);

  const RunConfig& config_;
  const Session& session_;
  const Gpt& gpt_;
  Adapter* adapter_;
  const LoraConfig& lora_;
  RunData data_;
  std::optional<CheckpointStore> store_;
  std::optional<MetricsWriter> metrics_;
  std::optional<EventWriter> events_;
  std::optional<Progress> progress_;
};

absl::Status Run::OpenFiles(const std::string& config_text) {
  const int64_t save_bytes =
      adapter_->total_parameters() * static_cast<int64_t>(sizeof(float));
  LORICA_ASSIGN_OR_RETURN(
      store_, CheckpointStore::Open(config_.checkpoint.directory,
                                    config_.checkpoint.keep, save_bytes));
  LORICA_RETURN_IF_ERROR(
      WriteFileAtomically(store_->PathOf("run.textproto"), config_text));
  LORICA_ASSIGN_OR_RETURN(
      metrics_,
      Of("report.metrics", MetricsWriter::Create(config_.report.metrics)));
  LORICA_ASSIGN_OR_RETURN(events_,
                          EventWriter::Create(config_.checkpoint.directory));
  progress_.emplace(stdout, ScreenOf(stdout, stderr), config_.train.steps,
                    config_.report.every_steps);
  return absl::OkStatus();
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
  progress_->Say(DatasetLine(config_.data.train, data_.train));
  if (data_.valid.has_value()) {
    progress_->Say(DatasetLine(config_.data.valid, *data_.valid));
  }
}

absl::Status Run::Train() {
  Describe();
  Trainer trainer(
      config_, session_, gpt_, adapter_,
      [&](int64_t first, int64_t count) {
        return MakeBatch(data_.train, first, count, &data_.order);
      },
      [&](int64_t first, int64_t count) {
        return NumTargets(data_.train, first, count, &data_.order);
      });
  return trainer.Run(
      {.on_step = [&](const StepMetrics& metrics) { return OnStep(metrics); },
       .on_save = [&](int64_t step) { return Save(step); },
       .on_validate = [&](int64_t step) { return Validate(step); }});
}

absl::Status Run::OnStep(const StepMetrics& metrics) {
  if (!session_.leads()) return absl::OkStatus();
  progress_->Report(metrics);
  LORICA_RETURN_IF_ERROR(events_->Write(metrics));
  return metrics_->Write(metrics);
}

absl::Status Run::Save(int64_t step) {
  // The first data replica holds the whole adapter in its tensor ranks.
  if (session_.mesh().data().rank() != 0) return absl::OkStatus();
  const PeftAdapter peft =
      GatherAdapter(*adapter_, lora_, config_.model.path, session_);
  if (!session_.leads()) return absl::OkStatus();
  const absl::Status status = store_->Save(step, peft);
  // A full disk must not cost the training so far: the saves there are stay.
  if (!status.ok()) {
    progress_->Say(
        absl::StrCat("step ", step, " is not saved: ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status Run::Validate(int64_t step) {
  if (!data_.valid.has_value()) return absl::OkStatus();
  const auto start = std::chrono::steady_clock::now();
  const TokenBatch batch = BatchOf(*data_.valid);
  const std::vector<double> losses =
      TokenLosses(batch, gpt_, adapter_, session_);
  if (!session_.leads()) return absl::OkStatus();
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
  LORICA_RETURN_IF_ERROR(events_->Write(metrics));
  return metrics_->Write(metrics);
}

}  // namespace

absl::Status RunTraining(const LoadedConfig& loaded, const Session& session) {
  const RunConfig& config = loaded.run;
  Communicator& world = session.mesh().world();
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
  const std::unique_ptr<Gpt> gpt =
      LoadGpt(base, config.model.dtype,
              config.mesh.tensor_sequence ? kSequenceParallel : kTensorParallel,
              session);
  Run run(config, session, *gpt, adapter.get(), source->lora, *std::move(data));
  LORICA_RETURN_IF_ERROR(run.Open(loaded.text));
  return run.Train();
}

}  // namespace lorica
