#include <cstdint>
#include <type_traits>

#include "cuda_target.h"
#include "runtime/cuda/attention/segments.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"

// Attention of F32 arrays on the F32 units, for comparison with other devices
// rather than for speed. A block has four threads, a quad, for each of 32 rows;
// the formulas are those of forward.cu and backward.cu.

namespace lorica::cuda {
namespace {

constexpr int kSide = 32;  // Rows and keys of a tile.
constexpr int kQuad = 4;
constexpr int kThreads = kSide * kQuad;
constexpr int kScoresEach = kSide / kQuad;
constexpr int kScoreStride = kSide + 1;

// A tile's rows are an odd number of banks apart.
template <int kD>
inline constexpr int kStride = kD + 1;
template <int kD>
inline constexpr int kElements = kSide* kStride<kD>;

using Quad = Pack<kShortPack>;

template <int kD, typename RowOf>
__device__ void LoadTile(float* tile, int valid, int head_dim,
                         const RowOf& row_of) {
  const int quads = (head_dim + kShortPack - 1) / kShortPack;
  for (int i = static_cast<int>(threadIdx.x); i < kSide * quads;
       i += kThreads) {
    const int row = i / quads;
    const int col = i % quads * kShortPack;
    Quad quad = {};
    if (row < valid) {
      quad = LoadPart<kShortPack>(row_of(row) + col, head_dim - col);
    }
    float* to = tile + row * kStride<kD> + col;
    for (int j = 0; j < kShortPack; ++j) to[j] = quad.v[j];
  }
}

// a . b of two rows of tiles.
__device__ __forceinline__ float Dot(const float* a, const float* b, int n) {
  float sum = 0.0f;
#pragma unroll 2
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// The columns of a row that a thread of its quad sums: every fourth pack.
template <int kD>
struct RowSums {
  static constexpr int kPacks = kD / kQuad / kShortPack;

  Quad v[kPacks] = {};

  __device__ void Scale(float by) {
    for (Quad& quad : v) {
      for (float& value : quad.v) value *= by;
    }
  }
  // Adds weights [kSide] times the rows of a tile, of which columns past the
  // head's are zero or not read.
  __device__ void Add(const float* weights, const float* tile, int head_dim) {
#pragma unroll 1
    for (int j = 0; j < kSide; ++j) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const float* from = tile + j * kStride<kD> + ColumnOf(i);
        if (ColumnOf(i) >= head_dim) break;
        for (int e = 0; e < kShortPack; ++e) {
          v[i].v[e] += weights[j] * from[e];
        }
      }
    }
  }
  __device__ void Store(float by, int head_dim, float* to) {
    Scale(by);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int col = ColumnOf(i);
      if (col < head_dim) StorePart(v[i], to + col, head_dim - col);
    }
  }

 private:
  // Of this thread's pack number i.
  __device__ static int ColumnOf(int i) {
    const int part = static_cast<int>(threadIdx.x) % kQuad;
    return (part + i * kQuad) * kShortPack;
  }
};

// What a thread knows of its place in a tile of packed rows or keys.
struct Place {
  Tile tile;
  int32_t first;  // Row or key of the segment.
  int32_t mine;   // This thread's, in the tile.
  int32_t part;   // Of the quad.
};

template <int64_t kCapacity>
__device__ Place FindPlace(const AttentionOperands& on,
                           const SegmentTable<kCapacity>& table) {
  const Tile tile = FindTile(table, static_cast<int32_t>(blockIdx.x),
                             static_cast<int32_t>(blockIdx.y), on.group);
  return {tile, tile.index * kSide, static_cast<int32_t>(threadIdx.x) / kQuad,
          static_cast<int32_t>(threadIdx.x) % kQuad};
}

template <int kD>
__device__ void LoadRows(const AttentionOperands& on, const Tile& tile,
                         const View& matrix, int32_t row, float* to) {
  LoadTile<kD>(to, tile.rows() - row, on.head_dim, [&](int r) {
    return tile.QueryRow<const float>(matrix, row + r, on.head_dim);
  });
}

template <int kD>
__device__ void LoadKeys(const AttentionOperands& on, const Tile& tile,
                         const View& matrix, int32_t key, float* to) {
  LoadTile<kD>(to, tile.segment.num_keys - key, on.head_dim, [&](int r) {
    return tile.KeyRow<const float>(matrix, key + r, on.head_dim);
  });
}

template <int kD, typename Table>
__global__ void __launch_bounds__(kThreads, 4)
    PlainForwardKernel(const __grid_constant__ AttentionOperands on,
                       const __grid_constant__ Table table) {
  auto* q = reinterpret_cast<float*>(DynamicShared());
  float* k = q + kElements<kD>;
  float* v = k + kElements<kD>;
  if (!table.Has(static_cast<int32_t>(blockIdx.x))) return;
  const Place at = FindPlace(on, table.Now());
  const Tile& tile = at.tile;
  float* weights = v + kElements<kD> + at.mine * kScoreStride;
  const int32_t row = at.first + at.mine;
  const int32_t last = min(at.first + kSide, tile.rows()) - 1;
  const int32_t visible = tile.VisibleKeys(row);
  LoadRows<kD>(on, tile, on.q, at.first, q);
  RowSums<kD> out;
  float max = -INFINITY;
  float sum = 0.0f;
  for (int32_t key = 0; key < tile.VisibleKeys(last); key += kSide) {
    LoadKeys<kD>(on, tile, on.k, key, k);
    LoadKeys<kD>(on, tile, on.v, key, v);
    __syncthreads();
    float scores[kScoresEach];
    float largest = max;
    for (int i = 0; i < kScoresEach; ++i) {
      const int j = at.part + i * kQuad;
      scores[i] = key + j < visible
                      ? on.scale * Dot(q + at.mine * kStride<kD>,
                                       k + j * kStride<kD>, on.head_dim)
                      : -INFINITY;
      largest = fmaxf(largest, scores[i]);
    }
    largest = WarpReduce<kQuad>(largest, Larger());
    const float shrink = expf(max - largest);
    max = largest;
    sum *= shrink;
    out.Scale(shrink);
    for (int i = 0; i < kScoresEach; ++i) {
      const float weight = expf(scores[i] - largest);
      sum += weight;
      weights[at.part + i * kQuad] = weight;
    }
    __syncwarp();
    out.Add(weights, v, on.head_dim);
    __syncthreads();
  }
  sum = WarpReduce<kQuad>(sum, Plus());
  if (row > last) return;
  out.Store(1.0f / sum, on.head_dim,
            tile.QueryRow<float>(on.out, row, on.head_dim));
  if (at.part == 0) {
    on.lse.Row<float>(tile.HeadOf(row))[tile.QueryOf(row)] = max + logf(sum);
  }
}

template <int kD, typename Table>
__global__ void __launch_bounds__(kThreads, 6)
    PlainDqKernel(const __grid_constant__ AttentionOperands on,
                  const __grid_constant__ Table table) {
  auto* q = reinterpret_cast<float*>(DynamicShared());
  float* dout = q + kElements<kD>;
  float* k = dout + kElements<kD>;
  float* v = k + kElements<kD>;
  if (!table.Has(static_cast<int32_t>(blockIdx.x))) return;
  const Place at = FindPlace(on, table.Now());
  const Tile& tile = at.tile;
  float* dscores = v + kElements<kD> + at.mine * kScoreStride;
  const int32_t row = at.first + at.mine;
  const int32_t last = min(at.first + kSide, tile.rows()) - 1;
  const int32_t visible = row <= last ? tile.VisibleKeys(row) : 0;
  const int64_t query = tile.QueryOf(min(row, last));
  const int32_t head = tile.HeadOf(min(row, last));
  const float lse = on.lse.Row<const float>(head)[query];
  const float dot = on.dots[int64_t{head} * on.q.rows + query];
  LoadRows<kD>(on, tile, on.q, at.first, q);
  LoadRows<kD>(on, tile, on.dout, at.first, dout);
  RowSums<kD> dq;
  for (int32_t key = 0; key < tile.VisibleKeys(last); key += kSide) {
    LoadKeys<kD>(on, tile, on.k, key, k);
    LoadKeys<kD>(on, tile, on.v, key, v);
    __syncthreads();
#pragma unroll 1
    for (int j = at.part; j < kSide; j += kQuad) {
      const int mine = at.mine * kStride<kD>;
      const int other = j * kStride<kD>;
      const float score = on.scale * Dot(q + mine, k + other, on.head_dim);
      const float weight = key + j < visible ? expf(score - lse) : 0.0f;
      dscores[j] = weight * (Dot(dout + mine, v + other, on.head_dim) - dot);
    }
    __syncwarp();
    dq.Add(dscores, k, on.head_dim);
    __syncthreads();
  }
  if (row > last) return;
  dq.Store(on.scale, on.head_dim,
           tile.QueryRow<float>(on.dq, row, on.head_dim));
}

// As above with a quad for each key.
template <int kD, typename Table>
__global__ void __launch_bounds__(kThreads)
    PlainDkDvKernel(const __grid_constant__ AttentionOperands on,
                    const __grid_constant__ Table table) {
  auto* k = reinterpret_cast<float*>(DynamicShared());
  float* v = k + kElements<kD>;
  float* q = v + kElements<kD>;
  float* dout = q + kElements<kD>;
  if (!table.Has(static_cast<int32_t>(blockIdx.x))) return;
  const Place at = FindPlace(on, table.Now());
  const Tile& tile = at.tile;
  float* weights = dout + kElements<kD> + at.mine * kScoreStride;
  float* dscores = weights + kSide * kScoreStride;
  const int32_t key = at.first + at.mine;
  LoadKeys<kD>(on, tile, on.k, at.first, k);
  LoadKeys<kD>(on, tile, on.v, at.first, v);
  RowSums<kD> dk;
  RowSums<kD> dv;
  for (int32_t first = tile.FirstRow(at.first); first < tile.rows();
       first += kSide) {
    LoadRows<kD>(on, tile, on.q, first, q);
    LoadRows<kD>(on, tile, on.dout, first, dout);
    __syncthreads();
#pragma unroll 1
    for (int j = at.part; j < kSide; j += kQuad) {
      const int mine = at.mine * kStride<kD>;
      const int other = j * kStride<kD>;
      const int32_t row = min(first + j, tile.rows() - 1);
      const bool seen = first + j == row && key < tile.VisibleKeys(row);
      const int64_t query = tile.QueryOf(row);
      const int32_t head = tile.HeadOf(row);
      const float score = on.scale * Dot(k + mine, q + other, on.head_dim);
      const float lse = on.lse.Row<const float>(head)[query];
      const float weight = seen ? expf(score - lse) : 0.0f;
      const float dot = on.dots[int64_t{head} * on.q.rows + query];
      weights[j] = weight;
      dscores[j] = weight * (Dot(v + mine, dout + other, on.head_dim) - dot);
    }
    __syncwarp();
    dv.Add(weights, dout, on.head_dim);
    dk.Add(dscores, q, on.head_dim);
    __syncthreads();
  }
  if (key >= tile.segment.num_keys) return;
  dk.Store(on.scale, on.head_dim, tile.KeyRow<float>(on.dk, key, on.head_dim));
  dv.Store(1.0f, on.head_dim, tile.KeyRow<float>(on.dv, key, on.head_dim));
}

// `tiles` of rows and `scores` of kSide x kSide in shared memory.
template <int kD>
constexpr size_t SharedBytes(int tiles, int scores) {
  return static_cast<size_t>(tiles * kElements<kD> +
                             scores * kSide * kScoreStride) *
         sizeof(float);
}

// `kernel_for` names the kernel for a type of table.
template <typename KernelFor>
void LaunchPlain(Queue* queue, const AttentionOperands& on,
                 const ArrayView<Segment>& segments, Side side,
                 size_t shared_bytes, const KernelFor& kernel_for) {
  const int64_t rows = side == Side::kQueries ? on.q.rows : on.k.rows;
  ForSegmentTables(queue, segments, {side, on.group, kSide}, rows,
                   [&](const auto& table, int64_t tiles) {
                     Launch(queue,
                            {.grid = GridOf(tiles, on),
                             .block = dim3(kThreads),
                             .shared_bytes = shared_bytes},
                            kernel_for(table), on, table);
                   });
}

// Calls body.template operator()<kD>() with a width that holds a head.
template <typename Body>
void DispatchWidth(int64_t head_dim, const Body& body) {
  if (head_dim <= 64) {
    body.template operator()<64>();
  } else {
    body.template operator()<128>();
  }
}

}  // namespace

void PlainAttention(Queue* queue, const AttentionArgs& args) {
  DispatchWidth(args.head_dim, [&]<int kD>() {
    LaunchPlain(queue, OperandsOf(args), args.segments, Side::kQueries,
                SharedBytes<kD>(3, 1), [](const auto& table) {
                  return PlainForwardKernel<kD, std::decay_t<decltype(table)>>;
                });
  });
}

void PlainAttentionBackward(Queue* queue, const AttentionOperands& on,
                            const ArrayView<Segment>& segments) {
  DispatchWidth(on.head_dim, [&]<int kD>() {
    LaunchPlain(queue, on, segments, Side::kQueries, SharedBytes<kD>(4, 1),
                [](const auto& table) {
                  return PlainDqKernel<kD, std::decay_t<decltype(table)>>;
                });
    LaunchPlain(queue, on, segments, Side::kKeys, SharedBytes<kD>(4, 2),
                [](const auto& table) {
                  return PlainDkDvKernel<kD, std::decay_t<decltype(table)>>;
                });
  });
}

}  // namespace lorica::cuda
