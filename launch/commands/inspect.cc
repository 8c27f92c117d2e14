#include "launch/commands/inspect.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
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

// Takes the number, or else the one character, off the front of `text`. Numbers
// compare by length, then by digits.
absl::string_view TakePiece(absl::string_view* text) {
  size_t length = 0;
  while (length < text->size() &&
         absl::ascii_isdigit(static_cast<unsigned char>((*text)[length]))) {
    ++length;
  }
  length = std::max<size_t>(length, 1);
  const absl::string_view piece = text->substr(0, length);
  text->remove_prefix(length);
  return piece;
}

// "layers.9" before "layers.10".
bool NaturallyBefore(absl::string_view a, absl::string_view b) {
  while (!a.empty() && !b.empty()) {
    const absl::string_view x = TakePiece(&a);
    const absl::string_view y = TakePiece(&b);
    if (x != y) {
      const bool numbers =
          absl::ascii_isdigit(x[0]) && absl::ascii_isdigit(y[0]);
      return numbers && x.size() != y.size() ? x.size() < y.size() : x < y;
    }
  }
  return a.size() < b.size();
}

std::string Megabytes(int64_t bytes) {
  return absl::StrFormat("%.1f MB", static_cast<double>(bytes) / 1e6);
}

struct Total {
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t bytes = 0;

  void Add(const StoredTensor& tensor) {
    ++tensors;
    elements += tensor.elements();
    bytes += static_cast<int64_t>(tensor.bytes.size());
  }
};

void PrintTotal(absl::string_view what, const Total& total, std::ostream& out) {
  out << absl::StreamFormat("%s: %d tensors, %d elements, %s\n", what,
                            total.tensors, total.elements,
                            Megabytes(total.bytes));
}

void PrintTensors(const TensorTable& tensors, std::ostream& out) {
  std::vector<const StoredTensor*> rows;
  size_t name_width = 4;
  size_t shape_width = 5;
  Total all;
  std::map<std::string, Total> by_type;
  for (const auto& [name, tensor] : tensors) {
    rows.push_back(&tensor);
    name_width = std::max(name_width, name.size());
    shape_width = std::max(shape_width, ShapeToString(tensor.shape).size());
    all.Add(tensor);
    by_type[NameOf(tensor.type)].Add(tensor);
  }
  std::sort(rows.begin(), rows.end(),
            [](const StoredTensor* a, const StoredTensor* b) {
              return NaturallyBefore(a->name, b->name);
            });
  const auto line = [&](absl::string_view name, absl::string_view shape,
                        absl::string_view type, absl::string_view bytes) {
    out << absl::StreamFormat(
        "%-*s  %-*s  %-5s %12s\n", static_cast<int>(name_width), name,
        static_cast<int>(shape_width), shape, type, bytes);
  };
  line("name", "shape", "type", "bytes");
  for (const StoredTensor* row : rows) {
    line(row->name, ShapeToString(row->shape), NameOf(row->type),
         absl::StrCat(row->bytes.size()));
  }
  for (const auto& [type, total] : by_type) {
    PrintTotal(type, total, out);
  }
  PrintTotal("total", all, out);
}

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

absl::Status InspectGguf(const std::string& path, std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(path));
  out << path << ": a GGUF file\n";
  PrintModel(path, out);
  for (const auto& [key, value] : file.values()) {
    out << key << " = " << GgufValueToString(value) << "\n";
  }
  out << "\n";
  PrintTensors(file.tensors(), out);
  return absl::OkStatus();
}

absl::Status InspectSafetensors(const std::string& path, std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const Safetensors file, ReadSafetensors(path));
  out << path << ": a safetensors file\n";
  for (const auto& [key, value] : file.metadata) {
    out << key << " = " << value << "\n";
  }
  PrintTensors(file.tensors, out);
  return absl::OkStatus();
}

absl::Status InspectModelDirectory(const std::string& path, std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const TensorTable tensors,
                          ReadSafetensorsDirectory(path));
  out << path << ": a Hugging Face model\n";
  PrintModel(path, out);
  PrintTensors(tensors, out);
  return absl::OkStatus();
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
    Total total;
    for (const auto& [name, tensor] : file.tensors) {
      total.Add(tensor);
    }
    PrintTotal(path, total, out);
  }
  return absl::OkStatus();
}

absl::Status InspectAdapter(const std::string& path, std::ostream& out) {
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
  PrintTensors(file.tensors, out);
  return PrintState(absl::StrCat(path, "/state"), out);
}

}  // namespace

absl::Status Inspect(const std::string& path, std::ostream& out) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    if (fs::exists(absl::StrCat(path, "/adapter_config.json"), error)) {
      return InspectAdapter(path, out);
    }
    if (fs::exists(absl::StrCat(path, "/config.json"), error)) {
      return InspectModelDirectory(path, out);
    }
    return absl::InvalidArgumentError(absl::StrCat(
        path, " holds neither config.json nor adapter_config.json"));
  }
  LORICA_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file,
                          MappedFile::Open(path));
  return absl::StartsWith(file->bytes(), "GGUF")
             ? InspectGguf(path, out)
             : InspectSafetensors(path, out);
}

}  // namespace lorica
