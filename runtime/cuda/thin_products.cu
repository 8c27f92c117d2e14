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
constexpr size_t kThinSharedBytes = 4 * kThinTile * sizeof(bf16);
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

// How a warp's sums [16, kN] are turned into rows of y: as they are, or each
// column into a row.
enum class Turn : uint8_t { kNone, kTransposed };

// Calls body(row of y, column, pack) for the warp's sums, by way of shared
// memory that no warp reads any more: of columns [0, kN) where the sums' rows
// are y's, else of columns [0, 16). Rows and columns count from the warp's
// first.
template <Turn kTurn, int kN, typename Body>
__device__ __forceinline__ void ForPacksOfSums(const float (&sum)[kN / 8][4],
                                               void* shared,
                                               const Body& body) {
  constexpr bool kTurned = kTurn == Turn::kTransposed;
  constexpr int kRows = kTurned ? kN : kWarpRows;
  constexpr int kPacks = (kTurned ? kWarpRows : kN) / kWidePack;
  // Rows at multiples of 16 bytes such that neither side of the way has more
  // than two lanes at a bank.
  constexpr int kStride = kTurned ? kWarpRows + 4 : kN + 8;
  static_assert(kTileThreads / kWarp * kRows * kStride * sizeof(float) <=
                kThinSharedBytes);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  float* stage = static_cast<float*>(shared) + warp * kRows * kStride;
#pragma unroll
  for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8;
      const int col = n * 8 + lane % 4 * 2 + i % 2;
      stage[kTurned ? col * kStride + row : row * kStride + col] = sum[n][i];
    }
  }
  __syncwarp();
  for (int i = lane; i < kRows * kPacks; i += kWarp) {
    const int row = i / kPacks;
    const int col = i % kPacks * kWidePack;
    body(row, col, LoadWide(stage + row * kStride + col));
  }
}

// Of `count` elements at `to`.
template <typename T>
__device__ __forceinline__ void UpdatePart(Pack<kWidePack> pack, float scale,
                                           Update update, T* to,
                                           int64_t count) {
  for (float& v : pack.v) v *= scale;
  if (update == Update::kAdd) {
    const Pack<kWidePack> before = LoadPart<kWidePack>(to, count);
    for (int i = 0; i < kWidePack; ++i) pack.v[i] += before.v[i];
  }
  StorePart(pack, to, count);
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
  ForPacksOfSums<Turn::kNone, kN>(
      sum, tiles, [&](int r, int col, const Pack<kWidePack>& pack) {
        const int64_t row = first_row + warp_row + r;
        if (row >= args.y.rows || col >= args.y.cols) return;
        UpdatePart(pack, args.scale, args.update, args.y.Row<T>(row) + col,
                   args.y.cols - col);
      });
}

// A product a' b cut along its depth.
struct ThinGrad {
  View wide;  // [T, W]
  View thin;  // [T, S]
  View to;    // y, or of several parts [parts * rows of y, cols of y] F32.
  int64_t part_depth;
  float scale;
  Update update;
};

// A block takes 64 columns of the wide operand, rows of y or, transposed, its
// columns, and a part of the depth.
template <Turn kTurn, int kN>
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
  constexpr bool kWideIsRow = kTurn == Turn::kNone;
  const int64_t wide = first_col + warp_row;
  const int64_t first_row = kWideIsRow ? wide : 0;
  const int64_t y_rows = kWideIsRow ? grad.wide.cols : grad.thin.cols;
  ForPacksOfSums<kTurn, kN>(
      sum, tiles, [&](int r, int c, const Pack<kWidePack>& pack) {
        const int64_t row = first_row + r;
        const int64_t col = kWideIsRow ? c : wide + c;
        if (row >= y_rows || col >= grad.to.cols) return;
        UpdatePart(pack, grad.scale, grad.update,
                   grad.to.Row<float>(int64_t{blockIdx.y} * y_rows + row) + col,
                   grad.to.cols - col);
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
  const LaunchShape shape = {
      .grid = dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(parts)),
      .block = dim3(kTileThreads),
      .shared_bytes = kThinSharedBytes};
  DispatchThin(thin.cols, [&]<int kN>() {
    if (wide_is_row) {
      Launch(queue, shape, ThinGradKernel<Turn::kNone, kN>, grad);
    } else {
      Launch(queue, shape, ThinGradKernel<Turn::kTransposed, kN>, grad);
    }
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
      args.a.elements() == 0 || args.b.elements() == 0 || args.bias.present()) {
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
