#include "model/weight_source.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/families/gpt2.h"
#include "model/families/llama.h"
#include "model/params.h"
#include "runtime/check.h"
#include "runtime/files/block_decode.h"
#include "runtime/files/gguf.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// As the file has them.
std::vector<int64_t> Extents(const ParamSpec& param) {
  const Shape& shape = param.shape;
  if (shape.rank() == 1) return {shape[0]};
  if (param.file_order == FileOrder::kTransposed) return {shape[1], shape[0]};
  return {shape[0], shape[1]};
}

// Tensors that files carry and the model does without: tables that older
// transformers saved, and the head of a model whose head is its embedding.
bool IsIgnored(const std::string& name, const GptConfig& config) {
  return absl::EndsWith(name, ".rotary_emb.inv_freq") ||
         (config.tied_head && name == "lm_head.weight");
}

bool Matches(StoredType stored, DType dtype) {
  return (stored == StoredType::kF32 && dtype == DType::kF32) ||
         (stored == StoredType::kBF16 && dtype == DType::kBF16);
}

// The slice as it lies in the file, or null where it has to be decoded.
const char* FindInPlace(const StoredWeight& weight, const Slice& slice,
                        DType dtype) {
  const StoredTensor& tensor = weight.tensor;
  const int64_t cols = tensor.shape.back();
  const bool whole_rows =
      slice.cols == Range{0, cols} || slice.rows.size() == 1;
  if (!Matches(tensor.type, dtype) || weight.interleaved_rows != 0 ||
      weight.file_order != FileOrder::kAsIs || !whole_rows) {
    return nullptr;
  }
  const size_t size = SizeOf(dtype);
  const char* data =
      tensor.bytes.data() +
      static_cast<size_t>(slice.rows.begin * cols + slice.cols.begin) * size;
  return reinterpret_cast<uintptr_t>(data) % size == 0 ? data : nullptr;
}

// Elements of a transposed file that are in memory beside the result.
constexpr int64_t kBlockElements = int64_t{1} << 20;

// The slice [O, I] of a weight from its file's [I, O].
template <typename T>
void DecodeTransposed(const StoredTensor& tensor, const Slice& slice,
                      DType dtype, T* out) {
  const int64_t outputs = slice.rows.size();
  const int64_t inputs = slice.cols.size();
  const int64_t step =
      std::max<int64_t>(kBlockElements / std::max<int64_t>(outputs, 1), 1);
  std::vector<T> block;
  for (int64_t done = 0; done < inputs; done += step) {
    const int64_t count = std::min(step, inputs - done);
    block.resize(static_cast<size_t>(count * outputs));
    const int64_t first = slice.cols.begin + done;
    DecodeMatrix(
        tensor,
        {{first, first + count}, slice.rows, [](int64_t row) { return row; }},
        dtype, block.data());
    for (int64_t o = 0; o < outputs; ++o) {
      const T* from = block.data() + o;
      T* to = out + o * inputs + done;
      for (int64_t i = 0; i < count; ++i) to[i] = from[i * outputs];
    }
  }
}

// Into dense host memory of `dtype`.
void Decode(const StoredWeight& weight, const Slice& slice, DType dtype,
            void* out) {
  if (weight.file_order == FileOrder::kAsIs) {
    DecodeMatrix(weight.tensor,
                 {slice.rows, slice.cols,
                  [&weight](int64_t row) { return weight.SourceRow(row); }},
                 dtype, out);
  } else if (dtype == DType::kF32) {
    DecodeTransposed(weight.tensor, slice, dtype, static_cast<float*>(out));
  } else {
    DecodeTransposed(weight.tensor, slice, dtype, static_cast<BFloat16*>(out));
  }
}

}  // namespace

absl::StatusOr<WeightSource> WeightSource::Open(const std::string& path) {
  WeightSource source;
  source.path_ = path;
  std::error_code error;
  LORICA_RETURN_IF_ERROR(std::filesystem::is_directory(path, error)
                             ? source.OpenDirectory()
                             : source.OpenGguf());
  LORICA_RETURN_IF_ERROR(source.CheckWeights());
  return source;
}

absl::Status WeightSource::OpenDirectory() {
  const std::string config_path = absl::StrCat(path_, "/config.json");
  LORICA_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(config_path));
  const bool gpt2 = IsGpt2(json);
  LORICA_ASSIGN_OR_RETURN(config_, gpt2 ? Gpt2FromJson(json, config_path)
                                        : LlamaFromJson(json, config_path));
  LORICA_ASSIGN_OR_RETURN(TensorTable tensors, ReadSafetensorsDirectory(path_));
  for (auto& [name, tensor] : tensors) {
    const std::string ours = gpt2 ? Gpt2NameOf(name) : name;
    if (!ours.empty()) weights_[ours].tensor = std::move(tensor);
  }
  return absl::OkStatus();
}

absl::Status WeightSource::OpenGguf() {
  LORICA_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(path_));
  LORICA_ASSIGN_OR_RETURN(config_, LlamaFromGguf(file));
  LORICA_ASSIGN_OR_RETURN(weights_, LlamaWeightsOfGguf(file, config_));
  return absl::OkStatus();
}

absl::Status WeightSource::CheckWeights() {
  if (config_.num_layers > static_cast<int64_t>(weights_.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": the model's configuration has ", config_.num_layers,
        " layers, its files ", weights_.size(), " tensors"));
  }
  LORICA_ASSIGN_OR_RETURN(const ModelSplit whole, SplitModel(config_, 1));
  std::set<std::string> expected;
  for (const ParamSpec& param : FrozenParams(config_, whole)) {
    expected.insert(param.name);
    const auto found = weights_.find(param.name);
    if (found == weights_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": tensor ", param.name, " ",
                       param.shape.ToString(), " is missing"));
    }
    found->second.file_order = param.file_order;
    const StoredTensor& tensor = found->second.tensor;
    const std::string what =
        absl::StrCat(tensor.file->path(), ": tensor ", param.name);
    const std::vector<int64_t> extents = Extents(param);
    if (tensor.shape != extents) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, " is ", ShapeToString(tensor.shape),
          "; the model's configuration makes it ", ShapeToString(extents)));
    }
    if (!CanDecode(tensor.type)) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, " is stored as ", NameOf(tensor.type),
                       "; F32, F16, BF16, Q4_0, Q4_1 and Q8_0 can be read"));
    }
  }
  for (auto weight = weights_.begin(); weight != weights_.end();) {
    if (IsIgnored(weight->first, config_)) {
      weight = weights_.erase(weight);
    } else if (expected.count(weight->first) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          weight->second.tensor.file->path(), ": tensor ", weight->first, " ",
          ShapeToString(weight->second.tensor.shape),
          " is not part of the model that its configuration describes"));
    } else {
      ++weight;
    }
  }
  return absl::OkStatus();
}

Tensor WeightSource::Load(const std::string& name, const Slice& slice,
                          DType dtype, Device* device) const {
  const auto found = weights_.find(name);
  CHECK(found != weights_.end()) << name;
  const StoredWeight& weight = found->second;
  const StoredTensor& stored = weight.tensor;
  const Shape shape = stored.shape.size() == 2
                          ? Shape{slice.rows.size(), slice.cols.size()}
                          : Shape{slice.cols.size()};
  const bool on_host = device->backend().memory == Memory::kHost;
  const char* in_place = FindInPlace(weight, slice, dtype);
  if (in_place != nullptr && on_host) {
    return Tensor::Borrow(device, shape, dtype, const_cast<char*>(in_place),
                          stored.file);
  }
  Tensor tensor = Tensor::Empty(device, shape, dtype);
  if (in_place != nullptr) {
    tensor.CopyFrom(in_place);
    return tensor;
  }
  if (on_host) {
    Decode(weight, slice, dtype, tensor.data());
  } else {
    std::vector<char> host(static_cast<size_t>(shape.elements()) *
                           SizeOf(dtype));
    Decode(weight, slice, dtype, host.data());
    tensor.CopyFrom(host.data());
  }
  return tensor;
}

}  // namespace lorica
