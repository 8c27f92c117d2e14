#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands/commands.h"
#include "launch/commands/inference.h"
#include "launch/config/field_error.h"
#include "launch/train/trainer.h"
#include "model/text/dataset.h"
#include "model/text/packing.h"
#include "parallel/agreement.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kDetails[] =
    "Measures the loss of a model, with or without an adapter, on a JSONL "
    "file\n"
    "of records as `train` reads them, and prints the mean over all tokens "
    "that\n"
    "count. --out receives a line a record, in the file's order, losses in\n"
    "nats: {\"index\": 0, \"tokens\": 57, \"loss_sum\": 131.72}. Under mpirun "
    "the\n"
    "ranks hold a slice of the model each.\n";

struct RecordLoss {
  int64_t tokens = 0;  // That have a loss.
  double loss_sum = 0;
};

std::vector<RecordLoss> LossesOfRecords(const TokenBatch& batch,
                                        const std::vector<double>& losses) {
  std::vector<RecordLoss> records;
  for (const Segment& segment : batch.segments) {
    RecordLoss record;
    for (int64_t i = 0; i < segment.num_queries; ++i) {
      const auto token = static_cast<size_t>(segment.first_query + i);
      if (batch.targets[token] < 0) continue;
      ++record.tokens;
      record.loss_sum += losses[token];
    }
    records.push_back(record);
  }
  return records;
}

// The file of --out, if this rank is to write one.
absl::StatusOr<std::optional<AtomicFile>> CreateOut(const std::string& path,
                                                    const Session& session) {
  std::optional<AtomicFile> file;
  absl::Status status;
  if (!path.empty() && session.leads()) {
    absl::StatusOr<AtomicFile> created = Of("--out", AtomicFile::Create(path));
    status = created.status();
    if (created.ok()) file.emplace(*std::move(created));
  }
  LORICA_RETURN_IF_ERROR(Agree(status, session.mesh().world()));
  return file;
}

absl::Status WriteOut(const std::vector<RecordLoss>& records,
                      AtomicFile* file) {
  for (size_t i = 0; i < records.size(); ++i) {
    const nlohmann::ordered_json line = {{"index", i},
                                         {"tokens", records[i].tokens},
                                         {"loss_sum", records[i].loss_sum}};
    LORICA_RETURN_IF_ERROR(file->Append(absl::StrCat(line.dump(), "\n")));
  }
  return file->Commit();
}

void PrintTotals(const std::vector<RecordLoss>& records, double seconds) {
  RecordLoss total;
  for (const RecordLoss& record : records) {
    total.tokens += record.tokens;
    total.loss_sum += record.loss_sum;
  }
  const double loss = total.loss_sum / static_cast<double>(total.tokens);
  absl::PrintF("%d records, %d tokens: loss %.6f, perplexity %.4f  (%.1f s)\n",
               records.size(), total.tokens, loss, std::exp(loss), seconds);
}

absl::Status RunEval(const Arguments& arguments, const MpiEnvironment& mpi) {
  LORICA_ASSIGN_OR_RETURN(const Inference model, OpenInference(arguments, mpi));
  const Session& session = *model.session;
  LORICA_ASSIGN_OR_RETURN(
      const Dataset data,
      AgreeOn(Of("--data",
                 ReadDataset(
                     arguments.Text("data"), model.tokenizer,
                     {.max_tokens = model.base.source.config().max_positions,
                      .long_records = LongRecords::kRefuse})),
              session.mesh().world()));
  LORICA_ASSIGN_OR_RETURN(std::optional<AtomicFile> out,
                          CreateOut(arguments.Text("out"), session));

  const std::unique_ptr<Gpt> gpt = LoadGpt(
      model.base, model.dtype, kTensorParallel, session, model.adapter.get());
  const auto start = std::chrono::steady_clock::now();
  const TokenBatch batch = BatchOf(data);
  const std::vector<RecordLoss> records = LossesOfRecords(
      batch, TokenLosses(batch, *gpt, model.adapter.get(), session));
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  LORICA_RETURN_IF_ERROR(
      Agree(out.has_value() ? WriteOut(records, &*out) : absl::OkStatus(),
            session.mesh().world()));
  if (session.leads()) PrintTotals(records, seconds.count());
  return absl::OkStatus();
}

}  // namespace

Command EvalCommand() {
  std::vector<Flag> flags = InferenceFlags();
  flags.push_back({.name = "data",
                   .value_name = "FILE.jsonl",
                   .presence = Presence::kRequired,
                   .help = "the records"});
  flags.push_back({.name = "out",
                   .value_name = "FILE.jsonl",
                   .help = "where each record's loss goes"});
  return {.name = "eval",
          .summary = "measures the loss on a file of records",
          .details = kDetails,
          .operand = {},
          .flags = flags,
          .run = RunEval};
}

}  // namespace lorica
