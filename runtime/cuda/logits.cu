#include <algorithm>
#include <cstdint>

#include "cuda_target.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/pack.cuh"
#include "runtime/cuda/reduce.cuh"

// Exponentials are kept tile after tile, each tile a dense matrix [C, rows of
// the tile], so that the products read and write dense operands. A block takes
// a row of a tile.

namespace lorica::cuda {
namespace {

constexpr int kThreads = 256;

// A tile of the vocabulary.
struct LogitTile {
  View logits;      // [C, n] F32; of the gradient absent.
  View exps;        // [C, n], or absent.
  float* tile_max;  // [C], or null.
  float* maxima;    // [C], as are the next two: of the tiles so far.
  float* sums;
  float* target_logits;
  const int32_t* targets;  // [C]
  int64_t first_vocab;     // Of the tile, in the whole vocabulary.
  Update update;           // Of the statistics: kAssign by the first tile.
};

// The tile's share of three statistics, in thread 0.
__device__ void MergeStats(const LogitTile& tile, int64_t row, float largest,
                           float sum) {
  const int64_t target = tile.targets[row] - tile.first_vocab;
  const bool here = 0 <= target && target < tile.logits.cols;
  const float target_logit =
      here ? tile.logits.Row<const float>(row)[target] : 0.0f;
  if (tile.tile_max != nullptr) tile.tile_max[row] = largest;
  if (tile.update == Update::kAssign) {
    tile.maxima[row] = largest;
    tile.sums[row] = sum;
    tile.target_logits[row] = target_logit;
    return;
  }
  const float before = tile.maxima[row];
  const float merged = fmaxf(before, largest);
  tile.sums[row] =
      tile.sums[row] * expf(before - merged) + sum * expf(largest - merged);
  tile.maxima[row] = merged;
  if (here) tile.target_logits[row] = target_logit;
}

// Columns from a thread's pack to its next.
constexpr int64_t kRowStep = int64_t{kThreads} * kWidePack;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    LogitStatsKernel(const __grid_constant__ LogitTile tile) {
  const int64_t row = blockIdx.x;
  const int64_t n = tile.logits.cols;
  const int64_t first = int64_t{threadIdx.x} * kWidePack;
  const float* logits = tile.logits.Row<const float>(row);
  const auto load = [&](int64_t col) {
    return LoadPart<kWidePack>(logits + col, n - col, -INFINITY);
  };
  float largest = -INFINITY;
  for (int64_t col = first; col < n; col += kRowStep) {
    for (const float v : load(col).v) largest = fmaxf(largest, v);
  }
  largest = BlockReduce(largest, Larger());
  float sum = 0.0f;
  for (int64_t col = first; col < n; col += kRowStep) {
    Pack<kWidePack> pack = load(col);
    for (float& v : pack.v) {
      v = __expf(v - largest);
      sum += v;
    }
    if (tile.exps.present()) {
      StorePart(pack, tile.exps.Row<T>(row) + col, n - col);
    }
  }
  sum = BlockReduce(sum, Plus());
  if (threadIdx.x == 0) MergeStats(tile, row, largest, sum);
}

// Threads of a block that merges, few so that more blocks share the
// exponentials of a thousand rows.
constexpr int kMergeThreads = 64;

// A thread takes a pack of rows.
__global__ void __launch_bounds__(kMergeThreads)
    MergeStatsKernel(const __grid_constant__ MergeLogitStatsArgs args) {
  const int64_t first =
      (int64_t{blockIdx.x} * kMergeThreads + threadIdx.x) * kShortPack;
  const int64_t count = args.stats.cols - first;
  if (count <= 0) return;
  const View& slices = args.slices;
  const auto load = [&](int64_t row) {
    return LoadPart<kShortPack>(slices.Row<const float>(row) + first, count);
  };
  Pack<kShortPack> largest;
  for (float& v : largest.v) v = -INFINITY;
  for (int64_t s = 0; s < slices.rows; s += 3) {
    const Pack<kShortPack> max = load(s);
    for (int i = 0; i < kShortPack; ++i) {
      largest.v[i] = fmaxf(largest.v[i], max.v[i]);
    }
  }
  double sums[kShortPack] = {};
  double targets[kShortPack] = {};
  for (int64_t s = 0; s < slices.rows; s += 3) {
    const Pack<kShortPack> max = load(s);
    const Pack<kShortPack> sum = load(s + 1);
    const Pack<kShortPack> target = load(s + 2);
    for (int i = 0; i < kShortPack; ++i) {
      sums[i] += sum.v[i] * exp(double{max.v[i]} - largest.v[i]);
      targets[i] += target.v[i];
    }
  }
  Pack<kShortPack> sum;
  Pack<kShortPack> target;
  for (int i = 0; i < kShortPack; ++i) {
    sum.v[i] = static_cast<float>(sums[i]);
    target.v[i] = static_cast<float>(targets[i]);
  }
  const auto store = [&](const Pack<kShortPack>& pack, int64_t row) {
    StorePart(pack, args.stats.Row<float>(row) + first, count);
  };
  store(largest, 0);
  store(sum, 1);
  store(target, 2);
}

// Turns a tile's exponentials into scale * (softmax - onehot(target)), zero in
// rows without loss.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    LogitGradKernel(const __grid_constant__ LogitTile tile, float scale,
                    const float* times) {
  const int64_t row = blockIdx.x;
  if (times != nullptr) scale *= *times;
  const int32_t id = tile.targets[row];
  const float factor =
      id < 0 ? 0.0f
             : scale * expf(tile.tile_max[row] - tile.maxima[row]) /
                   tile.sums[row];
  const int64_t target = id < 0 ? -1 : id - tile.first_vocab;
  const int64_t n = tile.exps.cols;
  T* exps = tile.exps.Row<T>(row);
  for (int64_t col = int64_t{threadIdx.x} * kWidePack; col < n;
       col += kRowStep) {
    Pack<kWidePack> pack = LoadPart<kWidePack>(exps + col, n - col);
    for (int i = 0; i < kWidePack; ++i) {
      pack.v[i] *= factor;
      if (col + i == target) pack.v[i] -= scale;
    }
    StorePart(pack, exps + col, n - col);
  }
}

// The dense matrix [C, vocab.size()] of exps that belongs to a tile.
View TileExps(View exps, Range vocab) {
  if (!exps.present()) return {};
  exps.data = exps.As<char>() +
              static_cast<size_t>(exps.rows * vocab.begin) * SizeOf(exps.dtype);
  exps.cols = vocab.size();
  exps.row_stride = vocab.size();
  return exps;
}

// Calls body(rows of the vocabulary) tile after tile.
template <typename Body>
void ForTiles(int64_t vocab, int64_t tile, const Body& body) {
  for (int64_t first = 0; first < vocab; first += tile) {
    body(Range{first, std::min(vocab, first + tile)});
  }
}

// `stats` is [3, C].
LogitTile TileOf(const View& stats, const View& exps, const View& tile_max,
                 Range vocab, int64_t tile) {
  return {.exps = TileExps(exps, vocab),
          .tile_max = tile_max.present()
                          ? tile_max.Row<float>(vocab.begin / tile)
                          : nullptr,
          .maxima = stats.Row<float>(0),
          .sums = stats.Row<float>(1),
          .target_logits = stats.Row<float>(2)};
}

float* FloatScratch(Queue* queue, ScratchUse use, int64_t count) {
  return static_cast<float*>(
      ScratchFor(queue, use, static_cast<size_t>(count) * sizeof(float)));
}

}  // namespace

void LogitStats(Queue* queue, const LogitStatsArgs& args) {
  const int64_t rows = args.h.rows;
  const int64_t stride = std::min(args.tile, args.weight.rows);
  float* buffer = FloatScratch(queue, ScratchUse::kLogits, rows * stride);
  ForTiles(args.weight.rows, args.tile, [&](Range vocab) {
    LogitTile tile =
        TileOf(args.stats, args.exps, args.tile_max, vocab, args.tile);
    tile.logits = {buffer, DType::kF32, rows, vocab.size(), stride};
    tile.targets = args.targets.As<const int32_t>();
    tile.first_vocab = args.first_vocab + vocab.begin;
    tile.update = vocab.begin == 0 ? Update::kAssign : Update::kAdd;
    Matmul(queue, {.form = MatmulForm::kNT,
                   .a = args.h,
                   .b = args.weight.Rows(vocab),
                   .y = tile.logits});
    DispatchFloat(args.h.dtype, [&]<typename T>() {
      Launch(
          queue,
          {.grid = dim3(static_cast<unsigned>(rows)), .block = dim3(kThreads)},
          LogitStatsKernel<T>, tile);
    });
  });
}

void MergeLogitStats(Queue* queue, const MergeLogitStatsArgs& args) {
  constexpr int64_t kRows = int64_t{kMergeThreads} * kShortPack;
  Launch(queue,
         {.grid = dim3(
              static_cast<unsigned>((args.stats.cols + kRows - 1) / kRows)),
          .block = dim3(kMergeThreads)},
         MergeStatsKernel, args);
}

void LogitGrad(Queue* queue, const LogitGradArgs& args) {
  View sum = args.dh;
  if (sum.dtype != DType::kF32 && args.weight.rows > args.tile) {
    sum = {FloatScratch(queue, ScratchUse::kSum, sum.elements()), DType::kF32,
           sum.rows, sum.cols, sum.cols};
  }
  ForTiles(args.weight.rows, args.tile, [&](Range vocab) {
    LogitTile tile =
        TileOf(args.stats, args.exps, args.tile_max, vocab, args.tile);
    tile.targets = args.targets.As<const int32_t>();
    tile.first_vocab = args.first_vocab + vocab.begin;
    DispatchFloat(args.exps.dtype, [&]<typename T>() {
      Launch(queue,
             {.grid = dim3(static_cast<unsigned>(tile.exps.rows)),
              .block = dim3(kThreads)},
             LogitGradKernel<T>, tile, args.scale,
             args.times.As<const float>());
    });
    Matmul(queue,
           {.form = MatmulForm::kNN,
            .a = tile.exps,
            .b = args.weight.Rows(vocab),
            .y = sum,
            .update = vocab.begin == 0 ? Update::kAssign : Update::kAdd});
  });
  if (sum.data != args.dh.data) Convert(queue, sum, 1.0f, args.dh);
}

}  // namespace lorica::cuda
