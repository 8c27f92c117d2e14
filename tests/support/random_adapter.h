// Adapters of random factors for a model of known shape.
#ifndef LORICA_TESTS_SUPPORT_RANDOM_ADAPTER_H_
#define LORICA_TESTS_SUPPORT_RANDOM_ADAPTER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/export/adapter_algebra.h"
#include "model/lora_config.h"
#include "model/params.h"
#include "model/peft_adapter.h"
#include "runtime/check.h"
#include "runtime/random.h"

namespace lorica {

// Every element a number in [-0.5, 0.5) of its own field under `seed`. The
// patterns become one entry a module.
inline PeftAdapter RandomAdapter(const GptConfig& config, LoraConfig lora,
                                 uint64_t seed) {
  const auto split = SplitModel(config, 1);
  CHECK(split.ok()) << split.status();
  const auto modules = ResolveTargets(config, *split, lora);
  CHECK(modules.ok()) << modules.status();
  lora.rank_pattern.clear();
  lora.alpha_pattern.clear();
  PeftAdapter adapter{.lora = lora, .base_model = "base"};
  for (const LoraModule& module : *modules) {
    const std::string& name = module.linear.module;
    if (module.rank != lora.rank) {
      adapter.lora.rank_pattern[name] = module.rank;
    }
    if (module.alpha != lora.alpha) {
      adapter.lora.alpha_pattern[name] = module.alpha;
    }
    PeftFactors factors{.rank = module.rank,
                        .inputs = module.linear.shape[1],
                        .outputs = module.linear.shape[0]};
    const auto fill = [&](const char* suffix, int64_t elements,
                          std::vector<float>* values) {
      const RandomField field{.seed = seed,
                              .stream = StreamOf((name + suffix).c_str())};
      for (int64_t i = 0; i < elements; ++i) {
        values->push_back(field.Uniform(static_cast<uint64_t>(i)) - 0.5f);
      }
    };
    fill("a", factors.rank * factors.inputs, &factors.a);
    fill("b", factors.rank * factors.outputs, &factors.b);
    adapter.modules[name] = std::move(factors);
  }
  return adapter;
}

// s B A, [O, I] row-major, by definition.
inline std::vector<double> ChangeOf(const PeftAdapter& adapter,
                                    const std::string& module) {
  const PeftFactors& factors = adapter.modules.at(module);
  std::vector<double> change;
  for (int64_t o = 0; o < factors.outputs; ++o) {
    for (int64_t i = 0; i < factors.inputs; ++i) {
      double sum = 0;
      for (int64_t r = 0; r < factors.rank; ++r) {
        sum += double{factors.b[static_cast<size_t>(o * factors.rank + r)]} *
               factors.a[static_cast<size_t>(r * factors.inputs + i)];
      }
      change.push_back(sum * ScaleOf(adapter, module));
    }
  }
  return change;
}

}  // namespace lorica

#endif  // LORICA_TESTS_SUPPORT_RANDOM_ADAPTER_H_
