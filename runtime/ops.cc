#include "runtime/ops.h"

#include <cstring>
#include <initializer_list>
#include <numeric>
#include <utility>
#include <vector>

#include "runtime/check.h"

namespace lorica::ops {
namespace {

const Backend& BackendOf(const Tensor& t) { return t.device()->backend(); }
Queue* QueueOf(const Tensor& t) { return t.device()->queue(); }

bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16;
}

Tensor Like(const Tensor& t, int64_t rows, int64_t cols) {
  return Tensor::Empty(t.device(), {rows, cols}, t.dtype());
}

Tensor LikeWithRoom(const Tensor& t, int64_t rows, int64_t cols, int64_t room) {
  return Tensor::WithRoom(t.device(), {rows, cols}, t.dtype(), room);
}

Tensor Like(const Tensor& t) {
  return Tensor::Empty(t.device(), t.shape(), t.dtype());
}

void CheckSame(const Tensor& a, const Tensor& b) {
  CHECK_EQ(a.shape(), b.shape());
  CHECK_EQ(a.dtype(), b.dtype());
  CHECK(a.device() == b.device());
}

void CheckShape(const Tensor& t, Shape shape, DType dtype) {
  CHECK(t.present());
  CHECK_EQ(t.shape(), shape);
  CHECK_EQ(t.dtype(), dtype);
}

}  // namespace

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

double SquaredNorm(const Tensor& x) {
  CHECK_EQ(x.dtype(), DType::kF32);
  CHECK(x.dense());
  double result = 0.0;
  BackendOf(x).squared_norm(QueueOf(x), x.view(), &result);
  x.device()->Synchronize();
  return result;
}

void Matmul(MatmulForm form, const Tensor& a, const Tensor& b, float scale,
            Update update, Tensor* y) {
  const int64_t m = form == MatmulForm::kTN ? a.cols() : a.rows();
  const int64_t k = form == MatmulForm::kTN ? a.rows() : a.cols();
  const int64_t n = form == MatmulForm::kNT ? b.rows() : b.cols();
  const int64_t b_k = form == MatmulForm::kNT ? b.cols() : b.rows();
  CHECK_EQ(k, b_k) << a.shape() << " and " << b.shape();
  CHECK_EQ(y->rows(), m);
  CHECK_EQ(y->cols(), n);
  CHECK_EQ(a.dtype(), b.dtype());
  CHECK(y->dtype() == a.dtype() || y->dtype() == DType::kF32);
  BackendOf(a).matmul(QueueOf(a), {.form = form,
                                   .a = a.view(),
                                   .b = b.view(),
                                   .y = y->view(),
                                   .scale = scale,
                                   .update = update});
}

Tensor MatmulNN(const Tensor& a, const Tensor& b) {
  Tensor y = Like(a, a.rows(), b.cols());
  Matmul(MatmulForm::kNN, a, b, 1.0f, Update::kAssign, &y);
  return y;
}

Tensor MatmulNT(const Tensor& a, const Tensor& b) {
  Tensor y = Like(a, a.rows(), b.rows());
  Matmul(MatmulForm::kNT, a, b, 1.0f, Update::kAssign, &y);
  return y;
}

Tensor MatmulTN(const Tensor& a, const Tensor& b) {
  Tensor y = Like(a, a.cols(), b.cols());
  Matmul(MatmulForm::kTN, a, b, 1.0f, Update::kAssign, &y);
  return y;
}

namespace {

// Checks one part against the layer's input width and the stacked rank.
void CheckPart(const LinearPart& part, const Tensor& x, const Tensor& a) {
  CHECK_EQ(part.weight.dtype(), x.dtype());
  if (part.bias.present()) {
    CheckShape(part.bias, {part.weight.rows()}, x.dtype());
  }
  if (!part.b.present()) return;
  CHECK(a.present());
  CHECK_EQ(part.b.dtype(), x.dtype());
  CHECK_EQ(part.b.rows(), part.weight.rows());
  CHECK(0 <= part.first_rank && part.first_rank + part.b.cols() <= a.rows())
      << part.first_rank << " + " << part.b.cols() << " of " << a.rows();
}

lorica::LinearPart PartArgs(const LinearPart& part, const Tensor& y) {
  return {.weight = part.weight.view(),
          .bias = part.bias.view(),
          .y = y.view(),
          .b = part.b.view(),
          .db = part.db.view(),
          .first_rank = part.first_rank,
          .scale = part.scale};
}

// Beside `t` where there is room.
Tensor BesideOrApart(const Tensor& t, int64_t cols) {
  return t.spare_cols() >= cols ? t.Spare(cols) : Like(t, t.rows(), cols);
}

// Matrices that a linear layer multiplies as one where the device wants it:
// then side by side, with room beside the last.
std::vector<Tensor> SideBySide(const Tensor& like, int64_t rows,
                               absl::Span<const int64_t> cols, int64_t room) {
  std::vector<Tensor> matrices;
  if (cols.size() == 1 ||
      BackendOf(like).linear_layout == LinearLayout::kApart) {
    for (const int64_t n : cols) matrices.push_back(Like(like, rows, n));
    return matrices;
  }
  const int64_t total = std::accumulate(cols.begin(), cols.end(), int64_t{0});
  const Tensor whole = LikeWithRoom(like, rows, total, room);
  int64_t first = 0;
  for (const int64_t n : cols) {
    matrices.push_back(whole.Cols({first, first + n}));
    first += n;
  }
  return matrices;
}

template <typename T>
ArrayView<T> ArrayOf(const std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

template <typename T>
ArrayView<T> ArrayOf(absl::Span<const T> values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

}  // namespace

LoraForwardResult LoraForward(const Tensor& x, const Tensor& adapter_x,
                              const Tensor& a,
                              absl::Span<const LinearPart> parts) {
  LoraForwardResult result;
  if (a.present()) {
    CheckSame(x, adapter_x);
    CHECK_EQ(a.cols(), x.cols());
    CHECK_EQ(a.dtype(), x.dtype());
    result.xa = BesideOrApart(x, a.rows());
  }
  std::vector<int64_t> outputs;
  for (const LinearPart& part : parts) {
    CheckPart(part, x, a);
    CHECK_EQ(part.weight.cols(), x.cols());
    outputs.push_back(part.weight.rows());
  }
  result.y =
      SideBySide(x, x.rows(), outputs, a.present() ? a.rows() : int64_t{0});
  std::vector<lorica::LinearPart> args;
  for (size_t i = 0; i < parts.size(); ++i) {
    args.push_back(PartArgs(parts[i], result.y[i]));
  }
  BackendOf(x).lora_forward(QueueOf(x), {.x = x.view(),
                                         .adapter_x = adapter_x.view(),
                                         .a = a.view(),
                                         .xa = result.xa.view(),
                                         .parts = ArrayOf(args)});
  return result;
}

LoraBackwardResult LoraBackward(absl::Span<const Tensor> dy,
                                const Tensor& adapter_x, const Tensor& xa,
                                const Tensor& a, Tensor* da,
                                absl::Span<const LinearPart> parts,
                                InputGrad input_grad) {
  CHECK_EQ(dy.size(), parts.size());
  CHECK(!parts.empty());
  const Tensor& like = dy[0];
  const int64_t inputs = parts[0].weight.cols();
  LoraBackwardResult result;
  Tensor dxa;
  if (a.present()) {
    CheckShape(adapter_x, {like.rows(), inputs}, like.dtype());
    CheckShape(xa, {like.rows(), a.rows()}, like.dtype());
    CheckShape(*da, a.shape(), DType::kF32);
    dxa = BesideOrApart(dy.back(), a.rows());
  }
  if (input_grad != InputGrad::kNone) {
    result.dx = Like(like, like.rows(), inputs);
  }
  if (input_grad == InputGrad::kSeparate && a.present()) {
    result.adapter_dx = Like(like, like.rows(), inputs);
  }
  std::vector<lorica::LinearPart> args;
  for (size_t i = 0; i < parts.size(); ++i) {
    CheckPart(parts[i], like, a);
    CheckShape(dy[i], {like.rows(), parts[i].weight.rows()}, like.dtype());
    if (parts[i].b.present()) {
      CheckShape(parts[i].db, parts[i].b.shape(), DType::kF32);
    }
    args.push_back(PartArgs(parts[i], dy[i]));
  }
  BackendOf(like).lora_backward(QueueOf(like),
                                {.adapter_x = adapter_x.view(),
                                 .xa = xa.view(),
                                 .a = a.view(),
                                 .da = a.present() ? da->view() : View{},
                                 .dxa = dxa.view(),
                                 .dx = result.dx.view(),
                                 .adapter_dx = result.adapter_dx.view(),
                                 .parts = ArrayOf(args)});
  return result;
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

AttentionGrads AttentionBackward(const Tensor& dout, const Tensor& q,
                                 const Tensor& k, const Tensor& v,
                                 const AttentionResult& result,
                                 absl::Span<const Segment> segments,
                                 const AttentionShape& shape, int64_t room) {
  CheckAttention(q, k, v, segments, shape);
  CheckSame(dout, result.out);
  CHECK_EQ(q.rows(), k.rows()) << "a gradient of cached keys";
  const std::vector<Tensor> dqkv =
      SideBySide(q, q.rows(), {{q.cols(), k.cols(), v.cols()}}, room);
  const AttentionGrads grads = {.dq = dqkv[0], .dk = dqkv[1], .dv = dqkv[2]};
  BackendOf(q).attention_backward(
      QueueOf(q), {.forward = AttentionArgsOf(q, k, v, result, segments, shape),
                   .dout = dout.view(),
                   .dq = grads.dq.view(),
                   .dk = grads.dk.view(),
                   .dv = grads.dv.view()});
  return grads;
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

void AdamW(const AdamWArgs& hyper, const Tensor& grad, Tensor* value, Tensor* m,
           Tensor* v) {
  for (const Tensor* t : std::initializer_list<const Tensor*>{&grad, m, v}) {
    CheckSame(*t, *value);
    CHECK(t->dense());
  }
  CHECK_EQ(value->dtype(), DType::kF32);
  AdamWArgs args = hyper;
  args.value = value->view();
  args.grad = grad.view();
  args.m = m->view();
  args.v = v->view();
  BackendOf(grad).adamw(QueueOf(grad), args);
}

}  // namespace lorica::ops
