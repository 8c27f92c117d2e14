#include "launch/commands/inspect.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "launch/commands/tensor_listing.h"
#include "launch/state/checkpoint.h"
#include "launch/state/saved_state.h"
#include "model/gpt_config.h"
#include "model/peft_adapter.h"
#include "model/weight_source.h"
#include "runtime/files/gguf.h"
#include "runtime/files/mapped_file.h"
#include "runtime/files/safetensors.h"
#include "runtime/files/stored_tensor.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

namespace fs = std::filesystem;

void PrintConfig(const GptConfig& config, std::ostream& out) {
  out << absl::StreamFormat(
      "%s: %d layers, hidden size %d, %d heads of %d (%d for keys and values), "
      "MLP %d, vocabulary %d, %d positions, %s head\n\n",
      config.architecture, config.num_layers, config.hidden_size,
      config.num_heads, config.head_dim, config.num_kv_heads,
      config.intermediate_size, config.vocab_size, config.max_positions,
      config.tied_head ? "tied" : "separate");
}

// The configuration of a model that opens, or why it does not.
void PrintModel(const std::string& path, std::ostream& out) {
  const absl::StatusOr<WeightSource> source = WeightSource::Open(path);
  if (source.ok()) {
    PrintConfig(source->config(), out);
  } else {
    out << "cannot be run: " << source.status().message() << "\n\n";
  }
}

// What --verify adds to a listing.
absl::Status VerifyElements(const std::string& path, const TensorTable& tensors,
                            std::ostream& out) {
  int64_t bytes = 0;
  const std::vector<NotFinite> found = FindNotFinite(tensors, &bytes);
  for (const NotFinite& bad : found) {
    out << absl::StreamFormat("%s: %d elements are infinite or NaN\n",
                              bad.tensor, bad.elements);
  }
  if (!found.empty()) {
    return absl::DataLossError(absl::StrCat(
        path, ": tensor ", found.front().tensor, " has ",
        found.front().elements, " elements that are infinite or NaN"));
  }
  out << absl::StreamFormat("verified: %d bytes read, every element finite\n",
                            bytes);
  return absl::OkStatus();
}

absl::Status Finish(const std::string& path, const TensorTable& tensors,
                    Verification verification, std::ostream& out) {
  PrintTensors(tensors, out);
  return verification == Verification::kNone
             ? absl::OkStatus()
             : VerifyElements(path, tensors, out);
}

absl::Status InspectGguf(const std::string& path, Verification verification,
                         std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(path));
  std::string type;
  const bool adapter =
      file.Read("general.type", &type).ok() && type == "adapter";
  out << path << (adapter ? ": a GGUF adapter\n" : ": a GGUF file\n");
  if (!adapter) PrintModel(path, out);
  for (const auto& [key, value] : file.values()) {
    out << key << " = " << GgufValueToString(value) << "\n";
  }
  out << "\n";
  return Finish(path, file.tensors(), verification, out);
}

absl::Status InspectSafetensors(const std::string& path,
                                Verification verification, std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const Safetensors file, ReadSafetensors(path));
  out << path << ": a safetensors file\n";
  for (const auto& [key, value] : file.metadata) {
    out << key << " = " << value << "\n";
  }
  return Finish(path, file.tensors, verification, out);
}

absl::Status InspectModelDirectory(const std::string& path,
                                   Verification verification,
                                   std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const TensorTable tensors,
                          ReadSafetensorsDirectory(path));
  out << path << ": a Hugging Face model\n";
  PrintModel(path, out);
  return Finish(path, tensors, verification, out);
}

std::string PatternsToString(const std::map<std::string, int64_t>& patterns) {
  return absl::StrJoin(patterns, ", ", absl::PairFormatter(" "));
}

// A field of the config that the state was written under.
std::string ConfigOf(const Manifest& manifest, const char* field) {
  const auto found = manifest.config.find(field);
  return found == manifest.config.end() ? "?" : found->second;
}

void PrintManifest(const Manifest& manifest, std::ostream& out) {
  const TrainingPosition& position = manifest.position;
  out << absl::StreamFormat(
      "state after step %d of %s, seed %s, written by %d data x %d tensor "
      "ranks%s",
      position.step, ConfigOf(manifest, "train.steps"),
      ConfigOf(manifest, "train.seed"), manifest.mesh.data,
      manifest.mesh.tensor,
      manifest.mesh.tensor_sequence ? ", split by tokens too" : "");
  if (position.anomalies > 0) {
    out << absl::StreamFormat("; %d anomalies, %d batches passed over",
                              position.anomalies, position.skipped_batches);
  }
  out << absl::StreamFormat("\n%d tensors of adapter and moments:\n",
                            manifest.tensors.size());
  for (const Shard& shard : manifest.shards) {
    out << absl::StreamFormat("%s/%s: %d pieces, %d bytes\n", kStateFolder,
                              shard.file, shard.pieces.size(), shard.bytes);
  }
}

// What a save holds beside its adapter; nothing where it has no state.
absl::Status InspectState(const std::string& save, Verification verification,
                          std::ostream& out) {
  absl::StatusOr<SavedState> state = SavedState::Open({save});
  if (absl::IsNotFound(state.status())) return absl::OkStatus();
  LORICA_RETURN_IF_ERROR(state.status());
  PrintManifest(state->manifest(), out);
  if (verification == Verification::kNone) return absl::OkStatus();
  LORICA_RETURN_IF_ERROR(state->Verify());
  out << absl::StreamFormat(
      "verified: %d shards and %d files beside them are what the manifest's "
      "checksums say\n",
      state->manifest().shards.size(), state->manifest().files.size());
  return absl::OkStatus();
}

absl::Status InspectAdapter(const std::string& path, Verification verification,
                            std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(
      const Safetensors file,
      ReadSafetensors(absl::StrCat(path, "/adapter_model.safetensors")));
  out << path << ": a PEFT adapter\n";
  const absl::StatusOr<PeftAdapter> adapter = ReadPeftAdapter(path);
  if (adapter.ok()) {
    const LoraConfig& lora = adapter->lora;
    out << absl::StreamFormat(
        "rank %d, alpha %g, dropout %g, scaling alpha / %s\n", lora.rank,
        lora.alpha, lora.dropout,
        lora.scaling == LoraScaling::kStandard ? "rank" : "sqrt(rank)");
    out << "targets " << absl::StrJoin(lora.targets, ", ") << "\n";
    if (!lora.rank_pattern.empty()) {
      out << "ranks apart: " << PatternsToString(lora.rank_pattern) << "\n";
    }
    out << "base model " << adapter->base_model << "\n\n";
  } else {
    out << "cannot be used: " << adapter.status().message() << "\n\n";
  }
  LORICA_RETURN_IF_ERROR(Finish(path, file.tensors, verification, out));
  return InspectState(path, verification, out);
}

}  // namespace

absl::Status Inspect(const std::string& path, Verification verification,
                     std::ostream& out) {
  const auto has = [](const std::string& directory, const char* name) {
    std::error_code error;
    return fs::exists(absl::StrCat(directory, "/", name), error);
  };
  std::error_code error;
  if (fs::is_directory(path, error)) {
    if (has(path, "config.json")) {
      return InspectModelDirectory(path, verification, out);
    }
    const std::string save = ResolveSave(path);
    if (save != path) out << path << ": a run; its newest save:\n";
    if (has(save, "adapter_config.json")) {
      return InspectAdapter(save, verification, out);
    }
    if (fs::exists(ManifestPath(save), error)) {
      out << save << ": a save without its adapter\n";
      return InspectState(save, verification, out);
    }
    return absl::InvalidArgumentError(absl::StrCat(
        save,
        " holds none of config.json, adapter_config.json, latest and state"));
  }
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  return absl::StartsWith(file->bytes(), "GGUF")
             ? InspectGguf(path, verification, out)
             : InspectSafetensors(path, verification, out);
}

}  // namespace lorica
