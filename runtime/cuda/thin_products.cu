#include <algorithm>
#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/tiles.cuh"

// Products of BF16 matrices with one side of at most kMaxThin, as adapters of
// low rank bring them. They are bound by reading the other operand once, which
// a block does by tiles of 64 x 64 while it multiplies the tile before.

namespace lorica::cuda {
namespace {

constexpr int kSide = kTileRows;
constexpr int kThinTile = kTileElements<kSide>;
// Fewer rows, as in generation, leave most of the device idle unless the depth
// is cut, which the product library does.
constexpr int64_t kFewestRows = kWarpRows;
// Blocks that a product is cut for, whatever the device, so that a sum's order
// is a function of the shapes.
constexpr int64_t kWantedBlocks = 256;

// sum [16, kN] += a b: 16 rows of `a`, 64 rows of `b`.
template <int kN>
__device__ __forceinline__ void MultiplyTilesNN(const bf16* a, const bf16* b,
                                                float (&sum)[kN / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int k = 0; k < kSide; k += 16) {
    uint32_t left[4];
    LoadMatrices(left, At<kSide>(a, lane % 16, k + lane / 16 * 8));
#pragma unroll
    for (int n = 0; n < kN; n += 16) {
      uint32_t right[4];
      LoadMatricesTransposed(right,
                             At<kSide>(b, k + lane % 16, n + lane / 16 * 8));
      MmaBf16(sum[n / 8], left, right[0], right[1]);
      MmaBf16(sum[n / 8 + 1], left, right[2], right[3]);
    }
  }
}

// sum [16, kN] += a' b: 16 columns of `a`, 64 rows of both.
template <int kN>
__device__ __forceinline__ void MultiplyTilesTN(const bf16* a, const bf16* b,
                                                float (&sum)[kN / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int k = 0; k < kSide; k += 16) {
    uint32_t left[4];
    LoadMatricesTransposed(
        left, At<kSide>(a, k + lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8));
#pragma unroll
    for (int n = 0; n < kN; n += 16) {
      uint32_t right[4];
      LoadMatricesTransposed(right,
                             At<kSide>(b, k + lane % 16, n + lane / 16 * 8));
      MmaBf16(sum[n / 8], left, right[0], right[1]);
      MmaBf16(sum[n / 8 + 1], left, right[2], right[3]);
    }
  }
}

// Starts to copy kRows rows from `row` on, 64 columns from `col` on; what lies
// past the matrix becomes zero.
template <int kRows>
__device__ __forceinline__ void StartPart(bf16* tile, const View& matrix,
                                          int64_t row, int64_t col,
                                          int64_t end_row) {
  StartTile<kSide, kRows>(
      tile, static_cast<int>(min(int64_t{kRows}, end_row - row)),
      static_cast<int>(min(int64_t{kSide}, matrix.cols - col)),
      TileAccess::kPacked,
      [&](int r) { return matrix.Row<const bf16>(row + r) + col; });
}

// Calls body(row, col, value) for this thread's sums of a warp's 16 rows.
template <int kN, typename Body>
__device__ __forceinline__ void ForSums(const float (&sum)[kN / 8][4],
                                        const Body& body) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * kWarpRows;
#pragma unroll
  for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      body(warp_row + lane / 4 + i / 2 * 8, n * 8 + lane % 4 * 2 + i % 2,
           sum[n][i]);
    }
  }
}

// y = or += scale a b, with few columns: a block takes 64 rows.
template <MatmulForm kForm, int kN, typename T>
__global__ void __launch_bounds__(kTileThreads)
    ThinColumnsKernel(const __grid_constant__ MatmulArgs args) {
  auto* tiles = reinterpret_cast<bf16*>(DynamicShared());  // a and b, twice.
  const int64_t first_row = int64_t{blockIdx.x} * kSide;
  const int64_t depth = args.a.cols;
  const auto steps = static_cast<int>((depth + kSide - 1) / kSide);
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * kWarpRows;
  const auto start_step = [&](int step) {
    bf16* to = tiles + step % 2 * 2 * kThinTile;
    const int64_t k = int64_t{step} * kSide;
    StartPart<kSide>(to, args.a, first_row, k, args.a.rows);
    if constexpr (kForm == MatmulForm::kNT) {
      StartPart<kN>(to + kThinTile, args.b, 0, k, args.b.rows);
    } else {
      StartPart<kSide>(to + kThinTile, args.b, k, 0, depth);
    }
  };
  float sum[kN / 8][4] = {};
  start_step(0);
  CommitCopies();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) start_step(step + 1);
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();
    const bf16* a =
        tiles + step % 2 * 2 * kThinTile + warp_row * kTileStride<kSide>;
    const bf16* b = tiles + step % 2 * 2 * kThinTile + kThinTile;
    if constexpr (kForm == MatmulForm::kNT) {
      MultiplyNT<kSide, kN>(a, b, sum);
    } else {
      MultiplyTilesNN<kN>(a, b, sum);
    }
    __syncthreads();
  }
  ForSums<kN>(sum, [&](int row, int col, float value) {
    if (first_row + row >= args.y.rows || col >= args.y.cols) return;
    T* to = args.y.Row<T>(first_row + row) + col;
    value *= args.scale;
    if (args.update == Update::kAdd) value += LoadOne(to);
    StoreOne(value, to);
  });
}

// A product a' b cut along its depth.
struct ThinGrad {
  View wide;  // [T, W]
  View thin;  // [T, S]
  View to;    // y, or of several parts [parts * rows of y, cols of y] F32.
  int64_t part_depth;
  bool wide_is_row;  // Of y; else its columns.
  float scale;
  Update update;
};

// A block takes 64 columns of the wide operand and a part of the depth.
template <int kN>
__global__ void __launch_bounds__(kTileThreads)
    ThinGradKernel(const __grid_constant__ ThinGrad grad) {
  auto* tiles = reinterpret_cast<bf16*>(DynamicShared());
  const int64_t first_col = int64_t{blockIdx.x} * kSide;
  const int64_t begin = int64_t{blockIdx.y} * grad.part_depth;
  const int64_t end = min(grad.wide.rows, begin + grad.part_depth);
  const auto steps = static_cast<int>((end - begin + kSide - 1) / kSide);
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * kWarpRows;
  const auto start_step = [&](int step) {
    bf16* to = tiles + step % 2 * 2 * kThinTile;
    const int64_t k = begin + int64_t{step} * kSide;
    StartPart<kSide>(to, grad.wide, k, first_col, end);
    StartPart<kSide>(to + kThinTile, grad.thin, k, 0, end);
  };
  float sum[kN / 8][4] = {};
  start_step(0);
  CommitCopies();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) start_step(step + 1);
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();
    const bf16* wide = tiles + step % 2 * 2 * kThinTile;
    MultiplyTilesTN<kN>(wide + warp_row, wide + kThinTile, sum);
    __syncthreads();
  }
  const int64_t y_rows = grad.wide_is_row ? grad.wide.cols : grad.thin.cols;
  ForSums<kN>(sum, [&](int row, int col, float value) {
    const int64_t w = first_col + row;
    if (w >= grad.wide.cols || col >= grad.thin.cols) return;
    const int64_t row_of_y = grad.wide_is_row ? w : col;
    float* to = grad.to.Row<float>(int64_t{blockIdx.y} * y_rows + row_of_y) +
                (grad.wide_is_row ? col : w);
    value *= grad.scale;
    *to = grad.update == Update::kAdd ? *to + value : value;
  });
}

// y = or += scale times the sum of the parts, first to last.
struct SumPartsOp {
  View y;
  View partial;
  int64_t parts;
  float scale;
  Update update;

  template <int kN>
  __device__ void Apply(int64_t row, int64_t col) const {
    Pack<kN> sum = {};
    for (int64_t part = 0; part < parts; ++part) {
      const Pack<kN> term =
          Load<kN>(partial.Row<const float>(part * y.rows + row) + col);
      for (int i = 0; i < kN; ++i) sum.v[i] += term.v[i];
    }
    float* to = y.Row<float>(row) + col;
    Pack<kN> before = {};
    if (update == Update::kAdd) before = Load<kN>(to);
    for (int i = 0; i < kN; ++i) sum.v[i] = before.v[i] + scale * sum.v[i];
    Store(sum, to);
  }
};

// Calls body.template operator()<kN>() with the narrowest tile of `thin`.
template <typename Body>
void DispatchThin(int64_t thin, const Body& body) {
  if (thin <= 16) {
    body.template operator()<16>();
  } else if (thin <= 32) {
    body.template operator()<32>();
  } else {
    body.template operator()<64>();
  }
}

constexpr size_t kThinSharedBytes = 4 * kThinTile * sizeof(bf16);

int64_t RoundUpDiv(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

void ThinColumns(Queue* queue, const MatmulArgs& args) {
  const LaunchShape shape = {
      .grid = dim3(static_cast<unsigned>(RoundUpDiv(args.y.rows, kSide))),
      .block = dim3(kTileThreads),
      .shared_bytes = kThinSharedBytes};
  DispatchFloat(args.y.dtype, [&]<typename T>() {
    DispatchThin(args.y.cols, [&]<int kN>() {
      if (args.form == MatmulForm::kNT) {
        Launch(queue, shape, ThinColumnsKernel<MatmulForm::kNT, kN, T>, args);
      } else {
        Launch(queue, shape, ThinColumnsKernel<MatmulForm::kNN, kN, T>, args);
      }
    });
  });
}

void ThinGradient(Queue* queue, const MatmulArgs& args) {
  const bool wide_is_row = args.y.rows > args.y.cols;
  const View& wide = wide_is_row ? args.a : args.b;
  const View& thin = wide_is_row ? args.b : args.a;
  const int64_t blocks = RoundUpDiv(wide.cols, kSide);
  const int64_t depth_tiles = RoundUpDiv(wide.rows, kSide);
  const int64_t wanted = std::max<int64_t>(1, kWantedBlocks / blocks);
  const int64_t part_tiles = RoundUpDiv(depth_tiles, wanted);
  const int64_t parts = RoundUpDiv(depth_tiles, part_tiles);
  ThinGrad grad = {.wide = wide,
                   .thin = thin,
                   .to = args.y,
                   .part_depth = part_tiles * kSide,
                   .wide_is_row = wide_is_row,
                   .scale = args.scale,
                   .update = args.update};
  if (parts > 1) {
    grad.to = {ScratchFor(queue, ScratchUse::kPartials,
                          static_cast<size_t>(parts * args.y.elements()) *
                              sizeof(float)),
               DType::kF32, parts * args.y.rows, args.y.cols, args.y.cols};
    grad.scale = 1.0f;
    grad.update = Update::kAssign;
  }
  DispatchThin(thin.cols, [&]<int kN>() {
    Launch(queue,
           {.grid = dim3(static_cast<unsigned>(blocks),
                         static_cast<unsigned>(parts)),
            .block = dim3(kTileThreads),
            .shared_bytes = kThinSharedBytes},
           ThinGradKernel<kN>, grad);
  });
  if (parts == 1) return;
  DispatchPack({args.y, grad.to}, [&]<int kN>() {
    ForPacks<kN>(queue, args.y.rows, args.y.cols,
                 SumPartsOp{args.y, grad.to, parts, args.scale, args.update});
  });
}

}  // namespace

bool IsThin(const MatmulArgs& args) {
  if (args.a.dtype != DType::kBF16 || !IsPacked(args.a) || !IsPacked(args.b) ||
      args.a.elements() == 0 || args.b.elements() == 0 ||
      args.bias.present()) {
    return false;
  }
  if (args.form == MatmulForm::kTN) {
    return args.y.dtype == DType::kF32 &&
           std::min(args.y.rows, args.y.cols) <= kMaxThin;
  }
  return args.y.cols <= kMaxThin && args.y.rows >= kFewestRows;
}

void ThinMatmul(Queue* queue, const MatmulArgs& args) {
  if (args.form == MatmulForm::kTN) {
    ThinGradient(queue, args);
  } else {
    ThinColumns(queue, args);
  }
}

}  // namespace lorica::cuda
