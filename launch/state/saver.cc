#include "launch/state/saver.h"

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "launch/state/shared_directory.h"
#include "parallel/agreement.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/checksum.h"
#include "runtime/files/mapped_file.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

absl::StatusOr<FileBeside> Describe(const std::string& directory,
                                    const std::string& name) {
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(directory + "/" + name));
  return FileBeside{.file = name,
                    .bytes = static_cast<int64_t>(file->bytes().size()),
                    .checksum = Checksum(file->bytes())};
}

absl::StatusOr<std::vector<FileBeside>> WritePeft(const std::string& directory,
                                                  const PeftAdapter& peft) {
  LORICA_RETURN_IF_ERROR(WritePeftFiles(directory, peft));
  std::vector<FileBeside> files;
  for (const char* name :
       {"adapter_model.safetensors", "adapter_config.json"}) {
    LORICA_ASSIGN_OR_RETURN(FileBeside file, Describe(directory, name));
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace

// A save in progress. Each member is used by the rank's own thread or by that
// of the stage, never by both at a time.
struct Saver::Job {
  SaveContent content;
  std::string partial;                    // Where this rank writes.
  std::optional<AtomicDirectory> target;  // Where it leads the directory.
  SaveReport report;
  Clock::time_point start;
  // Last, so that its thread has ended when the others go.
  std::optional<StagedWork> work;

  // Says what the shard holds.
  absl::StatusOr<std::string> Write(const std::string& shard_name) {
    LORICA_ASSIGN_OR_RETURN(
        Shard shard,
        WriteShard(content.snapshot, absl::StrCat(partial, "/", kStateFolder),
                   shard_name));
    content.snapshot = {};
    if (content.peft.has_value()) {
      LORICA_ASSIGN_OR_RETURN(content.manifest.files,
                              WritePeft(partial, *content.peft));
    }
    return ToJson(shard).dump();
  }

  // Says how many bytes there are beside the shards.
  absl::StatusOr<std::string> PutInPlace(
      const std::vector<std::string>& shards) {
    report.bytes = 0;
    for (const std::string& text : shards) {
      LORICA_ASSIGN_OR_RETURN(Shard shard, ShardFromText(text));
      report.bytes += shard.bytes;
      if (shard.pieces.empty()) continue;
      content.manifest.shards.push_back(std::move(shard));
    }
    if (!target.has_value()) return "0";
    const std::string text = ToText(content.manifest);
    LORICA_RETURN_IF_ERROR(WriteFileAtomically(ManifestPath(partial), text));
    LORICA_RETURN_IF_ERROR(target->Commit());
    auto bytes = static_cast<int64_t>(text.size());
    for (const FileBeside& file : content.manifest.files) bytes += file.bytes;
    return absl::StrCat(bytes);
  }

  absl::StatusOr<std::string> Publish(
      const std::vector<std::string>& bytes_beside,
      const std::optional<CheckpointStore>& store) {
    for (const std::string& text : bytes_beside) {
      int64_t bytes = 0;
      if (absl::SimpleAtoi(text, &bytes)) report.bytes += bytes;
    }
    if (store.has_value()) {
      LORICA_RETURN_IF_ERROR(store->Publish(report.step));
    }
    report.seconds = SecondsSince(start);
    return "";
  }
};

absl::StatusOr<std::unique_ptr<Saver>> Saver::Open(
    const CheckpointOptions& options, int64_t save_bytes, Communicator* ranks) {
  auto saver = std::unique_ptr<Saver>(new Saver(options, ranks));
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  absl::Status made;
  if (error) {
    made = absl::FailedPreconditionError(
        absl::StrCat("checkpoint.directory ", options.directory,
                     " cannot be made: ", error.message()));
  }
  LORICA_RETURN_IF_ERROR(Agree(made, *ranks));
  LORICA_ASSIGN_OR_RETURN(const int leader,
                          LeaderOfDirectory(options.directory, *ranks));
  absl::Status opened;
  if (leader == ranks->rank()) {
    auto store = CheckpointStore::Open(options, save_bytes);
    opened = store.status();
    if (store.ok()) saver->store_ = *std::move(store);
  }
  LORICA_RETURN_IF_ERROR(Agree(opened, *ranks));
  return saver;
}

Saver::Saver(CheckpointOptions options, Communicator* ranks)
    : options_(std::move(options)), ranks_(ranks) {}

Saver::~Saver() = default;

std::optional<SaveReport> Saver::Start(SaveContent content,
                                       Clock::time_point since) {
  const Clock::time_point asked = Clock::now();
  std::optional<SaveReport> before = Finish();
  since += Clock::now() - asked;  // That was the other save's time.
  const int64_t step = content.manifest.position.step;
  const std::string path =
      absl::StrCat(options_.directory, "/", StepName(step));
  job_ = std::make_unique<Job>();
  job_->content = std::move(content);
  job_->partial = path + ".partial";
  job_->report.step = step;
  job_->start = since;
  absl::Status made;
  if (store_.has_value()) {
    auto target = AtomicDirectory::Create(path);
    made = target.status();
    if (target.ok()) {
      job_->target.emplace(*std::move(target));
      std::error_code error;
      std::filesystem::create_directory(
          absl::StrCat(job_->partial, "/", kStateFolder), error);
      if (error) {
        made = absl::FailedPreconditionError(absl::StrCat(
            "cannot create ", job_->partial, "/state: ", error.message()));
      }
    }
  }
  Job* job = job_.get();
  std::vector<Stage> stages = {
      [job, made, name = ShardName(ranks_->rank(), ranks_->size())](
          const auto&) -> absl::StatusOr<std::string> {
        LORICA_RETURN_IF_ERROR(made);
        return job->Write(name);
      },
      [job](const auto& shards) { return job->PutInPlace(shards); },
      [job, this](const auto& bytes) { return job->Publish(bytes, store_); }};
  // Nobody writes before the directories are there.
  ranks_->Barrier();
  job_->work.emplace(std::move(stages), ranks_);
  job_->report.blocked_seconds = SecondsSince(since);
  return before;
}

std::optional<SaveReport> Saver::Poll() { return Advance(Patience::kLook); }

std::optional<SaveReport> Saver::Finish() { return Advance(Patience::kWait); }

std::optional<SaveReport> Saver::Advance(Patience patience) {
  if (job_ == nullptr) return std::nullopt;
  const Clock::time_point start = Clock::now();
  const std::optional<absl::Status> outcome = job_->work->Advance(patience);
  job_->report.blocked_seconds += SecondsSince(start);
  if (!outcome.has_value()) return std::nullopt;
  SaveReport report = std::move(job_->report);
  report.status = *outcome;
  job_.reset();
  return report;
}

}  // namespace lorica
