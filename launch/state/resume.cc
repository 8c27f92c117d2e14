#include "launch/state/resume.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "launch/state/adapter_state.h"
#include "launch/state/checkpoint.h"
#include "parallel/agreement.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Fields that may differ between a save and the run that goes on from it:
// groups end in a dot. data.train is judged by what the file holds.
constexpr absl::string_view kFree[] = {"train.steps",
                                       "train.micro_batch",
                                       "train.valid_every_steps",
                                       "train.on_anomaly",
                                       "train.max_anomalies",
                                       "train.outlier_factor",
                                       "data.train",
                                       "data.valid",
                                       "mesh.",
                                       "checkpoint.",
                                       "report.",
                                       "device",
                                       "threads",
                                       "recompute",
                                       "pass_graphs",
                                       "product_choices",
                                       "cuda_attention"};

bool IsFree(absl::string_view field) {
  return std::any_of(
      std::begin(kFree), std::end(kFree), [&](absl::string_view free) {
        return absl::EndsWith(free, ".") ? absl::StartsWith(field, free)
                                         : field == free;
      });
}

absl::Status Changed(absl::string_view field, absl::string_view now,
                     absl::string_view then, const std::string& save) {
  return absl::InvalidArgumentError(absl::StrCat(
      field, " is ", now, ", and was ", then, " when ", save,
      " was saved; set it back, start anew with checkpoint.resume=NEVER, or "
      "allow the change with checkpoint.allow_change=",
      field));
}

std::string ValueIn(const std::map<std::string, std::string>& config,
                    const std::string& field) {
  const auto found = config.find(field);
  if (found == config.end() || found->second.empty()) return "not given";
  return found->second;
}

// Whether another save may be tried instead.
bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsNotFound(status);
}

// The saves to try, in turn. One without state, as older versions and other
// programs leave them, is none.
std::vector<std::string> Candidates(const CheckpointOptions& options) {
  if (options.resume == "NEVER") return {};
  if (options.resume != "AUTO") return {ResolveSave(options.resume)};
  std::vector<std::string> saves;
  for (const std::string& name : SavesIn(options.directory)) {
    std::string save = absl::StrCat(options.directory, "/", name);
    std::error_code error;
    if (std::filesystem::exists(absl::StrCat(save, "/", kStateFolder), error)) {
      saves.push_back(std::move(save));
    }
  }
  return saves;
}

// What rank 0 sees, on all ranks.
std::vector<std::string> AgreedCandidates(const CheckpointOptions& options,
                                          Communicator& world) {
  const std::string all = world.BroadcastBytes(
      absl::StrJoin(Candidates(options), "\n"), 0, Purpose::kControl);
  return absl::StrSplit(all, '\n', absl::SkipEmpty());
}

absl::StatusOr<Manifest> LoadSave(const std::string& save,
                                  const CheckpointOptions& options,
                                  const RunIdentity& run, int64_t steps,
                                  Adapter* adapter, Communicator& world) {
  absl::StatusOr<SavedState> state = SavedState::Open({save});
  LORICA_RETURN_IF_ERROR(Agree(state.status(), world));
  const Manifest& manifest = state->manifest();
  LORICA_RETURN_IF_ERROR(
      Agree(CheckSameRun(run, manifest, options.allow_change, save), world));
  if (manifest.position.step > steps) {
    return absl::InvalidArgumentError(
        absl::StrCat("train.steps is ", steps, " and ", save,
                     " was saved after step ", manifest.position.step,
                     "; raise it, or start anew with checkpoint.resume=NEVER"));
  }
  LORICA_RETURN_IF_ERROR(Agree(LoadState(&*state, adapter), world));
  return manifest;
}

}  // namespace

absl::Status CheckSameRun(const RunIdentity& run, const Manifest& saved,
                          const std::vector<std::string>& allowed,
                          const std::string& save) {
  const auto is_allowed = [&](absl::string_view field) {
    return std::find(allowed.begin(), allowed.end(), field) != allowed.end();
  };
  std::map<std::string, std::string> fields = saved.config;
  fields.insert(run.config.begin(), run.config.end());
  for (const auto& [field, value] : fields) {
    if (IsFree(field) || is_allowed(field)) continue;
    const std::string now = ValueIn(run.config, field);
    const std::string then = ValueIn(saved.config, field);
    if (now != then) return Changed(field, now, then, save);
  }
  if (run.data_checksum != saved.data_checksum && !is_allowed("data.train")) {
    return Changed(
        "data.train",
        absl::StrCat(ValueIn(run.config, "data.train"), " with other records"),
        ValueIn(saved.config, "data.train"), save);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<ResumedRun>> Resume(
    const CheckpointOptions& options, const RunIdentity& run, int64_t steps,
    Adapter* adapter, Communicator& world) {
  ResumedRun resumed;
  for (const std::string& save : AgreedCandidates(options, world)) {
    absl::StatusOr<Manifest> manifest =
        LoadSave(save, options, run, steps, adapter, world);
    if (manifest.ok()) {
      resumed.save = save;
      resumed.manifest = *std::move(manifest);
      return resumed;
    }
    resumed.passed_over.push_back(std::string(manifest.status().message()));
    if (options.resume == "AUTO" && IsDamage(manifest.status())) continue;
    return absl::Status(
        manifest.status().code(),
        absl::StrCat("checkpoint.resume: ", manifest.status().message()));
  }
  if (resumed.passed_over.empty()) return std::nullopt;
  return absl::DataLossError(
      absl::StrCat("checkpoint.resume: no save in ", options.directory,
                   " is whole; the newest: ", resumed.passed_over.front(),
                   "; start anew with checkpoint.resume=NEVER"));
}

}  // namespace lorica
