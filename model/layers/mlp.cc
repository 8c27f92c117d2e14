#include "model/layers/mlp.h"

#include <utility>
#include <vector>

#include "runtime/trace.h"

namespace lorica {
namespace {

Tensor Activate(Activation kind, const std::vector<Tensor>& ups,
                int64_t room = 0) {
  return kind == Activation::kSwiglu ? ops::Swiglu(ups[0], ups[1], room)
                                     : ops::Gelu(ups[0], room);
}

// Overwrites `ups` with their gradients.
void ActivateBackward(Activation kind, const Tensor& ds,
                      std::vector<Tensor>* ups) {
  if (kind == Activation::kSwiglu) {
    ops::SwigluBackward(ds, &(*ups)[0], &(*ups)[1]);
  } else {
    ops::GeluBackward(ds, &(*ups)[0]);
  }
}

}  // namespace

Mlp::Mlp(Weights weights, Activation activation, const ModelPlan& plan,
         Communicator* group)
    : norm_(std::move(weights.norm)),
      activation_(activation),
      up_(plan.column, std::move(weights.up), group),
      down_(plan.row, std::move(weights.down), group) {}

Mlp::Saved Mlp::Ups(const Stream& in, const MlpAdapters& adapters,
                    const Pass& pass, KeepInput keep) const {
  Saved saved;
  Norm::Result norm = norm_.Forward(in.x, in.delta, up_.InputRoom(adapters.up));
  saved.x = std::move(norm.sum);
  saved.stats = std::move(norm.stats);
  saved.ups = up_.Forward(norm.y, adapters.up, pass, keep, &saved.up);
  return saved;
}

Stream Mlp::Forward(const Stream& in, const MlpAdapters& adapters,
                    const Pass& pass, Recompute recompute, Saved* saved) const {
  const Span span(SpanKind::kLayer, "mlp", "forward");
  const KeepInput keep =
      recompute == Recompute::kNone ? KeepInput::kYes : KeepInput::kNo;
  Saved hidden = Ups(in, adapters, pass, keep);
  const Tensor s =
      Activate(activation_, hidden.ups, down_.InputRoom(adapters.down));
  Stream out = {.x = hidden.x};
  out.delta = down_.Forward(s, adapters.down, pass, keep, &hidden.down)[0];
  if (saved != nullptr) {
    if (recompute == Recompute::kBlock) {
      saved->x = std::move(hidden.x);
      saved->down = std::move(hidden.down);
    } else {
      *saved = std::move(hidden);
    }
  }
  return out;
}

void Mlp::Backward(Saved saved, const MlpAdapters& adapters, const Pass& pass,
                   ops::InputGrad input_grad, Tensor* dstream) const {
  const Span span(SpanKind::kLayer, "mlp", "backward");
  if (!saved.stats.present()) {
    LoraLinear::Saved down = std::move(saved.down);
    saved = Ups({.x = saved.x}, adapters, pass, KeepInput::kYes);
    saved.down = std::move(down);
  }
  Tensor s;
  if (adapters.down.present() && !saved.down.x.present()) {
    s = Activate(activation_, saved.ups);
  }
  if (input_grad == ops::InputGrad::kNone && !adapters.up.present()) {
    down_.Backward({*dstream}, s, saved.down, adapters.down, pass,
                   ops::InputGrad::kNone);
    return;
  }
  const Tensor ds = down_.Backward({*dstream}, s, saved.down, adapters.down,
                                   pass, ops::InputGrad::kWhole);
  s = {};
  ActivateBackward(activation_, ds, &saved.ups);
  Tensor h;
  if (adapters.up.present() && !saved.up.x.present()) {
    h = norm_.Forward(saved.x, {}).y;
  }
  const Tensor dh =
      up_.Backward(saved.ups, h, saved.up, adapters.up, pass, input_grad);
  if (input_grad == ops::InputGrad::kNone) return;
  norm_.Backward(dh, saved.x, saved.stats, Update::kAdd, dstream);
}

}  // namespace lorica
