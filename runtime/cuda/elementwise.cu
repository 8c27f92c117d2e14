#include <algorithm>
#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"

namespace lorica::cuda {
namespace {

template <typename T>
struct FillOp {
  View y;
  float value;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    Pack<kN> pack;
    for (float& v : pack.v) v = value;
    Store(pack, y.Row<T>(row) + col);
  }
};

template <typename From, typename To>
struct ConvertOp {
  View x;
  float scale;
  View y;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    Pack<kN> pack = Load<kN>(x.Row<const From>(row) + col);
    for (float& v : pack.v) v *= scale;
    Store(pack, y.Row<To>(row) + col);
  }
};

template <typename From, typename To>
struct AddOp {
  View x;
  View y;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    const Pack<kN> term = Load<kN>(x.Row<const From>(row) + col);
    Pack<kN> sum = Load<kN>(y.Row<To>(row) + col);
    for (int i = 0; i < kN; ++i) sum.v[i] += term.v[i];
    Store(sum, y.Row<To>(row) + col);
  }
};

constexpr int64_t kPieceThreads = 256;
// Elements of a block of an average piece.
constexpr int64_t kPieceBlock = 4 * kWidePack * kPieceThreads;

// The rows of a piece one after another, cut in fewer than 2^31 packs, by the
// blocks of a column of the grid.
template <int kN, typename To>
__device__ __forceinline__ void ScatterPiece(const View& from, float scale,
                                             const View& to) {
  const auto packs_of_row = static_cast<uint32_t>((to.cols + kN - 1) / kN);
  const auto packs = static_cast<uint32_t>(to.rows) * packs_of_row;
  const auto step = static_cast<uint32_t>(gridDim.y * kPieceThreads);
  const ConvertOp<float, To> op = {from, scale, to};
  for (auto i = static_cast<uint32_t>(blockIdx.y * kPieceThreads + threadIdx.x);
       i < packs; i += step) {
    const uint32_t row = i / packs_of_row;
    ApplyPart<kN>(op, row, int64_t{i - row * packs_of_row} * kN, to.cols);
  }
}

// A column of the grid a piece.
template <typename To>
__global__ void __launch_bounds__(kPieceThreads)
    ScatterPiecesKernel(const View x, const FlatPiece* pieces) {
  const FlatPiece& piece = pieces[blockIdx.x];
  const View to = piece.to;
  const View from = {x.As<float>() + piece.begin, DType::kF32, to.rows, to.cols,
                     to.cols};
  if (HasAlignedRows(from) && HasAlignedRows(to)) {
    ScatterPiece<kWidePack, To>(from, piece.scale, to);
  } else {
    ScatterPiece<1, To>(from, piece.scale, to);
  }
}

constexpr int kNormThreads = 256;
// Elements per block of a squared norm, whatever the device.
constexpr int64_t kNormBlock = 32 * kNormThreads;

__global__ void __launch_bounds__(kNormThreads)
    SquaresKernel(const float* x, int64_t n, double* partials) {
  const int64_t first = int64_t{blockIdx.x} * kNormBlock;
  const int64_t end = first + kNormBlock < n ? first + kNormBlock : n;
  double sum = 0.0;
  for (int64_t i = first + int64_t{threadIdx.x} * kShortPack; i < end;
       i += kNormThreads * kShortPack) {
    const Pack<kShortPack> pack = LoadPart<kShortPack>(x + i, end - i);
    for (const float v : pack.v) {
      sum += static_cast<double>(v) * static_cast<double>(v);
    }
  }
  sum = BlockReduce(sum, Plus());
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// `terms` begin at a multiple of 16 bytes; a thread takes two at a time.
__global__ void __launch_bounds__(kNormThreads)
    SumKernel(const double* terms, int64_t n, double* result) {
  double sum = 0.0;
  for (int64_t i = int64_t{threadIdx.x} * 2; i < n; i += kNormThreads * 2) {
    if (i + 1 < n) {
      const double2 pair = *reinterpret_cast<const double2*>(terms + i);
      sum += pair.x;
      sum += pair.y;
    } else {
      sum += terms[i];
    }
  }
  sum = BlockReduce(sum, Plus());
  if (threadIdx.x == 0) *result = sum;
}

// Dense operands of one shape become long rows.
void Flatten(View* x, View* y) {
  if (!x->dense() || !y->dense()) return;
  *x = AsOneRow(*x);
  *y = AsOneRow(*y);
}

}  // namespace

void Fill(Queue* queue, View y, float value) {
  y = AsOneRow(y);
  DispatchFloat(y.dtype, [&]<typename T>() {
    DispatchPack({y}, [&]<int kN>() {
      ForPacks<kN>(queue, y.rows, y.cols, FillOp<T>{y, value});
    });
  });
}

void Convert(Queue* queue, View x, float scale, View y) {
  Flatten(&x, &y);
  DispatchFloat(x.dtype, [&]<typename From>() {
    DispatchFloat(y.dtype, [&]<typename To>() {
      DispatchPack({x, y}, [&]<int kN>() {
        ForPacks<kN>(queue, y.rows, y.cols, ConvertOp<From, To>{x, scale, y});
      });
    });
  });
}

void ScatterPieces(Queue* queue, const ScatterPiecesArgs& args) {
  const int64_t pieces = args.pieces.rows;
  const int64_t blocks = args.x.elements() / kPieceBlock;
  const int64_t each =
      std::clamp<int64_t>(blocks / std::max<int64_t>(pieces, 1), 1, 1024);
  DispatchFloat(args.dtype, [&]<typename T>() {
    Launch(queue,
           {.grid = dim3(static_cast<unsigned>(pieces),
                         static_cast<unsigned>(each)),
            .block = dim3(kPieceThreads)},
           ScatterPiecesKernel<T>, args.x, args.pieces.As<const FlatPiece>());
  });
}

void Add(Queue* queue, View x, View y) {
  Flatten(&x, &y);
  DispatchFloat(x.dtype, [&]<typename From>() {
    DispatchFloat(y.dtype, [&]<typename To>() {
      DispatchPack({x, y}, [&]<int kN>() {
        ForPacks<kN>(queue, y.rows, y.cols, AddOp<From, To>{x, y});
      });
    });
  });
}

void SquaredNorm(Queue* queue, View x, View y) {
  const int64_t n = x.elements();
  const int64_t blocks = (n + kNormBlock - 1) / kNormBlock;
  auto* partials = static_cast<double*>(ScratchFor(
      queue, ScratchUse::kPartials,
      static_cast<size_t>(std::max<int64_t>(blocks, 1)) * sizeof(double)));
  Launch(queue,
         {.grid = dim3(static_cast<unsigned>(blocks)),
          .block = dim3(kNormThreads)},
         SquaresKernel, x.As<const float>(), n, partials);
  Launch(queue, {.grid = dim3(1), .block = dim3(kNormThreads)}, SumKernel,
         partials, blocks, y.As<double>());
}

}  // namespace lorica::cuda
