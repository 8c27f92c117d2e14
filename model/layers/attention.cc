#include "model/layers/attention.h"

#include <cmath>
#include <utility>

#include "runtime/check.h"
#include "runtime/trace.h"

namespace lorica {

namespace {

int64_t OutputsOf(const FrozenLinear& linear) {
  int64_t outputs = 0;
  for (const Tensor& weight : linear.weights) outputs += weight.rows();
  return outputs;
}

}  // namespace

Attention::Attention(Weights weights, const ModelPlan& plan, int64_t head_dim,
                     const ops::RopeTable* rope, Communicator* group)
    : norm_(std::move(weights.norm)),
      shape_({.head_dim = head_dim,
              .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))}),
      rope_(rope),
      qkv_(plan.column, weights.qkv, group),
      o_(plan.row, weights.o, group) {
  const int64_t all = OutputsOf(weights.qkv);
  q_cols_ = {0, weights.o.weights[0].cols()};
  k_cols_ = {q_cols_.end, q_cols_.end + (all - q_cols_.end) / 2};
  v_cols_ = {k_cols_.end, all};
}

void Attention::Rotate(const Pass& pass, Direction direction, Tensor* q,
                       Tensor* k) const {
  if (rope_ == nullptr) return;
  for (Tensor* rotated : {q, k}) {
    ops::Rope(*rope_, pass.positions, shape_.head_dim, direction, rotated);
  }
}

namespace {

// Appends the new rows to the cache and returns the segment that reads it.
std::vector<Segment> Extend(const Tensor& k, const Tensor& v, KvCache* cache) {
  const Range fresh = {cache->tokens, cache->tokens + k.rows()};
  CHECK_LE(fresh.end, cache->k.rows()) << "tokens beyond the cache";
  Tensor k_rows = cache->k.Rows(fresh);
  Tensor v_rows = cache->v.Rows(fresh);
  ops::ConvertInto(k, 1.0f, &k_rows);
  ops::ConvertInto(v, 1.0f, &v_rows);
  cache->tokens = fresh.end;
  return {{.num_queries = k.rows(), .num_keys = fresh.end}};
}

}  // namespace

Attention::Saved Attention::Heads(const Stream& in,
                                  const AttentionAdapters& adapters,
                                  const Pass& pass, KeepInput keep,
                                  KvCache* cache) const {
  Saved saved;
  Norm::Result norm =
      norm_.Forward(in.x, in.delta, qkv_.InputRoom(adapters.qkv));
  saved.x = std::move(norm.sum);
  saved.stats = std::move(norm.stats);
  std::vector<Tensor> qkv =
      qkv_.Forward(norm.y, adapters.qkv, pass, keep, &saved.qkv);
  norm.y = {};
  if (qkv.size() == 1) {
    qkv = {qkv[0].Cols(q_cols_), qkv[0].Cols(k_cols_), qkv[0].Cols(v_cols_)};
  }
  Rotate(pass, Direction::kForward, &qkv[0], &qkv[1]);
  const int64_t room = o_.InputRoom(adapters.o);
  if (cache != nullptr) {
    const std::vector<Segment> segments = Extend(qkv[1], qkv[2], cache);
    saved.attention =
        ops::Attention(qkv[0], cache->k, cache->v, segments, shape_, room);
  } else {
    saved.attention =
        ops::Attention(qkv[0], qkv[1], qkv[2], pass.segments, shape_, room);
  }
  saved.q = std::move(qkv[0]);
  saved.k = std::move(qkv[1]);
  saved.v = std::move(qkv[2]);
  return saved;
}

Stream Attention::Forward(const Stream& in, const AttentionAdapters& adapters,
                          const Pass& pass, Rows rows, Recompute recompute,
                          KvCache* cache, Saved* saved) const {
  const Span span(SpanKind::kLayer, "attention", "forward");
  const KeepInput keep =
      recompute == Recompute::kNone ? KeepInput::kYes : KeepInput::kNo;
  Saved heads = Heads(in, adapters, pass, keep, cache);
  Stream out = {.x = heads.x};
  Tensor o_input = heads.attention.out;
  if (rows == Rows::kSelected) {
    o_input = ops::GatherRows(o_input, pass.selected, 0);
    out.x = ops::GatherRows(out.x, pass.selected, 0);
  }
  out.delta =
      o_.Forward(o_input, adapters.o, pass, KeepInput::kNo, &heads.o)[0];
  if (saved != nullptr) {
    if (recompute == Recompute::kBlock) {
      saved->x = std::move(heads.x);
      saved->o = std::move(heads.o);
    } else {
      *saved = std::move(heads);
    }
  }
  return out;
}

std::vector<Tensor> Attention::HeadGrads(const Tensor& dout, const Saved& saved,
                                         const Pass& pass, int64_t room) const {
  if (qkv_.parts() == 1) {
    const Tensor dqkv = ops::FusedAttentionBackward(
        dout, saved.q, saved.k, saved.v, saved.attention, pass.segments, shape_,
        room);
    Tensor dq = dqkv.Cols(q_cols_);
    Tensor dk = dqkv.Cols(k_cols_);
    Rotate(pass, Direction::kBackward, &dq, &dk);
    return {dqkv};
  }
  ops::AttentionGrads grads =
      ops::AttentionBackward(dout, saved.q, saved.k, saved.v, saved.attention,
                             pass.segments, shape_, room);
  Rotate(pass, Direction::kBackward, &grads.dq, &grads.dk);
  return {grads.dq, grads.dk, grads.dv};
}

void Attention::Backward(Saved saved, const AttentionAdapters& adapters,
                         const Pass& pass, ops::InputGrad input_grad,
                         Tensor* dstream) const {
  const Span span(SpanKind::kLayer, "attention", "backward");
  if (!saved.stats.present()) {
    LoraLinear::Saved o = std::move(saved.o);
    saved = Heads({.x = saved.x}, adapters, pass, KeepInput::kYes, nullptr);
    saved.o = std::move(o);
  }
  const bool selected = dstream->rows() != saved.x.rows();
  // Below the lowest adapter nothing is due.
  const bool lowest =
      input_grad == ops::InputGrad::kNone && !adapters.qkv.present();
  Tensor o_input;
  if (adapters.o.present()) {
    o_input = selected ? ops::GatherRows(saved.attention.out, pass.selected, 0)
                       : saved.attention.out;
  }
  Tensor dout =
      o_.Backward({*dstream}, o_input, saved.o, adapters.o, pass,
                  lowest ? ops::InputGrad::kNone : ops::InputGrad::kWhole);
  if (lowest) return;
  if (selected) {
    dout = ops::ScatterRows(dout, pass.selected, saved.x.rows());
    *dstream = ops::ScatterRows(*dstream, pass.selected, saved.x.rows());
  }
  const std::vector<Tensor> dqkv =
      HeadGrads(dout, saved, pass, qkv_.GradRoom(adapters.qkv));
  saved.attention = {};
  dout = {};
  Tensor h;
  if (adapters.qkv.present() && !saved.qkv.x.present()) {
    h = norm_.Forward(saved.x, {}).y;
  }
  const Tensor dh =
      qkv_.Backward(dqkv, h, saved.qkv, adapters.qkv, pass, input_grad);
  if (input_grad == ops::InputGrad::kNone) return;
  norm_.Backward(dh, saved.x, saved.stats, Update::kAdd, dstream);
}

}  // namespace lorica
