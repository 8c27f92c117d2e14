#include "model/export/merged_weights.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/export/adapter_algebra.h"
#include "model/lora_config.h"
#include "model/params.h"
#include "runtime/check.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/block_decode.h"
#include "runtime/files/element_encode.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

constexpr char kOnlyFile[] = "model.safetensors";

// Elements that are in memory at a time.
constexpr int64_t kBlockElements = int64_t{1} << 20;

int64_t RowsOf(const StoredTensor& tensor) {
  return tensor.shape.size() == 2 ? tensor.shape[0] : 1;
}

// The factors on the weight of that name, or null.
const PeftFactors* FindFactors(const PeftAdapter* adapter,
                               absl::string_view name, std::string* module) {
  if (adapter == nullptr || !absl::ConsumeSuffix(&name, ".weight")) {
    return nullptr;
  }
  *module = std::string(name);
  const auto found = adapter->modules.find(*module);
  return found == adapter->modules.end() ? nullptr : &found->second;
}

// out += scale * B[row, :] A; of a transposed file, of (B A)'.
void AddProductRow(const PeftFactors& factors, FileOrder order, int64_t row,
                   double scale, double* out) {
  if (order == FileOrder::kTransposed) {
    for (int64_t o = 0; o < factors.outputs; ++o) {
      double sum = 0;
      for (int64_t r = 0; r < factors.rank; ++r) {
        sum += double{factors.b[static_cast<size_t>(o * factors.rank + r)]} *
               factors.a[static_cast<size_t>(r * factors.inputs + row)];
      }
      out[o] += scale * sum;
    }
    return;
  }
  for (int64_t r = 0; r < factors.rank; ++r) {
    const double b =
        scale * factors.b[static_cast<size_t>(row * factors.rank + r)];
    const float* a = factors.a.data() + r * factors.inputs;
    for (int64_t i = 0; i < factors.inputs; ++i) out[i] += b * double{a[i]};
  }
}

// One block of rows on its way into a file.
struct EncodedRows {
  std::string bytes;
  ErrorStatistic rounding;
  ErrorStatistic against_expected;
  std::optional<float> lost;  // A value that the type cannot hold.
};

void Measure(double stored, double wanted, ErrorStatistic* statistic) {
  const double error = std::abs(stored - wanted);
  statistic->largest = std::max(statistic->largest, error);
  statistic->squares += error * error;
  ++statistic->elements;
}

// The statistics of rows are added in the rows' order, so that threads do not
// change them.
EncodedRows Encode(const std::vector<double>& values,
                   const std::vector<double>& expected, int64_t rows,
                   StoredType type) {
  const size_t cols = values.size() / static_cast<size_t>(rows);
  const size_t row_bytes = cols * static_cast<size_t>(InfoOf(type).block_bytes);
  EncodedRows result;
  result.bytes.resize(static_cast<size_t>(rows) * row_bytes);
  std::vector<EncodedRows> parts(static_cast<size_t>(rows));
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const size_t row = static_cast<size_t>(r);
    EncodedRows& part = parts[row];
    std::vector<float> merged(cols);
    for (size_t i = 0; i < cols; ++i) {
      merged[i] = static_cast<float>(values[row * cols + i]);
    }
    char* bytes = result.bytes.data() + row * row_bytes;
    part.lost = EncodeRow(type, merged, bytes);
    std::vector<float> stored(cols);
    DecodeRow(type, bytes, {0, static_cast<int64_t>(cols)}, stored.data());
    for (size_t i = 0; i < cols; ++i) {
      Measure(stored[i], values[row * cols + i], &part.rounding);
      if (!expected.empty()) {
        Measure(stored[i], expected[row * cols + i], &part.against_expected);
      }
    }
  }
  for (const EncodedRows& part : parts) {
    result.rounding.Add(part.rounding);
    result.against_expected.Add(part.against_expected);
    if (!result.lost.has_value()) result.lost = part.lost;
  }
  return result;
}

// The entries of each output file.
std::map<std::string, std::vector<SafetensorsEntry>> Files(
    const WeightSource& source, StoredType type) {
  std::map<std::string, std::vector<SafetensorsEntry>> files;
  std::error_code error;
  const bool directory = std::filesystem::is_directory(source.path(), error);
  for (const auto& [name, weight] : source.weights()) {
    const std::filesystem::path from = weight.tensor.file->path();
    files[directory ? from.filename().string() : kOnlyFile].push_back(
        {name, type, weight.tensor.shape});
  }
  if (files.size() == 1) {
    auto only = files.extract(files.begin());
    only.key() = kOnlyFile;
    files.insert(std::move(only));
  }
  return files;
}

absl::StatusOr<MergedTensor> WriteTensor(const SafetensorsEntry& entry,
                                         const MergedWeights& weights,
                                         const MergedWeights* expected,
                                         SafetensorsWriter* writer) {
  MergedTensor tensor{.name = entry.name,
                      .shape = entry.shape,
                      .adapted = weights.Adapts(entry.name)};
  if (expected != nullptr) tensor.against_expected.emplace();
  const int64_t cols = std::max<int64_t>(entry.shape.back(), 1);
  const int64_t rows = entry.shape.size() == 2 ? entry.shape[0] : 1;
  const int64_t step = std::max<int64_t>(kBlockElements / cols, 1);
  for (int64_t begin = 0; begin < rows; begin += step) {
    const Range range = {begin, std::min(begin + step, rows)};
    const EncodedRows block =
        Encode(weights.Rows(entry.name, range),
               expected != nullptr ? expected->Rows(entry.name, range)
                                   : std::vector<double>(),
               range.size(), entry.type);
    if (block.lost.has_value()) {
      return CannotHold(entry.name, entry.type, *block.lost);
    }
    tensor.rounding.Add(block.rounding);
    if (expected != nullptr) {
      tensor.against_expected->Add(block.against_expected);
    }
    LORICA_RETURN_IF_ERROR(writer->Append(block.bytes));
  }
  return tensor;
}

absl::Status WriteIndex(
    const std::string& directory, int64_t bytes,
    const std::map<std::string, std::vector<SafetensorsEntry>>& files) {
  Json map = Json::object();
  for (const auto& [file, entries] : files) {
    for (const SafetensorsEntry& entry : entries) map[entry.name] = file;
  }
  const Json index = {{"metadata", {{"total_size", bytes}}},
                      {"weight_map", map}};
  return WriteFileAtomically(
      absl::StrCat(directory, "/model.safetensors.index.json"),
      index.dump(2) + "\n");
}

}  // namespace

absl::StatusOr<MergedWeights> MergedWeights::Create(
    const WeightSource* source, const PeftAdapter* adapter,
    const std::string& directory) {
  if (adapter != nullptr) {
    const GptConfig& config = source->config();
    LORICA_ASSIGN_OR_RETURN(const ModelSplit whole, SplitModel(config, 1));
    LORICA_ASSIGN_OR_RETURN(const std::vector<LoraModule> modules,
                            ResolveTargets(config, whole, adapter->lora));
    LORICA_RETURN_IF_ERROR(CheckPeftAdapter(*adapter, modules, directory));
  }
  return MergedWeights(source, adapter);
}

bool MergedWeights::Adapts(const std::string& name) const {
  std::string module;
  return FindFactors(adapter_, name, &module) != nullptr;
}

std::vector<double> MergedWeights::Rows(const std::string& name,
                                        Range rows) const {
  const auto found = source_->weights().find(name);
  CHECK(found != source_->weights().end()) << name;
  const StoredWeight& weight = found->second;
  const int64_t cols = weight.tensor.shape.back();
  CHECK_LE(rows.end, RowsOf(weight.tensor));
  std::vector<float> base(static_cast<size_t>(rows.size() * cols));
  const auto source_row = [&weight](int64_t row) {
    return weight.SourceRow(row);
  };
  DecodeMatrix(weight.tensor, {rows, {0, cols}, source_row}, DType::kF32,
               base.data());
  std::vector<double> merged(base.begin(), base.end());
  std::string module;
  const PeftFactors* factors = FindFactors(adapter_, name, &module);
  if (factors == nullptr) return merged;
  const double scale = ScaleOf(*adapter_, module);
#pragma omp parallel for schedule(static)
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    AddProductRow(*factors, weight.file_order, row, scale,
                  merged.data() + (row - rows.begin) * cols);
  }
  return merged;
}

void ErrorStatistic::Add(const ErrorStatistic& other) {
  elements += other.elements;
  largest = std::max(largest, other.largest);
  squares += other.squares;
}

double ErrorStatistic::rms() const {
  return elements == 0 ? 0.0
                       : std::sqrt(squares / static_cast<double>(elements));
}

absl::StatusOr<MergedFiles> WriteMergedWeights(const std::string& directory,
                                               const MergedWeights& weights,
                                               StoredType type,
                                               const MergedWeights* expected) {
  MergedFiles result;
  const auto files = Files(weights.source(), type);
  for (const auto& [file, entries] : files) {
    LORICA_ASSIGN_OR_RETURN(
        SafetensorsWriter writer,
        SafetensorsWriter::Create(absl::StrCat(directory, "/", file), entries,
                                  {{"format", "pt"}}));
    for (const SafetensorsEntry& entry : writer.entries()) {
      LORICA_ASSIGN_OR_RETURN(MergedTensor tensor,
                              WriteTensor(entry, weights, expected, &writer));
      result.bytes += *BytesOf(type, entry.shape);
      result.tensors.push_back(std::move(tensor));
    }
    LORICA_RETURN_IF_ERROR(writer.Commit());
    result.files.push_back(file);
  }
  if (files.size() > 1) {
    LORICA_RETURN_IF_ERROR(WriteIndex(directory, result.bytes, files));
  }
  return result;
}

}  // namespace lorica
