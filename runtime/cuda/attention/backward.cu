#include <cstdint>
#include <type_traits>

#include "cuda_target.h"
#include "runtime/cuda/attention/segments.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"
#include "runtime/cuda/tiles.cuh"

// With weights p = exp(s - lse), dp = dout v' and dot = dout . out of a row:
//   ds = p (dp - dot),  dq = scale ds k,  dk = scale ds' q,  dv = p' dout.
// Weights are computed anew from lse (T. Dao et al., FlashAttention, 2022),
// once for dq by rows and once for dk and dv by keys: two products more than
// one kernel would need, but every sum stays in one block and its order is
// fixed.

namespace lorica::cuda {
namespace {

// Width of the walked tiles: narrower where accumulators are wide, so that
// they and two tiles of scores fit into registers.
template <int kD>
inline constexpr int kStep = kD <= 64 ? 64 : 32;
template <int kD>
inline constexpr int kStepElements = kStep<kD>* kTileStride<kD>;

// What a row of scores needs beside its operands.
struct RowTerms {
  float lse2;  // lse * log2(e).
  float dot;
  int32_t visible;  // Keys; none past the last row.
};

__device__ __forceinline__ RowTerms TermsOf(const AttentionOperands& on,
                                            const Tile& tile, int32_t row) {
  if (row >= tile.rows()) return {0.0f, 0.0f, 0};
  const int64_t query = tile.QueryOf(row);
  const int32_t head = tile.HeadOf(row);
  return {on.lse.Row<const float>(head)[query] * kLog2E,
          on.dots[int64_t{head} * on.q.rows + query], tile.VisibleKeys(row)};
}

// dots[head, t] = dout . out. Half a warp takes a row of a head, a lane a pack
// of it.
constexpr int kDotLanes = kWarp / 2;
constexpr int kDotThreads = 128;
constexpr int kDotHeads = kDotThreads / kDotLanes;
static_assert(kDotLanes * kWidePack >= kMaxHeadDim);

template <typename T>
__global__ void __launch_bounds__(kDotThreads)
    DotsKernel(const __grid_constant__ AttentionOperands on, int32_t heads) {
  const int64_t row = blockIdx.x;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t head =
      static_cast<int32_t>(blockIdx.y) * kDotHeads + thread / kDotLanes;
  const int32_t col = thread % kDotLanes * kWidePack;
  float dot = 0.0f;
  if (head < heads && col < on.head_dim) {
    const auto load = [&](const View& matrix) {
      return LoadPart<kWidePack>(
          matrix.Row<const T>(row) + head * on.head_dim + col,
          on.head_dim - col);
    };
    const Pack<kWidePack> out = load(on.out);
    const Pack<kWidePack> dout = load(on.dout);
    for (int i = 0; i < kWidePack; ++i) dot += out.v[i] * dout.v[i];
  }
  dot = WarpReduce<kDotLanes>(dot, Plus());
  if (head < heads && col == 0) on.dots[head * on.q.rows + row] = dot;
}

// A block takes 64 packed rows and walks over the keys they see.
template <int kD, typename Table>
__global__ void __launch_bounds__(kTileThreads)
    DqKernel(const __grid_constant__ AttentionOperands on,
             const __grid_constant__ Table table, TileAccess access) {
  auto* q = reinterpret_cast<bf16*>(DynamicShared());
  bf16* dout = q + kTileElements<kD>;
  bf16* walked = dout + kTileElements<kD>;  // k and v, twice.
  const auto& now = table.Now();
  const int32_t index = now.tiles - 1 - static_cast<int32_t>(blockIdx.x);
  if (!table.Has(index)) return;
  const Tile tile =
      FindTile(now, index, static_cast<int32_t>(blockIdx.y), on.group);
  const int32_t first_row = tile.index * kTileRows;
  const int32_t rows = min(kTileRows, tile.rows() - first_row);
  const int32_t keys = tile.VisibleKeys(first_row + rows - 1);
  const int32_t steps = (keys + kStep<kD> - 1) / kStep<kD>;
  const int32_t warp_row =
      static_cast<int32_t>(threadIdx.x) / kWarp * kWarpRows;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t my_row = first_row + warp_row + lane / 4;
  const RowTerms terms[2] = {TermsOf(on, tile, my_row),
                             TermsOf(on, tile, my_row + 8)};
  const auto start_rows = [&](bf16* to, const View& matrix) {
    StartTile<kD, kTileRows>(to, rows, on.head_dim, access, [&](int r) {
      return tile.QueryRow<const bf16>(matrix, first_row + r, on.head_dim);
    });
  };
  const auto start_step = [&](int32_t step) {
    bf16* to = walked + step % 2 * 2 * kStepElements<kD>;
    const int32_t key = step * kStep<kD>;
    const int32_t valid = tile.segment.num_keys - key;
    StartTile<kD, kStep<kD>>(to, valid, on.head_dim, access, [&](int r) {
      return tile.KeyRow<const bf16>(on.k, key + r, on.head_dim);
    });
    StartTile<kD, kStep<kD>>(
        to + kStepElements<kD>, valid, on.head_dim, access, [&](int r) {
          return tile.KeyRow<const bf16>(on.v, key + r, on.head_dim);
        });
  };

  start_rows(q, on.q);
  start_rows(dout, on.dout);
  start_step(0);
  CommitCopies();
  const bf16* my_q = q + warp_row * kTileStride<kD>;
  const bf16* my_dout = dout + warp_row * kTileStride<kD>;
  float dq[kD / 8][4] = {};
  for (int32_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) start_step(step + 1);
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();
    const bf16* k = walked + step % 2 * 2 * kStepElements<kD>;
    float p[kStep<kD> / 8][4] = {};
    float dp[kStep<kD> / 8][4] = {};
    MultiplyNT<kD, kStep<kD>>(my_q, k, p);
    MultiplyNT<kD, kStep<kD>>(my_dout, k + kStepElements<kD>, dp);
#pragma unroll
    for (int n = 0; n < kStep<kD> / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int32_t key = step * kStep<kD> + n * 8 + lane % 4 * 2 + i % 2;
        const RowTerms& of = terms[i / 2];
        const float weight = key < of.visible
                                 ? exp2f(p[n][i] * on.scale * kLog2E - of.lse2)
                                 : 0.0f;
        dp[n][i] = weight * (dp[n][i] - of.dot);
      }
    }
    MultiplyNN<kD, kStep<kD>>(dp, k, dq);
    __syncthreads();
  }
  const float factor[2] = {on.scale, on.scale};
  StoreRows<kD>(dq, factor, q + warp_row * kTileStride<kD>, rows - warp_row,
                on.head_dim, access, [&](int r) {
                  return tile.QueryRow<bf16>(on.dq, first_row + warp_row + r,
                                             on.head_dim);
                });
}

// A block takes 64 keys and walks over the packed rows that see them. Scores
// are transposed: a row of the tile is a key, a column a packed row.
template <int kD, typename Table>
__global__ void __launch_bounds__(kTileThreads)
    DkDvKernel(const __grid_constant__ AttentionOperands on,
               const __grid_constant__ Table table, TileAccess access) {
  __shared__ RowTerms terms[2][kStep<kD>];
  auto* k = reinterpret_cast<bf16*>(DynamicShared());
  bf16* v = k + kTileElements<kD>;
  bf16* walked = v + kTileElements<kD>;  // q and dout, twice.
  if (!table.Has(static_cast<int32_t>(blockIdx.x))) return;
  const Tile tile = FindTile(table.Now(), static_cast<int32_t>(blockIdx.x),
                             static_cast<int32_t>(blockIdx.y), on.group);
  const int32_t first_key = tile.index * kTileRows;
  const int32_t keys = min(kTileRows, tile.segment.num_keys - first_key);
  const int32_t first_row = tile.FirstRow(first_key) / kStep<kD> * kStep<kD>;
  const int32_t steps =
      (max(0, tile.rows() - first_row) + kStep<kD> - 1) / kStep<kD>;
  const int32_t warp_row =
      static_cast<int32_t>(threadIdx.x) / kWarp * kWarpRows;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t my_key = first_key + warp_row + lane / 4;
  const auto start_keys = [&](bf16* to, const View& matrix) {
    StartTile<kD, kTileRows>(to, keys, on.head_dim, access, [&](int r) {
      return tile.KeyRow<const bf16>(matrix, first_key + r, on.head_dim);
    });
  };
  const auto start_step = [&](int32_t step) {
    bf16* to = walked + step % 2 * 2 * kStepElements<kD>;
    const int32_t row = first_row + step * kStep<kD>;
    const int32_t valid = tile.rows() - row;
    StartTile<kD, kStep<kD>>(to, valid, on.head_dim, access, [&](int r) {
      return tile.QueryRow<const bf16>(on.q, row + r, on.head_dim);
    });
    StartTile<kD, kStep<kD>>(
        to + kStepElements<kD>, valid, on.head_dim, access, [&](int r) {
          return tile.QueryRow<const bf16>(on.dout, row + r, on.head_dim);
        });
    const auto i = static_cast<int32_t>(threadIdx.x);
    if (i < kStep<kD>) terms[step % 2][i] = TermsOf(on, tile, row + i);
  };

  if (steps > 0) {  // Some query sees these keys.
    start_keys(k, on.k);
    start_keys(v, on.v);
    start_step(0);
  }
  CommitCopies();
  const bf16* my_k = k + warp_row * kTileStride<kD>;
  const bf16* my_v = v + warp_row * kTileStride<kD>;
  float dk[kD / 8][4] = {};
  float dv[kD / 8][4] = {};
  for (int32_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) start_step(step + 1);
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();
    const bf16* q = walked + step % 2 * 2 * kStepElements<kD>;
    const bf16* dout = q + kStepElements<kD>;
    float p[kStep<kD> / 8][4] = {};
    float ds[kStep<kD> / 8][4] = {};
    MultiplyNT<kD, kStep<kD>>(my_k, q, p);
    MultiplyNT<kD, kStep<kD>>(my_v, dout, ds);
#pragma unroll
    for (int n = 0; n < kStep<kD> / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const RowTerms of = terms[step % 2][n * 8 + lane % 4 * 2 + i % 2];
        const bool seen = my_key + i / 2 * 8 < of.visible;
        p[n][i] = seen ? exp2f(p[n][i] * on.scale * kLog2E - of.lse2) : 0.0f;
        ds[n][i] = p[n][i] * (ds[n][i] - of.dot);
      }
    }
    MultiplyNN<kD, kStep<kD>>(p, dout, dv);
    MultiplyNN<kD, kStep<kD>>(ds, q, dk);
    __syncthreads();
  }
  const auto store = [&](const float(&sum)[kD / 8][4], float by, bf16* stage,
                         const View& matrix) {
    const float factor[2] = {by, by};
    StoreRows<kD>(sum, factor, stage + warp_row * kTileStride<kD>,
                  keys - warp_row, on.head_dim, access, [&](int r) {
                    return tile.KeyRow<bf16>(matrix, first_key + warp_row + r,
                                             on.head_dim);
                  });
  };
  store(dk, on.scale, k, on.dk);
  store(dv, 1.0f, v, on.dv);
}

TileAccess AccessOf(const AttentionOperands& on) {
  bool packed = on.head_dim % kWidePack == 0;
  for (const View& v : {on.q, on.k, on.v, on.dout, on.dq, on.dk, on.dv}) {
    packed = packed && IsPacked(v);
  }
  return packed ? TileAccess::kPacked : TileAccess::kElements;
}

void TileBackward(Queue* queue, const AttentionOperands& on,
                  const ArrayView<Segment>& segments) {
  const TileAccess access = AccessOf(on);
  DispatchHeadDim(on.head_dim, [&]<int kD>() {
    const LaunchShape shape = {
        .grid = dim3(),
        .block = dim3(kTileThreads),
        .shared_bytes =
            (2 * kTileElements<kD> + 4 * kStepElements<kD>)*sizeof(bf16)};
    const auto launch = [&](Side side, int64_t rows, const auto& kernel_for) {
      ForSegmentTables(queue, segments, {side, on.group, kTileRows}, rows,
                       [&](const auto& table, int64_t tiles) {
                         LaunchShape filled = shape;
                         filled.grid = GridOf(tiles, on);
                         Launch(queue, filled, kernel_for(table), on, table,
                                access);
                       });
    };
    launch(Side::kQueries, on.q.rows, [](const auto& table) {
      return DqKernel<kD, std::decay_t<decltype(table)>>;
    });
    launch(Side::kKeys, on.k.rows, [](const auto& table) {
      return DkDvKernel<kD, std::decay_t<decltype(table)>>;
    });
  });
}

void RowDots(Queue* queue, const AttentionOperands& on) {
  const auto heads = static_cast<int32_t>(on.q.cols / on.head_dim);
  DispatchFloat(on.q.dtype, [&]<typename T>() {
    Launch(queue,
           {.grid = dim3(
                static_cast<unsigned>(on.q.rows),
                static_cast<unsigned>((heads + kDotHeads - 1) / kDotHeads)),
            .block = dim3(kDotThreads)},
           DotsKernel<T>, on, heads);
  });
}

}  // namespace

void AttentionBackward(Queue* queue, const AttentionBackwardArgs& args) {
  const ArrayView<Segment>& segments = args.forward.segments;
  ZeroUncovered(queue, args);
  AttentionOperands on = OperandsOf(args.forward);
  on.dout = args.dout;
  on.dq = args.dq;
  on.dk = args.dk;
  on.dv = args.dv;
  on.dots = static_cast<float*>(
      ScratchFor(queue, ScratchUse::kRowDots,
                 static_cast<size_t>(on.lse.elements()) * sizeof(float)));
  RowDots(queue, on);
  if (on.q.dtype == DType::kF32) {
    PlainAttentionBackward(queue, on, segments);
  } else {
    TileBackward(queue, on, segments);
  }
}

}  // namespace lorica::cuda
