// The norm before the products of half a block, and before the head.
#ifndef LORICA_MODEL_LAYERS_NORM_H_
#define LORICA_MODEL_LAYERS_NORM_H_

#include <cstdint>

#include "model/gpt_config.h"
#include "runtime/ops.h"
#include "runtime/tensor.h"

namespace lorica {

// RMSNorm or LayerNorm with frozen weights.
class Norm {
 public:
  // What Backward needs of a row beside the normalized sum.
  struct Stats {
    Tensor mean;  // [T] F32, of kLayer alone.
    Tensor rstd;  // [T] F32
    bool present() const { return rstd.present(); }
  };
  struct Result {
    Tensor sum;  // [T, H] x + delta, or x itself where delta is absent.
    Tensor y;    // [T, H]
    Stats stats;
  };

  // `weight` [H] F32; `bias` likewise of kLayer, absent of kRms.
  Norm(NormKind kind, float epsilon, Tensor weight, Tensor bias);

  // `room`: as of the ops.
  Result Forward(const Tensor& x, const Tensor& delta, int64_t room = 0) const;

  // dx += (or =) the gradient for `x`, Forward's sum.
  void Backward(const Tensor& dy, const Tensor& x, const Stats& stats,
                Update update, Tensor* dx) const;

 private:
  NormKind kind_;
  float epsilon_;
  Tensor weight_;
  Tensor bias_;
};

}  // namespace lorica

#endif  // LORICA_MODEL_LAYERS_NORM_H_
