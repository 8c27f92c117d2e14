#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/attention/segments.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"
#include "runtime/cuda/tiles.cuh"

// Softmax by tiles of keys with running maxima and sums: M. Milakov and N.
// Gimelshein, Online normalizer calculation for softmax, 2018; T. Dao et al.,
// FlashAttention, 2022. Exponentials are taken to base two, of scores times
// scale * log2(e).

namespace lorica::cuda {
namespace {

// The running softmax of the two rows a thread has a part of, g and g + 8 of
// its warp's 16.
struct RunningSoftmax {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // This thread's part.

  // Turns scores [16, kTileRows] into weights relative to the new maxima, and
  // scales what was summed before.
  template <int kD>
  __device__ void Add(float (&scores)[kTileRows / 8][4],
                      float (&sums)[kD / 8][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = max[half];
#pragma unroll
      for (auto& score : scores) {
        largest = fmaxf(largest, fmaxf(score[2 * half], score[2 * half + 1]));
      }
      largest = WarpReduce<4>(largest, Larger());
      const float shrink = exp2f(max[half] - largest);
      max[half] = largest;
      sum[half] *= shrink;
#pragma unroll
      for (auto& value : sums) {
        value[2 * half] *= shrink;
        value[2 * half + 1] *= shrink;
      }
#pragma unroll
      for (auto& score : scores) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          score[i] = exp2f(score[i] - largest);
          sum[half] += score[i];
        }
      }
    }
  }
};

// Scales scores, and hides keys from `visible` on from each of the two rows.
__device__ __forceinline__ void ScaleAndMask(float (&scores)[kTileRows / 8][4],
                                             float scale, int32_t first_key,
                                             const int32_t (&visible)[2]) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
#pragma unroll
  for (int n = 0; n < kTileRows / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int32_t key = first_key + n * 8 + lane % 4 * 2 + i % 2;
      scores[n][i] = key < visible[i / 2] ? scores[n][i] * scale : -INFINITY;
    }
  }
}

// A block takes 64 packed rows and walks over the keys they see. While a tile
// of keys is multiplied its values arrive, and while those are multiplied the
// next keys.
template <int kD, typename Table>
__global__ void __launch_bounds__(kTileThreads)
    ForwardKernel(const __grid_constant__ AttentionOperands on,
                  const __grid_constant__ Table table, TileAccess access) {
  auto* q = reinterpret_cast<bf16*>(DynamicShared());
  bf16* k = q + kTileElements<kD>;
  bf16* v = k + kTileElements<kD>;
  const auto& now = table.Now();
  // The last tiles see most keys and go first.
  const int32_t index = now.tiles - 1 - static_cast<int32_t>(blockIdx.x);
  if (!table.Has(index)) return;
  const Tile tile =
      FindTile(now, index, static_cast<int32_t>(blockIdx.y), on.group);
  const int32_t first_row = tile.index * kTileRows;
  const int32_t rows = min(kTileRows, tile.rows() - first_row);
  const int32_t keys = tile.VisibleKeys(first_row + rows - 1);
  const int32_t warp_row =
      static_cast<int32_t>(threadIdx.x) / kWarp * kWarpRows;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarp;
  const int32_t my_row = first_row + warp_row + lane / 4;
  const int32_t visible[2] = {tile.VisibleKeys(my_row),
                              tile.VisibleKeys(my_row + 8)};
  const auto start_keys = [&](bf16* to, const View& matrix, int32_t key) {
    StartTile<kD, kTileRows>(
        to, tile.segment.num_keys - key, on.head_dim, access, [&](int r) {
          return tile.KeyRow<const bf16>(matrix, key + r, on.head_dim);
        });
    CommitCopies();
  };

  StartTile<kD, kTileRows>(q, rows, on.head_dim, access, [&](int r) {
    return tile.QueryRow<const bf16>(on.q, first_row + r, on.head_dim);
  });
  start_keys(k, on.k, 0);
  WaitForCopies<0>();
  __syncthreads();

  RunningSoftmax softmax;
  float sums[kD / 8][4] = {};
  for (int32_t key = 0; key < keys; key += kTileRows) {
    start_keys(v, on.v, key);
    float scores[kTileRows / 8][4] = {};
    MultiplyNT<kD, kTileRows>(q + warp_row * kTileStride<kD>, k, scores);
    WaitForCopies<0>();
    __syncthreads();  // v is there, and k free.
    if (key + kTileRows < keys) start_keys(k, on.k, key + kTileRows);
    ScaleAndMask(scores, on.scale * kLog2E, key, visible);
    softmax.Add<kD>(scores, sums);
    MultiplyNN<kD, kTileRows>(scores, v, sums);
    WaitForCopies<0>();
    __syncthreads();  // k is there, and v free.
  }

  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = WarpReduce<4>(softmax.sum[half], Plus());
    factor[half] = 1.0f / sum;
    const int32_t row = my_row + 8 * half;
    if (lane % 4 == 0 && row < first_row + rows) {
      on.lse.Row<float>(tile.HeadOf(row))[tile.QueryOf(row)] =
          (softmax.max[half] + log2f(sum)) * kLn2;
    }
  }
  StoreRows<kD>(sums, factor, q + warp_row * kTileStride<kD>, rows - warp_row,
                on.head_dim, access, [&](int r) {
                  return tile.QueryRow<bf16>(on.out, first_row + warp_row + r,
                                             on.head_dim);
                });
}

// Heads begin at multiples of 16 bytes where rows do and heads are packed.
TileAccess AccessOf(const AttentionArgs& args) {
  const bool packed = args.head_dim % kWidePack == 0 && IsPacked(args.q) &&
                      IsPacked(args.k) && IsPacked(args.v) &&
                      IsPacked(args.out);
  return packed ? TileAccess::kPacked : TileAccess::kElements;
}

}  // namespace

void Attention(Queue* queue, const AttentionArgs& args) {
  ZeroUncovered(queue, args);
  if (args.q.dtype == DType::kF32) return PlainAttention(queue, args);
  const AttentionOperands on = OperandsOf(args);
  const TileAccess access = AccessOf(args);
  DispatchHeadDim(args.head_dim, [&]<int kD>() {
    ForSegmentTables(
        queue, args.segments, {Side::kQueries, on.group, kTileRows}, on.q.rows,
        [&]<typename Table>(const Table& table, int64_t tiles) {
          Launch(queue,
                 {.grid = GridOf(tiles, on),
                  .block = dim3(kTileThreads),
                  .shared_bytes = 3 * kTileElements<kD> * sizeof(bf16)},
                 ForwardKernel<kD, Table>, on, table, access);
        });
  });
}

}  // namespace lorica::cuda
