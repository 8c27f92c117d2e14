#include "model/layers/loss.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/check.h"
#include "runtime/trace.h"

namespace lorica {
namespace {

// Of the rows of h, as many as its device takes at a time.
std::vector<Range> Chunks(const Tensor& h) {
  const int64_t rows = h.rows();
  const int64_t most = h.device()->backend().loss_rows;
  CHECK_GT(most, 0);
  std::vector<Range> chunks;
  for (int64_t begin = 0; begin < rows; begin += most) {
    chunks.push_back({begin, std::min(begin + most, rows)});
  }
  return chunks;
}

}  // namespace

RowLosses::RowLosses(Device* device, std::vector<int32_t> targets)
    : targets_(std::move(targets)),
      stats_(Tensor::Empty(device, {3, std::ssize(targets_)}, DType::kF32)) {}

std::vector<double> RowLosses::Read() const {
  const std::vector<float> stats = stats_.ToHost<float>();
  const size_t rows = targets_.size();
  std::vector<double> losses;
  for (size_t i = 0; i < rows; ++i) {
    const double max = stats[i];
    const double sum = stats[rows + i];
    const double target = stats[2 * rows + i];
    losses.push_back(targets_[i] < 0 ? 0.0 : max + std::log(sum) - target);
  }
  return losses;
}

LossHead::LossHead(Norm norm, ops::HeadSlice head, const LinearPlan& plan,
                   Communicator* group)
    : norm_(std::move(norm)),
      head_(std::move(head)),
      plan_(plan),
      group_(group) {}

// The gradient wants the merged statistics while the chunk's exponentials are
// at hand, so they are gathered chunk by chunk: 12 bytes a row and rank, beside
// 4 sums of [T, H] a layer. One gather a pass would keep the exponentials of
// all its rows.
ops::KeptExps LossHead::Stats(const Tensor& h, const Tensor& targets,
                              ops::KeepExps keep, Tensor* stats) const {
  if (group_->size() == 1) {
    return ops::LogitStats(h, head_, targets, keep, stats);
  }
  Tensor slice = Tensor::Empty(h.device(), stats->shape(), stats->dtype());
  ops::KeptExps kept = ops::LogitStats(h, head_, targets, keep, &slice);
  const std::vector<int64_t> rows(static_cast<size_t>(group_->size()),
                                  slice.rows());
  ops::MergeLogitStats(group_->AllGatherRows(slice, rows, Purpose::kLoss),
                       stats);
  return kept;
}

void LossHead::Losses(const Stream& in, const Tensor& targets,
                      RowLosses* losses) const {
  const Span span(SpanKind::kLayer, "head", "forward");
  Tensor h = norm_.Forward(in.x, in.delta).y;
  h = Redistribute(std::move(h), plan_.input, targets.elements(), *group_,
                   Purpose::kActivation);
  for (const Range& rows : Chunks(h)) {
    Tensor stats = losses->StatsOf(rows);
    Stats(h.Rows(rows), targets.Cols(rows), ops::KeepExps::kNo, &stats);
  }
}

Tensor LossHead::LossesAndGrad(const Stream& in, const Tensor& targets,
                               float scale, const Tensor& times, int64_t room,
                               RowLosses* losses) const {
  const Span span(SpanKind::kLayer, "head", "both");
  const Norm::Result norm = norm_.Forward(in.x, in.delta);
  const Tensor h = Redistribute(norm.y, plan_.input, targets.elements(),
                                *group_, Purpose::kActivation);
  Tensor dh = Tensor::Empty(h.device(), h.shape(), h.dtype());
  for (const Range& rows : Chunks(h)) {
    const Tensor chunk_targets = targets.Cols(rows);
    Tensor stats = losses->StatsOf(rows);
    const ops::KeptExps kept =
        Stats(h.Rows(rows), chunk_targets, ops::KeepExps::kYes, &stats);
    Tensor dh_rows = dh.Rows(rows);
    ops::LogitGrad(kept, stats, head_, chunk_targets, scale, times, &dh_rows);
  }
  dh = RedistributeGrad(std::move(dh), plan_.input, targets.elements(), *group_,
                        Purpose::kActivationGrad);
  Tensor dstream = Tensor::WithRoom(norm.sum.device(), norm.sum.shape(),
                                    norm.sum.dtype(), room);
  norm_.Backward(dh, norm.sum, norm.stats, Update::kAssign, &dstream);
  return dstream;
}

Tensor LossHead::Logits(const Stream& in) const {
  const Span span(SpanKind::kLayer, "head", "forward");
  Tensor h = norm_.Forward(in.x, in.delta).y;
  const int64_t count = h.rows();
  h = Redistribute(std::move(h), plan_.input, count, *group_,
                   Purpose::kActivation);
  Tensor logits =
      Tensor::Empty(h.device(), {h.rows(), head_.weight.rows()}, DType::kF32);
  ops::Matmul(MatmulForm::kNT, h, head_.weight, 1.0f, Update::kAssign, &logits);
  if (group_->size() == 1) return logits;
  // Slices of the vocabulary lie beside each other: gathered as bytes and put
  // in place on the host.
  const std::vector<float> local = logits.ToHost<float>();
  const std::vector<std::string> all = group_->AllGatherBytes(
      std::string(reinterpret_cast<const char*>(local.data()),
                  local.size() * sizeof(float)),
      Purpose::kLoss);
  int64_t vocab = 0;
  for (const std::string& part : all) {
    vocab += static_cast<int64_t>(part.size() / sizeof(float)) / h.rows();
  }
  std::vector<float> whole(static_cast<size_t>(h.rows() * vocab));
  int64_t first = 0;
  for (const std::string& part : all) {
    const float* values = reinterpret_cast<const float*>(part.data());
    const int64_t cols =
        static_cast<int64_t>(part.size() / sizeof(float)) / h.rows();
    for (int64_t row = 0; row < h.rows(); ++row) {
      std::copy_n(values + row * cols, cols,
                  whole.begin() + row * vocab + first);
    }
    first += cols;
  }
  return Tensor::FromHost<float>(h.device(), {h.rows(), vocab}, whole);
}

}  // namespace lorica
