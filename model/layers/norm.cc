#include "model/layers/norm.h"

#include <utility>

#include "runtime/check.h"

namespace lorica {

Norm::Norm(NormKind kind, float epsilon, Tensor weight, Tensor bias)
    : kind_(kind),
      epsilon_(epsilon),
      weight_(std::move(weight)),
      bias_(std::move(bias)) {
  CHECK_EQ(bias_.present(), kind_ == NormKind::kLayer);
}

Norm::Result Norm::Forward(const Tensor& x, const Tensor& delta,
                           int64_t room) const {
  if (kind_ == NormKind::kRms) {
    ops::RmsNormResult norm = ops::RmsNorm(x, delta, weight_, epsilon_, room);
    return {.sum = std::move(norm.sum),
            .y = std::move(norm.y),
            .stats = {.rstd = std::move(norm.rstd)}};
  }
  ops::LayerNormResult norm =
      ops::LayerNorm(x, delta, weight_, bias_, epsilon_, room);
  return {
      .sum = std::move(norm.sum),
      .y = std::move(norm.y),
      .stats = {.mean = std::move(norm.mean), .rstd = std::move(norm.rstd)}};
}

void Norm::Backward(const Tensor& dy, const Tensor& x, const Stats& stats,
                    Update update, Tensor* dx) const {
  if (kind_ == NormKind::kRms) {
    ops::RmsNormBackward(dy, x, weight_, stats.rstd, update, dx);
  } else {
    ops::LayerNormBackward(dy, x, weight_, stats.mean, stats.rstd, update, dx);
  }
}

}  // namespace lorica
