#include "runtime/ops.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <utility>
#include <vector>

#include "runtime/check.h"
#include "runtime/op_args.h"

namespace lorica::ops {

void Fill(float value, Tensor* y) {
  CHECK(IsFloat(y->dtype())) << y->dtype();
  BackendOf(*y).fill(QueueOf(*y), y->view(), value);
}

Tensor Convert(const Tensor& x, DType dtype, float scale) {
  Tensor y = Tensor::Empty(x.device(), x.shape(), dtype);
  ConvertInto(x, scale, &y);
  return y;
}

void ConvertInto(const Tensor& x, float scale, Tensor* y) {
  CHECK_EQ(x.shape(), y->shape());
  CHECK(IsFloat(x.dtype()) && IsFloat(y->dtype()));
  BackendOf(x).convert(QueueOf(x), x.view(), scale, y->view());
}

namespace {

// The number of words of a FlatPiece in the table of many.
constexpr int64_t kPieceWords = sizeof(FlatPiece) / sizeof(int64_t);
static_assert(sizeof(FlatPiece) % sizeof(int64_t) == 0);

}  // namespace

PieceTable MakePieceTable(std::vector<Piece> pieces) {
  CHECK(!pieces.empty());
  const Tensor& first = pieces.front().to;
  std::vector<int64_t> words;
  for (const Piece& piece : pieces) {
    CHECK(piece.to.device() == first.device());
    CHECK_EQ(piece.to.dtype(), first.dtype());
    const FlatPiece flat = {piece.begin, piece.scale, piece.to.view()};
    const size_t at = words.size();
    words.resize(at + kPieceWords);
    std::memcpy(words.data() + at, &flat, sizeof(flat));
  }
  CHECK(IsFloat(first.dtype())) << first.dtype();
  Tensor table = Tensor::FromHost<int64_t>(
      first.device(), {std::ssize(pieces), kPieceWords}, words);
  return {.pieces = std::move(pieces), .table = std::move(table)};
}

void ScatterPieces(const Tensor& x, const PieceTable& table) {
  CHECK_EQ(x.dtype(), DType::kF32);
  CHECK(x.dense());
  for (const Piece& piece : table.pieces) {
    CHECK(0 <= piece.begin && piece.begin + piece.to.elements() <= x.elements())
        << piece.begin;
  }
  BackendOf(x).scatter_pieces(QueueOf(x),
                              {.x = x.view(),
                               .pieces = table.table.view(),
                               .dtype = table.pieces.front().to.dtype()});
}

void AddInto(const Tensor& x, Tensor* y) {
  CHECK_EQ(x.shape(), y->shape());
  CHECK(IsFloat(x.dtype()) && IsFloat(y->dtype()));
  BackendOf(x).add(QueueOf(x), x.view(), y->view());
}

void SquaredNorm(const Tensor& x, Tensor* norm) {
  CHECK_EQ(x.dtype(), DType::kF32);
  CHECK(x.dense());
  CheckShape(*norm, {1}, DType::kF64);
  BackendOf(x).squared_norm(QueueOf(x), x.view(), norm->view());
}

RmsNormResult RmsNorm(const Tensor& x, const Tensor& delta,
                      const Tensor& weight, float epsilon, int64_t room) {
  CheckShape(weight, {x.cols()}, DType::kF32);
  if (delta.present()) CheckSame(x, delta);
  RmsNormResult result = {
      .sum = delta.present() ? Tensor::Empty(x.device(), x.shape(), x.dtype(),
                                             Lifetime::kPass)
                             : x,
      .y = LikeWithRoom(x, x.rows(), x.cols(), room),
      .rstd = Tensor::Empty(x.device(), {x.rows()}, DType::kF32)};
  BackendOf(x).rms_norm(QueueOf(x), {.x = x.view(),
                                     .delta = delta.view(),
                                     .weight = weight.view(),
                                     .sum = result.sum.view(),
                                     .y = result.y.view(),
                                     .rstd = result.rstd.view(),
                                     .epsilon = epsilon});
  return result;
}

void RmsNormBackward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                     const Tensor& rstd, Update update, Tensor* dx) {
  CHECK_EQ(dy.shape(), x.shape());
  CheckSame(x, *dx);
  CheckShape(weight, {x.cols()}, DType::kF32);
  CheckShape(rstd, {x.rows()}, DType::kF32);
  BackendOf(x).rms_norm_backward(QueueOf(x), {.dy = dy.view(),
                                              .x = x.view(),
                                              .weight = weight.view(),
                                              .rstd = rstd.view(),
                                              .dx = dx->view(),
                                              .update = update});
}

LayerNormResult LayerNorm(const Tensor& x, const Tensor& delta,
                          const Tensor& weight, const Tensor& bias,
                          float epsilon, int64_t room) {
  CheckShape(weight, {x.cols()}, DType::kF32);
  CheckShape(bias, {x.cols()}, DType::kF32);
  if (delta.present()) CheckSame(x, delta);
  LayerNormResult result = {
      .sum = delta.present() ? Tensor::Empty(x.device(), x.shape(), x.dtype(),
                                             Lifetime::kPass)
                             : x,
      .y = LikeWithRoom(x, x.rows(), x.cols(), room),
      .mean = Tensor::Empty(x.device(), {x.rows()}, DType::kF32),
      .rstd = Tensor::Empty(x.device(), {x.rows()}, DType::kF32)};
  BackendOf(x).layer_norm(QueueOf(x), {.x = x.view(),
                                       .delta = delta.view(),
                                       .weight = weight.view(),
                                       .bias = bias.view(),
                                       .sum = result.sum.view(),
                                       .y = result.y.view(),
                                       .mean = result.mean.view(),
                                       .rstd = result.rstd.view(),
                                       .epsilon = epsilon});
  return result;
}

void LayerNormBackward(const Tensor& dy, const Tensor& x, const Tensor& weight,
                       const Tensor& mean, const Tensor& rstd, Update update,
                       Tensor* dx) {
  CHECK_EQ(dy.shape(), x.shape());
  CheckSame(x, *dx);
  CheckShape(weight, {x.cols()}, DType::kF32);
  CheckShape(mean, {x.rows()}, DType::kF32);
  CheckShape(rstd, {x.rows()}, DType::kF32);
  BackendOf(x).layer_norm_backward(QueueOf(x), {.dy = dy.view(),
                                                .x = x.view(),
                                                .weight = weight.view(),
                                                .mean = mean.view(),
                                                .rstd = rstd.view(),
                                                .dx = dx->view(),
                                                .update = update});
}

void Rope(const RopeTable& table, const Tensor& positions, int64_t head_dim,
          Direction direction, Tensor* x) {
  CHECK_EQ(x->cols() % head_dim, 0);
  CHECK_EQ(table.cos.cols(), head_dim / 2);
  CheckSame(table.cos, table.sin);
  CheckShape(positions, {x->rows()}, DType::kI32);
  BackendOf(*x).rope(QueueOf(*x), {.x = x->view(),
                                   .cos = table.cos.view(),
                                   .sin = table.sin.view(),
                                   .positions = positions.view(),
                                   .head_dim = head_dim,
                                   .direction = direction});
}

Tensor Swiglu(const Tensor& gate, const Tensor& up, int64_t room) {
  CheckSame(gate, up);
  Tensor y = LikeWithRoom(gate, gate.rows(), gate.cols(), room);
  BackendOf(gate).swiglu(QueueOf(gate),
                         {.gate = gate.view(), .up = up.view(), .y = y.view()});
  return y;
}

void SwigluBackward(const Tensor& dy, Tensor* gate, Tensor* up) {
  CheckSame(*gate, *up);
  CheckSame(dy, *gate);
  BackendOf(dy).swiglu_backward(QueueOf(dy), {.dy = dy.view(),
                                              .gate = gate->view(),
                                              .up = up->view(),
                                              .dgate = gate->view(),
                                              .dup = up->view()});
}

Tensor Gelu(const Tensor& x, int64_t room) {
  Tensor y = LikeWithRoom(x, x.rows(), x.cols(), room);
  BackendOf(x).gelu(QueueOf(x), {.x = x.view(), .y = y.view()});
  return y;
}

void GeluBackward(const Tensor& dy, Tensor* x) {
  CheckSame(dy, *x);
  BackendOf(dy).gelu_backward(
      QueueOf(dy), {.dy = dy.view(), .x = x->view(), .dx = x->view()});
}

namespace {

void CheckAttention(const Tensor& q, const Tensor& k, const Tensor& v,
                    absl::Span<const Segment> segments,
                    const AttentionShape& shape) {
  CheckSame(k, v);
  CHECK_EQ(q.dtype(), k.dtype());
  CHECK_EQ(q.cols() % shape.head_dim, 0);
  CHECK_EQ(k.cols() % shape.head_dim, 0);
  CHECK_EQ(q.cols() % k.cols(), 0) << "heads per key/value head";
  for (const Segment& s : segments) {
    CHECK(0 <= s.first_query && s.first_query + s.num_queries <= q.rows());
    CHECK(0 <= s.first_key && s.first_key + s.num_keys <= k.rows());
    CHECK_LE(s.num_queries, s.num_keys);
  }
}

AttentionArgs AttentionArgsOf(const Tensor& q, const Tensor& k, const Tensor& v,
                              const AttentionResult& result,
                              absl::Span<const Segment> segments,
                              const AttentionShape& shape) {
  return {.q = q.view(),
          .k = k.view(),
          .v = v.view(),
          .out = result.out.view(),
          .lse = result.lse.view(),
          .segments = ArrayOf(segments),
          .head_dim = shape.head_dim,
          .scale = shape.scale};
}

}  // namespace

AttentionResult Attention(const Tensor& q, const Tensor& k, const Tensor& v,
                          absl::Span<const Segment> segments,
                          const AttentionShape& shape, int64_t room) {
  CheckAttention(q, k, v, segments, shape);
  AttentionResult result = {
      .out = LikeWithRoom(q, q.rows(), q.cols(), room),
      .lse = Tensor::Empty(q.device(), {q.cols() / shape.head_dim, q.rows()},
                           DType::kF32)};
  BackendOf(q).attention(QueueOf(q),
                         AttentionArgsOf(q, k, v, result, segments, shape));
  return result;
}

namespace {

// Assigns the gradients.
void RunAttentionBackward(const Tensor& dout, const Tensor& q, const Tensor& k,
                          const Tensor& v, const AttentionResult& result,
                          absl::Span<const Segment> segments,
                          const AttentionShape& shape,
                          const AttentionGrads& grads) {
  CheckAttention(q, k, v, segments, shape);
  CheckSame(dout, result.out);
  CHECK_EQ(q.rows(), k.rows()) << "a gradient of cached keys";
  BackendOf(q).attention_backward(
      QueueOf(q), {.forward = AttentionArgsOf(q, k, v, result, segments, shape),
                   .dout = dout.view(),
                   .dq = grads.dq.view(),
                   .dk = grads.dk.view(),
                   .dv = grads.dv.view()});
}

}  // namespace

AttentionGrads AttentionBackward(const Tensor& dout, const Tensor& q,
                                 const Tensor& k, const Tensor& v,
                                 const AttentionResult& result,
                                 absl::Span<const Segment> segments,
                                 const AttentionShape& shape, int64_t room) {
  const std::vector<Tensor> dqkv =
      SideBySide(q, q.rows(), {{q.cols(), k.cols(), v.cols()}}, room);
  const AttentionGrads grads = {.dq = dqkv[0], .dk = dqkv[1], .dv = dqkv[2]};
  RunAttentionBackward(dout, q, k, v, result, segments, shape, grads);
  return grads;
}

Tensor FusedAttentionBackward(const Tensor& dout, const Tensor& q,
                              const Tensor& k, const Tensor& v,
                              const AttentionResult& result,
                              absl::Span<const Segment> segments,
                              const AttentionShape& shape, int64_t room) {
  const int64_t values = q.cols() + k.cols();
  const int64_t end = values + v.cols();
  Tensor dqkv = LikeWithRoom(q, q.rows(), end, room);
  RunAttentionBackward(dout, q, k, v, result, segments, shape,
                       {.dq = dqkv.Cols({0, q.cols()}),
                        .dk = dqkv.Cols({q.cols(), values}),
                        .dv = dqkv.Cols({values, end})});
  return dqkv;
}

Tensor GatherRows(const Tensor& table, const Tensor& ids, int64_t first_row) {
  CHECK_EQ(ids.dtype(), DType::kI32);
  Tensor y =
      LikeWithRoom(table, ids.elements(), table.cols(), table.spare_cols());
  BackendOf(table).gather_rows(QueueOf(table), {.table = table.view(),
                                                .ids = ids.view(),
                                                .y = y.view(),
                                                .first_row = first_row});
  return y;
}

Tensor ScatterRows(const Tensor& x, const Tensor& ids, int64_t rows) {
  CheckShape(ids, {x.rows()}, DType::kI32);
  Tensor y = LikeWithRoom(x, rows, x.cols(), x.spare_cols());
  BackendOf(x).scatter_rows(QueueOf(x),
                            {.x = x.view(), .ids = ids.view(), .y = y.view()});
  return y;
}

namespace {

void ApplyDropout(const Tensor& x, const DropoutMask& mask, Update update,
                  Tensor* y) {
  CheckSame(x, *y);
  CheckShape(mask.row_index, {x.rows()}, DType::kI64);
  CHECK_LE(mask.first_col + x.cols(), mask.row_elements);
  BackendOf(x).dropout(QueueOf(x), {.x = x.view(),
                                    .y = y->view(),
                                    .row_index = mask.row_index.view(),
                                    .field = mask.field,
                                    .row_elements = mask.row_elements,
                                    .first_col = mask.first_col,
                                    .p = mask.p,
                                    .update = update});
}

}  // namespace

Tensor Dropout(const Tensor& x, const DropoutMask& mask) {
  Tensor y = Like(x);
  ApplyDropout(x, mask, Update::kAssign, &y);
  return y;
}

void DropoutBackward(const Tensor& dy, const DropoutMask& mask, Tensor* dx) {
  ApplyDropout(dy, mask, Update::kAdd, dx);
}

KeptExps LogitStats(const Tensor& h, const HeadSlice& head,
                    const Tensor& targets, KeepExps keep, Tensor* stats) {
  CHECK(h.dense() && head.weight.dense());
  CHECK_EQ(h.dtype(), head.weight.dtype());
  CHECK_EQ(h.cols(), head.weight.cols());
  CheckShape(targets, {h.rows()}, DType::kI32);
  CheckShape(*stats, {3, h.rows()}, DType::kF32);
  const int64_t tile = BackendOf(h).logit_tile;
  KeptExps kept;
  if (keep == KeepExps::kYes) {
    const int64_t vocab = head.weight.rows();
    const int64_t tiles = (vocab + tile - 1) / tile;
    kept.exps = Like(h, h.rows(), vocab);
    kept.tile_max = Tensor::Empty(h.device(), {tiles, h.rows()}, DType::kF32);
  }
  BackendOf(h).logit_stats(QueueOf(h), {.h = h.view(),
                                        .weight = head.weight.view(),
                                        .targets = targets.view(),
                                        .stats = stats->view(),
                                        .exps = kept.exps.view(),
                                        .tile_max = kept.tile_max.view(),
                                        .first_vocab = head.first_vocab,
                                        .tile = tile});
  return kept;
}

void MergeLogitStats(const Tensor& slices, Tensor* stats) {
  CHECK_EQ(slices.dtype(), DType::kF32);
  CHECK_EQ(slices.rows() % 3, 0);
  CheckShape(*stats, {3, slices.cols()}, DType::kF32);
  BackendOf(slices).merge_logit_stats(
      QueueOf(slices), {.slices = slices.view(), .stats = stats->view()});
}

void LogitGrad(const KeptExps& kept, const Tensor& stats, const HeadSlice& head,
               const Tensor& targets, float scale, const Tensor& times,
               Tensor* dh) {
  if (times.present()) CheckShape(times, {1}, DType::kF32);
  CHECK(kept.exps.present());
  CheckShape(stats, {3, kept.exps.rows()}, DType::kF32);
  CHECK_EQ(dh->shape(), (Shape{kept.exps.rows(), head.weight.cols()}));
  CHECK(dh->dtype() == DType::kF32 || dh->dtype() == kept.exps.dtype());
  BackendOf(*dh).logit_grad(QueueOf(*dh), {.exps = kept.exps.view(),
                                           .tile_max = kept.tile_max.view(),
                                           .stats = stats.view(),
                                           .targets = targets.view(),
                                           .weight = head.weight.view(),
                                           .dh = dh->view(),
                                           .times = times.view(),
                                           .scale = scale,
                                           .first_vocab = head.first_vocab,
                                           .tile = BackendOf(*dh).logit_tile});
}

// The bias corrections are taken in double, as 1 - beta^step cancels.
AdamWNumbers NumbersOf(const AdamWStep& step) {
  const auto steps = static_cast<double>(step.step);
  const double correction1 = 1.0 - std::pow(double{step.beta1}, steps);
  const double correction2 = 1.0 - std::pow(double{step.beta2}, steps);
  return {.grad_scale = step.grad_scale,
          .beta1 = step.beta1,
          .beta2 = step.beta2,
          .epsilon = step.epsilon,
          .rate = static_cast<float>(step.learning_rate / correction1),
          .root = static_cast<float>(1.0 / std::sqrt(correction2)),
          .value_scale = 1.0f - step.learning_rate * step.weight_decay};
}

void AdamW(const Tensor& numbers, const Tensor& grad, Tensor* value, Tensor* m,
           Tensor* v) {
  for (const Tensor* t : std::initializer_list<const Tensor*>{&grad, m, v}) {
    CheckSame(*t, *value);
    CHECK(t->dense());
  }
  CHECK_EQ(value->dtype(), DType::kF32);
  CheckShape(numbers, kAdamWNumbersShape, DType::kF32);
  BackendOf(grad).adamw(QueueOf(grad), {.value = value->view(),
                                        .grad = grad.view(),
                                        .m = m->view(),
                                        .v = v->view(),
                                        .numbers = numbers.view()});
}

}  // namespace lorica::ops
