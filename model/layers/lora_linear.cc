#include "model/layers/lora_linear.h"

#include <utility>

#include "runtime/check.h"

namespace lorica {
namespace {

// Sets the mask's random field apart from that of the module's initial A.
constexpr uint64_t kDropoutSalt = 1;

bool HasDropout(const LinearAdapter& adapter, const Pass& pass) {
  return adapter.present() && adapter.dropout > 0.0f && pass.trains();
}

// The mask of `rows` rows: all of the pass, or those after the selection.
ops::DropoutMask MaskOf(const LinearAdapter& adapter, const Pass& pass,
                        int64_t rows) {
  return {.row_index =
              rows == pass.tokens ? pass.row_index : pass.selected_row_index,
          .field = {.seed = pass.seed,
                    .stream = StreamOf(adapter.name.c_str(), kDropoutSalt)},
          .row_elements = adapter.inputs,
          .first_col = adapter.first_input,
          .p = adapter.dropout};
}

Tensor AdapterInput(const Tensor& x, const LinearAdapter& adapter,
                    const Pass& pass) {
  if (!HasDropout(adapter, pass)) return x;
  return ops::Dropout(x, MaskOf(adapter, pass, x.rows()));
}

}  // namespace

LoraLinear::LoraLinear(const LinearPlan& plan, FrozenLinear frozen,
                       Communicator* group)
    : plan_(plan), frozen_(std::move(frozen)), group_(group) {}

std::vector<ops::LinearPart> LoraLinear::Parts(
    const LinearAdapter& adapter) const {
  std::vector<ops::LinearPart> parts;
  for (size_t i = 0; i < frozen_.weights.size(); ++i) {
    parts.push_back({.weight = frozen_.weights[i]});
    if (!frozen_.biases.empty()) parts.back().bias = frozen_.biases[i];
    if (!adapter.present()) continue;
    const LinearAdapter::Part& part = adapter.parts[i];
    parts.back().b = part.b;
    parts.back().db = part.db;
    parts.back().first_rank = part.first_rank;
    parts.back().scale = part.scale;
  }
  return parts;
}

int64_t LoraLinear::InputRoom(const LinearAdapter& adapter) const {
  return NeedsCollective(plan_.input, *group_) ? 0 : adapter.border;
}

int64_t LoraLinear::GradRoom(const LinearAdapter& adapter) const {
  return NeedsCollective(GradTransition(plan_.output), *group_)
             ? 0
             : adapter.border;
}

std::vector<Tensor> LoraLinear::Forward(const Tensor& x_in,
                                        const LinearAdapter& adapter,
                                        const Pass& pass, KeepInput keep,
                                        Saved* saved) const {
  const Tensor x = Redistribute(x_in, plan_.input, pass.tokens, *group_,
                                Purpose::kActivation);
  ops::LoraForwardResult result = ops::LoraForward(
      x, AdapterInput(x, adapter, pass), adapter.a, Parts(adapter));
  if (saved != nullptr && adapter.present()) {
    // An input that was gathered from other ranks is not gathered twice.
    const bool gathered = x.rows() != x_in.rows();
    const bool kept = keep == KeepInput::kYes || gathered;
    if (kept) saved->x = x;
    // Beside x it would keep x's memory.
    saved->xa = kept || result.xa.dense()
                    ? std::move(result.xa)
                    : ops::Convert(result.xa, result.xa.dtype());
  }
  for (Tensor& y : result.y) {
    y = Redistribute(std::move(y), plan_.output, pass.tokens, *group_,
                     Purpose::kActivation);
  }
  return std::move(result.y);
}

Tensor LoraLinear::Backward(absl::Span<const Tensor> dy_out,
                            const Tensor& x_again, const Saved& saved,
                            const LinearAdapter& adapter, const Pass& pass,
                            ops::InputGrad input_grad) const {
  std::vector<Tensor> dy;
  for (const Tensor& d : dy_out) {
    dy.push_back(RedistributeGrad(d, plan_.output, pass.tokens, *group_,
                                  Purpose::kActivationGrad));
  }
  const bool dropout = HasDropout(adapter, pass);
  Tensor adapter_x;
  if (adapter.present()) {
    const Tensor& x = saved.x.present() ? saved.x : x_again;
    CHECK(x.present()) << adapter.name;
    adapter_x = AdapterInput(x, adapter, pass);
  }
  if (dropout && input_grad == ops::InputGrad::kWhole) {
    input_grad = ops::InputGrad::kSeparate;
  }
  Tensor da = adapter.da;
  ops::LoraBackwardResult result = ops::LoraBackward(
      dy, adapter_x, saved.xa, adapter.a, &da, Parts(adapter), input_grad);
  if (!result.dx.present()) return {};
  if (result.adapter_dx.present()) {
    ops::DropoutBackward(result.adapter_dx,
                         MaskOf(adapter, pass, result.dx.rows()), &result.dx);
  }
  return RedistributeGrad(std::move(result.dx), plan_.input, pass.tokens,
                          *group_, Purpose::kActivationGrad);
}

}  // namespace lorica
