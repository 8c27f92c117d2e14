#include <cstdint>

#include "runtime/cpu/dispatch.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"
#include "runtime/cpu/queue.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {

// The span functions below work on n elements that lie side by side.

void FillSpan(View y, int64_t n, float value) {
  DispatchFloat(y.dtype, [&](auto t) HWY_ATTR {
    auto* to = y.As<decltype(t)>();
    const auto v = hn::Set(Floats(), value);
    ForVectors(
        n, [&](auto lanes, int64_t i) HWY_ATTR { Store(v, to + i, lanes); });
  });
}

void ConvertSpan(View x, float scale, View y, int64_t n) {
  DispatchFloat(x.dtype, [&](auto tx) HWY_ATTR {
    DispatchFloat(y.dtype, [&](auto ty) HWY_ATTR {
      const auto* from = x.As<decltype(tx)>();
      auto* to = y.As<decltype(ty)>();
      const auto factor = hn::Set(Floats(), scale);
      ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
        Store(hn::Mul(Load(from + i, lanes), factor), to + i, lanes);
      });
    });
  });
}

void AddSpan(View x, View y, int64_t n) {
  DispatchFloat(x.dtype, [&](auto tx) HWY_ATTR {
    DispatchFloat(y.dtype, [&](auto ty) HWY_ATTR {
      const auto* from = x.As<decltype(tx)>();
      auto* to = y.As<decltype(ty)>();
      ForVectors(n, [&](auto lanes, int64_t i) HWY_ATTR {
        const auto sum = hn::Add(Load(from + i, lanes), Load(to + i, lanes));
        Store(sum, to + i, lanes);
      });
    });
  });
}

double SquaresOfSpan(const float* x, int64_t n) {
  const hn::ScalableTag<double> doubles;
  const hn::Rebind<float, decltype(doubles)> floats;
  const auto step = static_cast<int64_t>(hn::Lanes(doubles));
  auto sum = hn::Zero(doubles);
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    const auto v = hn::PromoteTo(doubles, hn::LoadU(floats, x + i));
    sum = hn::MulAdd(v, v, sum);
  }
  double total = hn::GetLane(hn::SumOfLanes(doubles, sum));
  for (; i < n; ++i) total += double{x[i]} * double{x[i]};
  return total;
}

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(FillSpan);
HWY_EXPORT(ConvertSpan);
HWY_EXPORT(AddSpan);
HWY_EXPORT(SquaresOfSpan);

namespace {

// Elements per cache line of BF16, so that threads share no line.
constexpr int64_t kSpanGrain = 32;

// A squared norm is a sum over blocks of this many elements, whatever the
// number of threads.
constexpr int64_t kNormBlock = 8192;

View At(View v, int64_t row, int64_t col) {
  v.data = static_cast<char*>(v.data) +
           static_cast<size_t>(row * v.row_stride + col) * SizeOf(v.dtype);
  return v;
}

// Calls body(row, first column, columns) on spans of a matrix of y's shape:
// long ones where it is dense, its rows where it is not.
template <typename Body>
void ForSpans(const Queue& queue, View y, bool dense, const Body& body) {
  if (dense) {
    ParallelRanges(queue, y.elements(), kSpanGrain, y.elements(),
                   [&](Range r) { body(0, r.begin, r.size()); });
  } else {
    ParallelRows(queue, y.rows, y.cols, [&](Range rows) {
      for (int64_t row = rows.begin; row < rows.end; ++row) {
        body(row, 0, y.cols);
      }
    });
  }
}

}  // namespace

void Fill(Queue* queue, View y, float value) {
  ForSpans(*queue, y, y.dense(), [&](int64_t row, int64_t col, int64_t n) {
    HWY_DYNAMIC_DISPATCH(FillSpan)(At(y, row, col), n, value);
  });
}

void Convert(Queue* queue, View x, float scale, View y) {
  ForSpans(*queue, y, x.dense() && y.dense(),
           [&](int64_t row, int64_t col, int64_t n) {
             HWY_DYNAMIC_DISPATCH(ConvertSpan)
             (At(x, row, col), scale, At(y, row, col), n);
           });
}

void ScatterPieces(Queue* queue, const ScatterPiecesArgs& args) {
  const auto* pieces = args.pieces.As<const FlatPiece>();
  for (int64_t i = 0; i < args.pieces.rows; ++i) {
    const auto& [begin, scale, to] = pieces[i];
    const View from = {args.x.As<float>() + begin, DType::kF32, to.rows,
                       to.cols, to.cols};
    Convert(queue, from, scale, to);
  }
}

void Add(Queue* queue, View x, View y) {
  ForSpans(*queue, y, x.dense() && y.dense(),
           [&](int64_t row, int64_t col, int64_t n) {
             HWY_DYNAMIC_DISPATCH(AddSpan)
             (At(x, row, col), At(y, row, col), n);
           });
}

void SquaredNorm(Queue* queue, View x, View y) {
  const int64_t n = x.elements();
  const int64_t blocks = (n + kNormBlock - 1) / kNormBlock;
  double* partial = queue->ScratchFor<double>(ScratchUse::kPartials, blocks);
  const float* data = x.As<const float>();
  ParallelRanges(*queue, n, kNormBlock, n, [&](Range range) {
    for (int64_t i = range.begin; i < range.end; i += kNormBlock) {
      partial[i / kNormBlock] = HWY_DYNAMIC_DISPATCH(SquaresOfSpan)(
          data + i, std::min(kNormBlock, range.end - i));
    }
  });
  double& sum = *y.As<double>();
  sum = 0.0;
  for (int64_t i = 0; i < blocks; ++i) sum += partial[i];
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
