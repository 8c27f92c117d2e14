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
#include "launch/commands/saved_adapter.h"
#include "launch/commands/tensor_listing.h"
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

// The optimizer's state beside a checkpoint's adapter, a line a file.
absl::Status PrintState(const std::string& directory, std::ostream& out) {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == ".safetensors") {
      paths.push_back(entry->path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    LORICA_ASSIGN_OR_RETURN(const Safetensors file, ReadSafetensors(path));
    PrintTotal(path, file.tensors, out);
  }
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
  return PrintState(absl::StrCat(path, "/state"), out);
}

}  // namespace

absl::Status Inspect(const std::string& path, Verification verification,
                     std::ostream& out) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    if (fs::exists(absl::StrCat(path, "/adapter_config.json"), error)) {
      return InspectAdapter(path, verification, out);
    }
    if (fs::exists(absl::StrCat(path, "/config.json"), error)) {
      return InspectModelDirectory(path, verification, out);
    }
    if (IsRunDirectory(path)) {
      LORICA_ASSIGN_OR_RETURN(const std::string save,
                              FindAdapterDirectory(path));
      out << path << ": a run; its newest save:\n";
      return InspectAdapter(save, verification, out);
    }
    return absl::InvalidArgumentError(absl::StrCat(
        path, " holds neither config.json nor adapter_config.json nor latest"));
  }
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  return absl::StartsWith(file->bytes(), "GGUF")
             ? InspectGguf(path, verification, out)
             : InspectSafetensors(path, verification, out);
}

}  // namespace lorica
