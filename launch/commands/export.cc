#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands/commands.h"
#include "launch/commands/saved_adapter.h"
#include "launch/config/field_error.h"
#include "launch/export/merged_model.h"
#include "launch/state/checkpoint.h"
#include "launch/state/gather_state.h"
#include "model/export/adapter_algebra.h"
#include "model/export/gguf_lora.h"
#include "model/export/merged_weights.h"
#include "model/peft_adapter.h"
#include "parallel/agreement.h"
#include "parallel/mpi_communicator.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kDetails[] =
    "Writes a trained adapter in the form that other programs open:\n"
    "\n"
    "  peft    a PEFT directory\n"
    "  gguf    a LoRA file for llama.cpp\n"
    "  merged  the whole model with the adapter folded in, W + s B A, as a\n"
    "          Hugging Face directory. Prints how far rounding moved each\n"
    "          tensor, and the logits of a probe of random tokens.\n"
    "  state   a save whose shards are one file, which resumes as it does;\n"
    "          --shards names the same save on the disks of other hosts\n"
    "\n"
    "--checkpoint is a PEFT directory, a save, or a run's directory, whose\n"
    "newest save is taken. The base model is the one that it names unless\n"
    "--model says where it is. With --subtract the adapter is taken out of\n"
    "--model, a merged one, W - s B A; --add puts another one in its place,\n"
    "and --original names the model before merging, to measure what is left\n"
    "of the difference. --out must not exist; it appears whole.\n";

StoredType TypeOf(const std::string& word) {
  if (word == "bf16") return StoredType::kBF16;
  return word == "f16" ? StoredType::kF16 : StoredType::kF32;
}

// What the flags name, read and checked on every rank alike.
// Of all formats but state.
struct ExportJob {
  std::string directory;  // The PEFT directory.
  PeftAdapter adapter;
  std::optional<PeftAdapter> added;
  std::string model;  // Empty where the format needs none.
  StoredType type = StoredType::kF32;
};

absl::Status Misfit(absl::string_view flag, absl::string_view needs) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " goes with ", needs));
}

absl::Status CheckFlags(const Arguments& arguments) {
  const bool merged = arguments.Text("format") == "merged";
  for (const char* flag : {"subtract", "add", "original", "probe_tokens"}) {
    if (arguments.Has(flag) && !merged) return Misfit(flag, "--format merged");
  }
  const bool state = arguments.Text("format") == "state";
  for (const char* flag : {"dtype", "model"}) {
    if (arguments.Has(flag) && state) return Misfit(flag, "the other formats");
  }
  if (arguments.Has("shards") && !state) {
    return Misfit("shards", "--format state");
  }
  if (arguments.Has("original") && !arguments.Switch("subtract")) {
    return Misfit("original", "--subtract");
  }
  if (arguments.Switch("subtract") && !arguments.Has("model")) {
    return absl::InvalidArgumentError(
        "--subtract needs --model, the merged model to take the adapter out "
        "of");
  }
  const std::string& out = arguments.Text("out");
  std::error_code error;
  if (std::filesystem::exists(out, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--out ", out, " exists; remove it or name another path"));
  }
  return absl::OkStatus();
}

absl::Status ExportState(const Arguments& arguments) {
  std::vector<std::string> saves = {ResolveSave(arguments.Text("checkpoint"))};
  for (const std::string& shards : arguments.Texts("shards")) {
    saves.push_back(ResolveSave(shards));
  }
  const std::string& out = arguments.Text("out");
  LORICA_RETURN_IF_ERROR(
      Of("--checkpoint", GatherState(std::move(saves), out)));
  absl::PrintF("%s: a save in one shard\n", out);
  return absl::OkStatus();
}

absl::StatusOr<PeftAdapter> ReadAdapter(const std::string& path,
                                        std::string* directory) {
  LORICA_ASSIGN_OR_RETURN(*directory, FindAdapterDirectory(path));
  return ReadPeftAdapter(*directory);
}

absl::StatusOr<ExportJob> OpenJob(const Arguments& arguments) {
  LORICA_RETURN_IF_ERROR(CheckFlags(arguments));
  ExportJob job{.type = TypeOf(arguments.Text("dtype"))};
  LORICA_ASSIGN_OR_RETURN(
      job.adapter, Of("--checkpoint", ReadAdapter(arguments.Text("checkpoint"),
                                                  &job.directory)));
  if (arguments.Has("add")) {
    std::string directory;
    LORICA_ASSIGN_OR_RETURN(
        job.added, Of("--add", ReadAdapter(arguments.Text("add"), &directory)));
  }
  if (arguments.Has("model")) {
    job.model = arguments.Text("model");
  } else if (arguments.Text("format") != "peft") {
    LORICA_ASSIGN_OR_RETURN(
        job.model, FindBaseModel(job.directory, job.adapter.base_model));
  }
  return job;
}

absl::Status ExportPeft(ExportJob job, const std::string& out) {
  if (!job.model.empty()) job.adapter.base_model = job.model;
  LORICA_RETURN_IF_ERROR(
      Of("--out", WritePeftAdapter(out, job.adapter, job.type)));
  absl::PrintF("%s: a PEFT adapter of %d modules, %s\n", out,
               job.adapter.modules.size(), NameOf(job.type));
  return absl::OkStatus();
}

absl::Status ExportGguf(const ExportJob& job, const std::string& out) {
  LORICA_ASSIGN_OR_RETURN(const WeightSource source,
                          Of("--model", WeightSource::Open(job.model)));
  LORICA_RETURN_IF_ERROR(
      MergedWeights::Create(&source, &job.adapter, job.directory).status());
  LORICA_RETURN_IF_ERROR(
      Of("--out", WriteGgufLora(out, job.adapter, source.config(), job.type)));
  absl::PrintF("%s: a LoRA of %d modules for llama.cpp, %s\n", out,
               job.adapter.modules.size(), NameOf(job.type));
  return absl::OkStatus();
}

// W + s B A, or W - s B A + s' B' A'.
absl::Status RunMerge(const Arguments& arguments, ExportJob job,
                      const MpiEnvironment& mpi) {
  MergeJob merge{.model = job.model,
                 .directory = job.directory,
                 .expected_model = arguments.Text("original"),
                 .out = arguments.Text("out"),
                 .type = job.type,
                 .probe_tokens = arguments.Whole("probe_tokens")};
  merge.adapter = arguments.Switch("subtract") ? Negated(std::move(job.adapter))
                                               : std::move(job.adapter);
  if (job.added.has_value()) {
    merge.adapter = Sum(merge.adapter, *job.added);
    merge.expected_adapter = *std::move(job.added);
  }
  return ExportMerged(merge, mpi, std::cout);
}

absl::Status RunExport(const Arguments& arguments, const MpiEnvironment& mpi) {
  const std::unique_ptr<Communicator> world = mpi.World(HostPath::kMessages);
  const std::string& format = arguments.Text("format");
  if (format == "state") {
    LORICA_RETURN_IF_ERROR(Agree(CheckFlags(arguments), *world));
    return Agree(world->rank() == 0 ? ExportState(arguments) : absl::OkStatus(),
                 *world);
  }
  LORICA_ASSIGN_OR_RETURN(ExportJob job, AgreeOn(OpenJob(arguments), *world));
  if (format == "merged") return RunMerge(arguments, std::move(job), mpi);
  absl::Status status;
  if (world->rank() == 0) {
    const std::string& out = arguments.Text("out");
    status = format == "peft" ? ExportPeft(std::move(job), out)
                              : ExportGguf(job, out);
  }
  return Agree(status, *world);
}

}  // namespace

Command ExportCommand() {
  return {
      .name = "export",
      .summary = "writes an adapter for PEFT or llama.cpp, or a merged model",
      .details = kDetails,
      .operand = {},
      .flags = {{.name = "checkpoint",
                 .value_name = "DIR",
                 .presence = Presence::kRequired,
                 .help = "the adapter: a PEFT directory, a save or a run"},
                {.name = "format",
                 .value_name = "peft|gguf|merged|state",
                 .kind = FlagKind::kChoice,
                 .presence = Presence::kRequired,
                 .help = "what to write"},
                {.name = "out",
                 .value_name = "PATH",
                 .presence = Presence::kRequired,
                 .help = "a file for gguf, else a directory"},
                {.name = "dtype",
                 .value_name = "f32|bf16|f16",
                 .kind = FlagKind::kChoice,
                 .default_value = "f32",
                 .help = "what elements are rounded to"},
                {.name = "model",
                 .value_name = "PATH",
                 .help = "the base model, or the one to subtract from"},
                {.name = "subtract",
                 .kind = FlagKind::kSwitch,
                 .help = "takes the adapter out of a merged model"},
                {.name = "add",
                 .value_name = "DIR",
                 .help = "another adapter to merge as well"},
                {.name = "original",
                 .value_name = "PATH",
                 .help = "the model before merging, to compare with"},
                {.name = "probe_tokens",
                 .value_name = "N",
                 .kind = FlagKind::kWhole,
                 .default_value = "32",
                 .help = "length of the probe; 0 loads no model"},
                {.name = "shards",
                 .value_name = "DIR",
                 .presence = Presence::kRepeated,
                 .help = "the same save on another host's disk"}},
      .run = RunExport};
}

}  // namespace lorica
