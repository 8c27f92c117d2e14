#include "model/layers/attention.h"

#include <cmath>
#include <utility>

#include "runtime/check.h"
#include "runtime/trace.h"

namespace lorica {

Attention::Attention(Weights weights, const ModelPlan& plan, float norm_epsilon,
                     int64_t head_dim, const ops::RopeTable* rope,
                     Communicator* group)
    : weights_(std::move(weights)),
      norm_epsilon_(norm_epsilon),
      shape_({.head_dim = head_dim,
              .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))}),
      rope_(rope),
      qkv_(plan.column, weights_.qkv, group),
      o_(plan.row, weights_.o, group) {}

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
  ops::RmsNormResult norm =
      ops::RmsNorm(in.x, in.delta, weights_.norm, norm_epsilon_,
                   qkv_.InputRoom(adapters.qkv));
  saved.x = std::move(norm.sum);
  saved.rstd = std::move(norm.rstd);
  std::vector<Tensor> qkv =
      qkv_.Forward(norm.y, adapters.qkv, pass, keep, &saved.qkv);
  norm.y = {};
  for (Tensor* rotated : {&qkv[0], &qkv[1]}) {
    ops::Rope(*rope_, pass.positions, shape_.head_dim, Direction::kForward,
              rotated);
  }
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

void Attention::Backward(Saved saved, const AttentionAdapters& adapters,
                         const Pass& pass, ops::InputGrad input_grad,
                         Tensor* dstream) const {
  const Span span(SpanKind::kLayer, "attention", "backward");
  if (!saved.rstd.present()) {
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
  ops::AttentionGrads grads = ops::AttentionBackward(
      dout, saved.q, saved.k, saved.v, saved.attention, pass.segments, shape_,
      qkv_.GradRoom(adapters.qkv));
  saved.attention = {};
  dout = {};
  for (Tensor* rotated : {&grads.dq, &grads.dk}) {
    ops::Rope(*rope_, pass.positions, shape_.head_dim, Direction::kBackward,
              rotated);
  }
  Tensor h;
  if (adapters.qkv.present() && !saved.qkv.x.present()) {
    h = ops::RmsNorm(saved.x, {}, weights_.norm, norm_epsilon_).y;
  }
  const Tensor dh = qkv_.Backward({grads.dq, grads.dk, grads.dv}, h, saved.qkv,
                                  adapters.qkv, pass, input_grad);
  if (input_grad == ops::InputGrad::kNone) return;
  ops::RmsNormBackward(dh, saved.x, weights_.norm, saved.rstd, Update::kAdd,
                       dstream);
}

}  // namespace lorica
