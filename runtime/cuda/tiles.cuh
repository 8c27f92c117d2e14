// Tiles of BF16 in shared memory and products of them on tensor cores.
//
// A tile has rows of kD elements, zero past the head's own, and eight more of
// padding, so that eight rows of a matrix load lie in different banks. A block
// has four warps; each owns 16 rows of a tile of 64.
#ifndef LORICA_RUNTIME_CUDA_TILES_CUH_
#define LORICA_RUNTIME_CUDA_TILES_CUH_

#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"

namespace lorica::cuda {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileRows = 64;
inline constexpr int kWarpRows = 16;
inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr float kLn2 = 0.693147180559945309417f;

// Elements from a row of a tile to the next.
template <int kD>
inline constexpr int kTileStride = kD + 8;
template <int kD>
inline constexpr int kTileElements = kTileRows* kTileStride<kD>;

// How matrices may be read: by 16 bytes, or element by element.
enum class TileAccess : uint8_t { kPacked, kElements };

__device__ __forceinline__ uint16_t* BitsOf(bf16* data) {
  return reinterpret_cast<uint16_t*>(data);
}
__device__ __forceinline__ const uint16_t* BitsOf(const bf16* data) {
  return reinterpret_cast<const uint16_t*>(data);
}

// Starts to copy `valid` rows to a tile of kRows; the rest becomes zero.
// row_of(r) is the address of row r's head_dim elements. Done after
// WaitForCopies and a barrier.
template <int kD, int kRows, typename RowOf>
__device__ __forceinline__ void StartTile(bf16* tile, int valid, int head_dim,
                                          TileAccess access,
                                          const RowOf& row_of) {
  constexpr int kChunks = kD / kWidePack;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunks;
       i += kTileThreads) {
    const int row = i / kChunks;
    const int col = i % kChunks * kWidePack;
    bf16* to = tile + row * kTileStride<kD> + col;
    const bf16* from = row_of(row < valid ? row : 0);
    const int columns = row < valid ? head_dim - col : 0;
    if (access == TileAccess::kPacked) {
      CopyAsync16(to, columns > 0 ? from + col : from, columns > 0 ? 16 : 0);
    } else {
      for (int j = 0; j < kWidePack; ++j) {
        BitsOf(to)[j] = j < columns ? BitsOf(from)[col + j] : uint16_t{0};
      }
    }
  }
}

// The warp's row of matrix row `row` in a matrix load, see LoadMatrices.
template <int kD>
__device__ __forceinline__ const bf16* At(const bf16* tile, int row, int col) {
  return tile + row * kTileStride<kD> + col;
}

// sum [16, kN] += a b' over kD columns: 16 rows of `a`, kN rows of `b`.
template <int kD, int kN>
__device__ __forceinline__ void MultiplyNT(const bf16* a, const bf16* b,
                                           float (&sum)[kN / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int k = 0; k < kD; k += 16) {
    uint32_t left[4];
    LoadMatrices(left, At<kD>(a, lane % 16, k + lane / 16 * 8));
#pragma unroll
    for (int n = 0; n < kN; n += 16) {
      uint32_t right[4];
      LoadMatrices(
          right, At<kD>(b, n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
      MmaBf16(sum[n / 8], left, right[0], right[1]);
      MmaBf16(sum[n / 8 + 1], left, right[2], right[3]);
    }
  }
}

// sum [16, kD] += a b: `a` [16, kK] as a product left it, rounded to BF16; kK
// rows of `b`.
template <int kD, int kK>
__device__ __forceinline__ void MultiplyNN(const float (&a)[kK / 8][4],
                                           const bf16* b,
                                           float (&sum)[kD / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int k = 0; k < kK; k += 16) {
    const float(&low)[4] = a[k / 8];
    const float(&high)[4] = a[k / 8 + 1];
    const uint32_t left[4] = {
        Bf16Pair(low[0], low[1]), Bf16Pair(low[2], low[3]),
        Bf16Pair(high[0], high[1]), Bf16Pair(high[2], high[3])};
#pragma unroll
    for (int n = 0; n < kD; n += 16) {
      uint32_t right[4];
      LoadMatricesTransposed(right,
                             At<kD>(b, k + lane % 16, n + lane / 16 * 8));
      MmaBf16(sum[n / 8], left, right[0], right[1]);
      MmaBf16(sum[n / 8 + 1], left, right[2], right[3]);
    }
  }
}

// Writes the warp's 16 rows of sums times factor[row / 8], rounded, by way of
// `stage`, 16 rows of a tile that the warp alone uses since the last barrier.
// `valid` rows are written; row_of(r) is the address of row r's head_dim elements.
template <int kD, typename RowOf>
__device__ __forceinline__ void StoreRows(const float (&sum)[kD / 8][4],
                                          const float (&factor)[2], bf16* stage,
                                          int valid, int head_dim,
                                          TileAccess access,
                                          const RowOf& row_of) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      bf16* to = stage + (lane / 4 + 8 * half) * kTileStride<kD> + n * 8 +
                 lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(to) = Bf16Pair(
          sum[n][2 * half] * factor[half], sum[n][2 * half + 1] * factor[half]);
    }
  }
  __syncwarp();
  constexpr int kChunks = kD / kWidePack;
  for (int i = lane; i < kWarpRows * kChunks; i += kWarp) {
    const int row = i / kChunks;
    const int col = i % kChunks * kWidePack;
    if (row >= valid || col >= head_dim) continue;
    const bf16* from = stage + row * kTileStride<kD> + col;
    bf16* to = row_of(row) + col;
    if (access == TileAccess::kPacked) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    } else {
      for (int j = 0; j < kWidePack && col + j < head_dim; ++j) {
        BitsOf(to)[j] = BitsOf(from)[j];
      }
    }
  }
}

// Calls body.template operator()<kD>() with the narrowest tile that holds a
// head of at most kMaxHeadDim elements.
template <typename Body>
void DispatchHeadDim(int64_t head_dim, const Body& body) {
  if (head_dim <= 64) {
    body.template operator()<64>();
  } else if (head_dim <= 96) {
    body.template operator()<96>();
  } else {
    body.template operator()<128>();
  }
}

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_TILES_CUH_
