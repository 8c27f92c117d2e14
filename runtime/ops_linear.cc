// Products and linear layers.
#include <numeric>
#include <utility>
#include <vector>

#include "runtime/check.h"
#include "runtime/op_args.h"
#include "runtime/ops.h"

namespace lorica::ops {

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

namespace {

// Checks all parts against the layer's inputs `x`, or gradients of them, and
// the stacked ranks: those of one part follow those of the part before, and
// together they are all rows of `a`.
void CheckParts(absl::Span<const LinearPart> parts, const Tensor& like,
                int64_t inputs, const Tensor& a) {
  int64_t ranks = 0;
  for (const LinearPart& part : parts) {
    CHECK_EQ(part.weight.dtype(), like.dtype());
    CHECK_EQ(part.weight.cols(), inputs);
    if (part.bias.present()) {
      CheckShape(part.bias, {part.weight.rows()}, like.dtype());
    }
    if (!part.b.present()) continue;
    CHECK_EQ(part.first_rank, ranks);
    CheckShape(part.b, {part.weight.rows(), part.b.cols()}, like.dtype());
    ranks += part.b.cols();
  }
  CHECK_EQ(ranks, a.present() ? a.rows() : int64_t{0});
}

// Checks db: [O, R] without the spare ranks, which are the last of all.
void CheckFactorGrad(const LinearPart& part, const Tensor& a,
                     const Tensor& da) {
  const bool last = part.first_rank + part.b.cols() == a.rows();
  const int64_t spare = last ? a.rows() - da.rows() : int64_t{0};
  CheckShape(part.db, {part.b.rows(), part.b.cols() - spare}, DType::kF32);
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
  CheckParts(parts, x, x.cols(), a);
  std::vector<int64_t> outputs;
  for (const LinearPart& part : parts) outputs.push_back(part.weight.rows());
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
  CheckParts(parts, like, inputs, a);
  LoraBackwardResult result;
  Tensor dxa;
  if (a.present()) {
    CheckShape(a, {a.rows(), inputs}, like.dtype());
    CheckShape(adapter_x, {like.rows(), inputs}, like.dtype());
    CheckShape(xa, {like.rows(), a.rows()}, like.dtype());
    CheckShape(*da, {da->rows(), inputs}, DType::kF32);
    CHECK(0 < da->rows() && da->rows() <= a.rows())
        << da->rows() << " of " << a.rows();
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
    CheckShape(dy[i], {like.rows(), parts[i].weight.rows()}, like.dtype());
    if (parts[i].b.present()) CheckFactorGrad(parts[i], a, *da);
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

}  // namespace lorica::ops
