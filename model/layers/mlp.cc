#include "model/layers/mlp.h"

#include <utility>
#include <vector>

#include "runtime/trace.h"

namespace lorica {

Mlp::Mlp(Weights weights, const ModelPlan& plan, float norm_epsilon,
         Communicator* group)
    : weights_(std::move(weights)),
      norm_epsilon_(norm_epsilon),
      gate_up_(plan.column, weights_.gate_up, group),
      down_(plan.row, weights_.down, group) {}

Mlp::Saved Mlp::GateUp(const Stream& in, const MlpAdapters& adapters,
                       const Pass& pass, KeepInput keep) const {
  Saved saved;
  ops::RmsNormResult norm =
      ops::RmsNorm(in.x, in.delta, weights_.norm, norm_epsilon_,
                   gate_up_.InputRoom(adapters.gate_up));
  saved.x = std::move(norm.sum);
  saved.rstd = std::move(norm.rstd);
  std::vector<Tensor> gate_up =
      gate_up_.Forward(norm.y, adapters.gate_up, pass, keep, &saved.gate_up);
  saved.gate = std::move(gate_up[0]);
  saved.up = std::move(gate_up[1]);
  return saved;
}

Stream Mlp::Forward(const Stream& in, const MlpAdapters& adapters,
                    const Pass& pass, Recompute recompute, Saved* saved) const {
  const Span span(SpanKind::kLayer, "mlp", "forward");
  const KeepInput keep =
      recompute == Recompute::kNone ? KeepInput::kYes : KeepInput::kNo;
  Saved hidden = GateUp(in, adapters, pass, keep);
  const Tensor s =
      ops::Swiglu(hidden.gate, hidden.up, down_.InputRoom(adapters.down));
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
  if (!saved.rstd.present()) {
    LoraLinear::Saved down = std::move(saved.down);
    saved = GateUp({.x = saved.x}, adapters, pass, KeepInput::kYes);
    saved.down = std::move(down);
  }
  Tensor s;
  if (adapters.down.present() && !saved.down.x.present()) {
    s = ops::Swiglu(saved.gate, saved.up);
  }
  if (input_grad == ops::InputGrad::kNone && !adapters.gate_up.present()) {
    down_.Backward({*dstream}, s, saved.down, adapters.down, pass,
                   ops::InputGrad::kNone);
    return;
  }
  const Tensor ds = down_.Backward({*dstream}, s, saved.down, adapters.down,
                                   pass, ops::InputGrad::kWhole);
  s = {};
  ops::SwigluBackward(ds, &saved.gate, &saved.up);
  Tensor h;
  if (adapters.gate_up.present() && !saved.gate_up.x.present()) {
    h = ops::RmsNorm(saved.x, {}, weights_.norm, norm_epsilon_).y;
  }
  const Tensor dh = gate_up_.Backward({saved.gate, saved.up}, h, saved.gate_up,
                                      adapters.gate_up, pass, input_grad);
  if (input_grad == ops::InputGrad::kNone) return;
  ops::RmsNormBackward(dh, saved.x, weights_.norm, saved.rstd, Update::kAdd,
                       dstream);
}

}  // namespace lorica
