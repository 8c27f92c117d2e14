#include "model/export/adapter_algebra.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>

#include "absl/types/span.h"
#include "runtime/check.h"

namespace lorica {
namespace {

double Dot(absl::Span<const float> x, absl::Span<const float> y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += double{x[i]} * y[i];
  return sum;
}

// From the three inner products, of which the mixed one may be rounded beyond
// what they allow.
Likeness FromProducts(double xx, double xy, double yy) {
  Likeness result;
  result.first_norm = std::sqrt(std::max(xx, 0.0));
  result.second_norm = std::sqrt(std::max(yy, 0.0));
  result.difference_norm = std::sqrt(std::max(xx - 2 * xy + yy, 0.0));
  const double norms = result.first_norm * result.second_norm;
  result.cosine = norms > 0 ? std::clamp(xy / norms, -1.0, 1.0) : 0.0;
  return result;
}

Likeness Compare(absl::Span<const float> x, absl::Span<const float> y) {
  return FromProducts(Dot(x, x), Dot(x, y), Dot(y, y));
}

// <B1 A1, B2 A2> = sum over (i, j) of (B1' B2)_ij (A1 A2')_ij: two products of
// R1 x R2 in place of one of O x I.
double InnerProduct(const PeftFactors& x, const PeftFactors& y) {
  const size_t rx = static_cast<size_t>(x.rank);
  const size_t ry = static_cast<size_t>(y.rank);
  std::vector<double> bb(rx * ry, 0.0);
  for (size_t o = 0; o < static_cast<size_t>(x.outputs); ++o) {
    for (size_t i = 0; i < rx; ++i) {
      for (size_t j = 0; j < ry; ++j) {
        bb[i * ry + j] += double{x.b[o * rx + i]} * y.b[o * ry + j];
      }
    }
  }
  const size_t inputs = static_cast<size_t>(x.inputs);
  double sum = 0;
  for (size_t i = 0; i < rx; ++i) {
    for (size_t j = 0; j < ry; ++j) {
      sum += bb[i * ry + j] *
             Dot({&x.a[i * inputs], inputs}, {&y.a[j * inputs], inputs});
    }
  }
  return sum;
}

// An adapter whose module's rank and alpha are what the patterns say.
PeftAdapter Empty(const PeftAdapter& like) {
  PeftAdapter adapter{.lora = like.lora, .base_model = like.base_model};
  adapter.lora.scaling = LoraScaling::kStandard;
  adapter.lora.targets.clear();
  adapter.lora.rank_pattern.clear();
  adapter.lora.alpha_pattern.clear();
  return adapter;
}

void Put(const std::string& module, PeftFactors factors, double scale,
         PeftAdapter* adapter) {
  adapter->lora.targets.push_back(module);
  adapter->lora.rank_pattern[module] = factors.rank;
  adapter->lora.alpha_pattern[module] =
      scale * static_cast<double>(factors.rank);
  adapter->modules[module] = std::move(factors);
}

PeftFactors Stacked(const PeftFactors& x, float x_factor,
                    const PeftFactors& y) {
  CHECK(x.inputs == y.inputs && x.outputs == y.outputs);
  PeftFactors sum{.rank = x.rank + y.rank,
                  .inputs = x.inputs,
                  .outputs = x.outputs,
                  .a = x.a};
  sum.a.insert(sum.a.end(), y.a.begin(), y.a.end());
  for (int64_t o = 0; o < x.outputs; ++o) {
    for (int64_t r = 0; r < x.rank; ++r) {
      sum.b.push_back(x_factor * x.b[static_cast<size_t>(o * x.rank + r)]);
    }
    const auto row = y.b.begin() + o * y.rank;
    sum.b.insert(sum.b.end(), row, row + y.rank);
  }
  return sum;
}

}  // namespace

double ScaleOf(const PeftAdapter& adapter, const std::string& module) {
  const auto found = adapter.lora.alpha_pattern.find(module);
  const double alpha = found == adapter.lora.alpha_pattern.end()
                           ? adapter.lora.alpha
                           : found->second;
  const double rank = static_cast<double>(adapter.modules.at(module).rank);
  return adapter.lora.scaling == LoraScaling::kStandard
             ? alpha / rank
             : alpha / std::sqrt(rank);
}

PeftAdapter Negated(PeftAdapter adapter) {
  for (auto& [module, factors] : adapter.modules) {
    for (float& value : factors.b) value = -value;
  }
  return adapter;
}

PeftAdapter Sum(const PeftAdapter& first, const PeftAdapter& second) {
  PeftAdapter sum = Empty(first);
  for (const auto& [module, factors] : first.modules) {
    const auto other = second.modules.find(module);
    const double scale = ScaleOf(first, module);
    if (other == second.modules.end()) {
      Put(module, factors, scale, &sum);
      continue;
    }
    const double other_scale = ScaleOf(second, module);
    // A scale of zero cannot take over the other's factor.
    const double common = other_scale != 0 ? other_scale : scale;
    PeftFactors right = other->second;
    if (other_scale == 0) std::fill(right.b.begin(), right.b.end(), 0.0f);
    const double ratio = common != 0 ? scale / common : 1.0;
    Put(module, Stacked(factors, static_cast<float>(ratio), right), common,
        &sum);
  }
  for (const auto& [module, factors] : second.modules) {
    if (first.modules.count(module) == 0) {
      Put(module, factors, ScaleOf(second, module), &sum);
    }
  }
  return sum;
}

std::vector<ModuleLikeness> Compare(const PeftAdapter& first,
                                    const PeftAdapter& second) {
  std::set<std::string> names;
  for (const auto& [module, factors] : first.modules) names.insert(module);
  for (const auto& [module, factors] : second.modules) names.insert(module);
  std::vector<ModuleLikeness> result;
  for (const std::string& module : names) {
    const auto x = first.modules.find(module);
    const auto y = second.modules.find(module);
    ModuleLikeness likeness{.module = module,
                            .in_first = x != first.modules.end(),
                            .in_second = y != second.modules.end()};
    double xx = 0;
    double xy = 0;
    double yy = 0;
    if (likeness.in_first) {
      const double s = ScaleOf(first, module);
      xx = s * s * InnerProduct(x->second, x->second);
    }
    if (likeness.in_second) {
      const double s = ScaleOf(second, module);
      yy = s * s * InnerProduct(y->second, y->second);
    }
    if (likeness.in_first && likeness.in_second) {
      const PeftFactors& f = x->second;
      const PeftFactors& g = y->second;
      likeness.comparable = f.inputs == g.inputs && f.outputs == g.outputs;
      if (likeness.comparable) {
        xy = ScaleOf(first, module) * ScaleOf(second, module) *
             InnerProduct(f, g);
      }
      if (likeness.comparable && f.rank == g.rank) {
        likeness.a = Compare(f.a, g.a);
        likeness.b = Compare(f.b, g.b);
      }
    }
    likeness.change = FromProducts(xx, xy, yy);
    result.push_back(std::move(likeness));
  }
  return result;
}

Likeness Total(const std::vector<ModuleLikeness>& modules) {
  double xx = 0;
  double xy = 0;
  double yy = 0;
  for (const ModuleLikeness& module : modules) {
    const Likeness& change = module.change;
    xx += change.first_norm * change.first_norm;
    yy += change.second_norm * change.second_norm;
    xy += change.cosine * change.first_norm * change.second_norm;
  }
  return FromProducts(xx, xy, yy);
}

}  // namespace lorica
