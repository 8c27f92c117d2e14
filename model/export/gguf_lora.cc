#include "model/export/gguf_lora.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/export/adapter_algebra.h"
#include "model/families/gpt2.h"
#include "model/families/llama.h"
#include "runtime/check.h"
#include "runtime/files/element_encode.h"
#include "runtime/files/gguf_writer.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

std::string NameInGguf(const GptConfig& config, const std::string& weight) {
  return config.family == Family::kGpt2 ? Gpt2NameInGguf(weight)
                                        : LlamaNameInGguf(weight);
}

// The alpha that llama.cpp, dividing by the rank, needs for a module's scale.
double AlphaFor(const PeftAdapter& adapter, const std::string& module) {
  return ScaleOf(adapter, module) *
         static_cast<double>(adapter.modules.at(module).rank);
}

// Two alphas whose ratio is a rounding error are one.
float Rounded(double alpha) { return static_cast<float>(alpha); }

// What most modules need; the lowest of equals. Not 0, which llama.cpp takes
// for "no scaling at all".
float CommonAlpha(const PeftAdapter& adapter) {
  std::map<float, int> counts;
  for (const auto& [module, factors] : adapter.modules) {
    const float alpha = Rounded(AlphaFor(adapter, module));
    if (alpha != 0) ++counts[alpha];
  }
  const auto most = std::max_element(
      counts.begin(), counts.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counts.end() ? 1.0f : most->first;
}

// B with its rows in the GGUF's order, times `factor`.
std::vector<float> StoredB(const PeftFactors& factors, int64_t interleaved_rows,
                           float factor) {
  const StoredWeight order{.tensor = {}, .interleaved_rows = interleaved_rows};
  std::vector<float> stored(factors.b.size());
  for (int64_t o = 0; o < factors.outputs; ++o) {
    const auto from = factors.b.begin() + o * factors.rank;
    std::transform(from, from + factors.rank,
                   stored.begin() + order.SourceRow(o) * factors.rank,
                   [factor](float value) { return factor * value; });
  }
  return stored;
}

}  // namespace

absl::Status WriteGgufLora(const std::string& path, const PeftAdapter& adapter,
                           const GptConfig& config, StoredType type) {
  const float alpha = CommonAlpha(adapter);
  std::vector<std::string> elements;
  std::vector<GgufData> tensors;
  for (const auto& [module, factors] : adapter.modules) {
    const std::string weight = absl::StrCat(module, ".weight");
    const std::string name = NameInGguf(config, weight);
    CHECK(!name.empty()) << module;
    const double wanted = AlphaFor(adapter, module);
    const float factor = Rounded(wanted) == alpha
                             ? 1.0f
                             : static_cast<float>(wanted / double{alpha});
    const std::vector<float> b =
        StoredB(factors, InterleavedRowsInGguf(weight, config), factor);
    const std::string a_name = absl::StrCat(name, ".lora_a");
    const std::string b_name = absl::StrCat(name, ".lora_b");
    LORICA_ASSIGN_OR_RETURN(std::string a_bytes,
                            EncodeTensor(a_name, type, factors.a));
    LORICA_ASSIGN_OR_RETURN(std::string b_bytes, EncodeTensor(b_name, type, b));
    elements.push_back(std::move(a_bytes));
    elements.push_back(std::move(b_bytes));
    tensors.push_back({a_name, type, {factors.rank, factors.inputs}, {}});
    tensors.push_back({b_name, type, {factors.outputs, factors.rank}, {}});
  }
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i].bytes = elements[i];
  const std::string architecture =
      config.family == Family::kGpt2 ? kGpt2InGguf : ArchitectureInGguf(config);
  return WriteGguf(path,
                   {{"general.type", std::string("adapter")},
                    {"general.architecture", architecture},
                    {"adapter.type", std::string("lora")},
                    {"adapter.lora.alpha", alpha}},
                   tensors);
}

}  // namespace lorica
