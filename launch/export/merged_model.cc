#include "launch/export/merged_model.h"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "launch/config/field_error.h"
#include "launch/export/merge_report.h"
#include "launch/export/probe.h"
#include "launch/session.h"
#include "model/export/merged_weights.h"
#include "model/export/model_files.h"
#include "parallel/agreement.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

const PeftAdapter* OrNull(const PeftAdapter& adapter) {
  return adapter.modules.empty() ? nullptr : &adapter;
}

// That the result can be compared with what is expected, weight by weight.
absl::Status CheckSameShapes(const WeightSource& model,
                             const WeightSource& expected) {
  for (const auto& [name, weight] : model.weights()) {
    const auto found = expected.weights().find(name);
    if (found == expected.weights().end() ||
        found->second.tensor.shape != weight.tensor.shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          expected.path(), ": is not a model of the shape of ", model.path(),
          ": tensor ", name, " ", ShapeToString(weight.tensor.shape),
          found == expected.weights().end()
              ? " is missing"
              : absl::StrCat(" is ",
                             ShapeToString(found->second.tensor.shape))));
    }
  }
  return absl::OkStatus();
}

// All that is open before the first byte is written.
struct OpenJob {
  WeightSource model;
  std::optional<WeightSource> expected;
};

absl::StatusOr<OpenJob> Open(const MergeJob& job) {
  OpenJob open;
  LORICA_ASSIGN_OR_RETURN(open.model,
                          Of("--model", WeightSource::Open(job.model)));
  LORICA_RETURN_IF_ERROR(
      MergedWeights::Create(&open.model, OrNull(job.adapter), job.directory)
          .status());
  const int64_t positions = open.model.config().max_positions;
  if (job.probe_tokens < 0 || job.probe_tokens > positions) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--probe_tokens is ", job.probe_tokens, "; it must be 0 to ", positions,
        ", the positions of the model"));
  }
  if (!job.expected_model.empty()) {
    LORICA_ASSIGN_OR_RETURN(
        open.expected,
        Of("--original", WeightSource::Open(job.expected_model)));
    LORICA_RETURN_IF_ERROR(CheckSameShapes(open.model, *open.expected));
    LORICA_RETURN_IF_ERROR(MergedWeights::Create(&*open.expected,
                                                 OrNull(job.expected_adapter),
                                                 job.directory)
                               .status());
  }
  return open;
}

absl::StatusOr<MergedFiles> Write(const MergeJob& job, const OpenJob& open,
                                  const std::string& directory) {
  LORICA_ASSIGN_OR_RETURN(
      const MergedWeights weights,
      MergedWeights::Create(&open.model, OrNull(job.adapter), job.directory));
  std::optional<MergedWeights> expected;
  if (open.expected.has_value()) {
    LORICA_ASSIGN_OR_RETURN(
        expected,
        MergedWeights::Create(&*open.expected, OrNull(job.expected_adapter),
                              job.directory));
  }
  LORICA_RETURN_IF_ERROR(
      WriteModelFiles(job.model, open.model.config(), job.type, directory));
  return WriteMergedWeights(directory, weights, job.type,
                            expected.has_value() ? &*expected : nullptr);
}

// Probes are computed in sessions of their own: while rank 0 writes, no rank
// may wait in a watched collective.
absl::StatusOr<std::unique_ptr<Session>> OpenProbeSession(
    const MpiEnvironment& mpi, int ranks) {
  return Session::Open(mpi, {.data = 1, .tensor = ranks},
                       {.kind = DeviceKind::kAuto}, /*threads=*/0);
}

// The logits before anything is written: of the model with the adapter beside
// it, and of the expected model, if there is one. Empty without a probe.
struct ProbesBefore {
  std::vector<float> beside;
  std::vector<float> expected;
};

absl::StatusOr<ProbesBefore> ProbeBefore(const MergeJob& job,
                                         const MpiEnvironment& mpi, int ranks) {
  ProbesBefore probes;
  if (job.probe_tokens == 0) return probes;
  LORICA_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                          OpenProbeSession(mpi, ranks));
  LORICA_ASSIGN_OR_RETURN(
      probes.beside, ProbeLogits(job.model, OrNull(job.adapter), job.directory,
                                 job.probe_tokens, *session));
  if (!job.expected_model.empty()) {
    LORICA_ASSIGN_OR_RETURN(
        probes.expected,
        ProbeLogits(job.expected_model, OrNull(job.expected_adapter),
                    job.directory, job.probe_tokens, *session));
  }
  return probes;
}

// Compares the logits of what was written.
absl::Status ProbeAfter(const MergeJob& job, const std::string& written,
                        const ProbesBefore& before, const MpiEnvironment& mpi,
                        int ranks, std::ostream& report) {
  if (job.probe_tokens == 0) return absl::OkStatus();
  LORICA_ASSIGN_OR_RETURN(const std::unique_ptr<Session> session,
                          OpenProbeSession(mpi, ranks));
  LORICA_ASSIGN_OR_RETURN(
      const std::vector<float> after,
      ProbeLogits(written, nullptr, "", job.probe_tokens, *session));
  if (!session->leads()) return absl::OkStatus();
  PrintLogits(Compare(before.beside, after, job.probe_tokens),
              "the adapter beside the model", report);
  if (!before.expected.empty()) {
    PrintLogits(Compare(before.expected, after, job.probe_tokens),
                "the original", report);
  }
  return absl::OkStatus();
}

// Rank 0's part between the probes.
absl::Status WriteAndReport(const MergeJob& job, const OpenJob& open,
                            const std::string& directory,
                            std::ostream& report) {
  const auto start = std::chrono::steady_clock::now();
  LORICA_ASSIGN_OR_RETURN(const MergedFiles files, Write(job, open, directory));
  const std::chrono::duration<double> seconds =
      std::chrono::steady_clock::now() - start;
  PrintMergedFiles(files, job.type, seconds.count(), report);
  return absl::OkStatus();
}

}  // namespace

absl::Status ExportMerged(const MergeJob& job, const MpiEnvironment& mpi,
                          std::ostream& report) {
  const std::unique_ptr<Communicator> world = mpi.World(HostPath::kMessages);
  const bool leads = world->rank() == 0;
  LORICA_ASSIGN_OR_RETURN(const OpenJob open, AgreeOn(Open(job), *world));
  LORICA_ASSIGN_OR_RETURN(const ProbesBefore before,
                          ProbeBefore(job, mpi, world->size()));
  std::optional<AtomicDirectory> target;
  absl::Status status;
  if (leads) {
    absl::StatusOr<AtomicDirectory> created =
        Of("--out", AtomicDirectory::Create(job.out));
    status = created.status();
    if (created.ok()) target.emplace(*std::move(created));
  }
  LORICA_RETURN_IF_ERROR(Agree(status, *world));
  const std::string written = world->AllGatherBytes(
      leads ? target->partial() : "", Purpose::kControl)[0];
  LORICA_RETURN_IF_ERROR(Agree(
      leads ? WriteAndReport(job, open, written, report) : absl::OkStatus(),
      *world));
  LORICA_RETURN_IF_ERROR(
      ProbeAfter(job, written, before, mpi, world->size(), report));
  return Agree(leads ? target->Commit() : absl::OkStatus(), *world);
}

}  // namespace lorica
