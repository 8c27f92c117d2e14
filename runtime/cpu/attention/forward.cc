#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "runtime/cpu/attention/few_queries.h"
#include "runtime/cpu/attention/plan.h"
#include "runtime/cpu/attention/tiles.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/queue.h"

namespace lorica::cpu {
namespace {

// Scratch of one thread.
struct BlockScratch {
  BlockScratch(char* data, const TileKernels& kernels, int64_t padded) {
    Carver carve(data);
    q = carve.Take(kTile * padded * kernels.operand_bytes);
    weights = carve.Take(kTile * kTile * kernels.operand_bytes);
    scores = carve.TakeFloats(kTile * kTile);
    out = carve.TakeFloats(kTile * padded);
    max = carve.TakeFloats(kTile);
    sum = carve.TakeFloats(kTile);
    bytes = carve.taken();
  }

  void* q;
  void* weights;
  float* scores;
  float* out;
  float* max;
  float* sum;
  int64_t bytes;
};

// Attention of the segments of many queries: keys and values are packed into
// tiles once; then each task takes a head's block of queries over the tiles it
// sees, keeping only the running maximum, sum and weighted values.
class ForwardPass {
 public:
  ForwardPass(Queue* queue, const AttentionArgs& args)
      : queue_(queue),
        args_(args),
        shape_(args),
        kernels_(KernelsFor(*queue, args)),
        tile_bytes_(kTile * shape_.padded * kernels_.operand_bytes),
        first_tile_(static_cast<size_t>(args.segments.size)) {
    for (int64_t s = 0; s < args.segments.size; ++s) AddSegment(s);
    // Long tasks first, so that threads end together.
    std::stable_sort(blocks_.begin(), blocks_.end(),
                     [&](const RowBlock& a, const RowBlock& b) {
                       return TilesOf(a) > TilesOf(b);
                     });
  }

  void Run() {
    if (blocks_.empty()) return;
    PackKeys();
    const int64_t bytes = BlockScratch(nullptr, kernels_, shape_.padded).bytes;
    char* scratch = queue_->ScratchFor<char>(ScratchUse::kAttention,
                                             queue_->threads * bytes);
    const int64_t tasks = static_cast<int64_t>(blocks_.size()) * shape_.heads;
#pragma omp parallel num_threads(queue_->threads)
    {
      const BlockScratch mine(scratch + omp_get_thread_num() * bytes, kernels_,
                              shape_.padded);
#pragma omp for schedule(dynamic, 1)
      for (int64_t task = 0; task < tasks; ++task) {
        const auto block = static_cast<size_t>(task / shape_.heads);
        AttendBlock(blocks_[block], task % shape_.heads, mine);
      }
    }
  }

 private:
  void AddSegment(int64_t s) {
    const Segment& segment = args_.segments[s];
    first_tile_[static_cast<size_t>(s)] =
        static_cast<int64_t>(key_tiles_.size());
    if (segment.num_queries <= kFewQueries) return;
    for (int64_t i = 0; i < CountTiles(segment.num_keys); ++i) {
      key_tiles_.push_back(KeyTile(args_, s, i));
    }
    for (int64_t i = 0; i < CountTiles(segment.num_queries); ++i) {
      blocks_.push_back(QueryBlock(args_, s, i));
    }
  }

  int64_t TilesOf(const RowBlock& block) const {
    return VisibleTiles(args_.segments[block.segment], block.index);
  }

  // Packed keys and, behind them, values of one tile and key/value head.
  char* Packed(int64_t tile, int64_t kv_head) const {
    return packed_ + (tile * shape_.kv_heads + kv_head) * 2 * tile_bytes_;
  }

  void PackKeys() {
    const int64_t tasks =
        static_cast<int64_t>(key_tiles_.size()) * shape_.kv_heads;
    packed_ = queue_->ScratchFor<char>(ScratchUse::kOperands,
                                       tasks * 2 * tile_bytes_);
#pragma omp parallel for schedule(static) num_threads(queue_->threads)
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t tile = task / shape_.kv_heads;
      const int64_t kv_head = task % shape_.kv_heads;
      const RowBlock& rows = key_tiles_[static_cast<size_t>(tile)];
      char* to = Packed(tile, kv_head);
      kernels_.pack_left(RowsOf(args_.k, rows, kv_head, shape_), to);
      kernels_.pack_left_transposed(RowsOf(args_.v, rows, kv_head, shape_),
                                    to + tile_bytes_);
    }
  }

  void AttendBlock(const RowBlock& block, int64_t head,
                   const BlockScratch& scratch) const {
    const int64_t first = first_tile_[static_cast<size_t>(block.segment)];
    kernels_.pack_right_transposed(RowsOf(args_.q, block, head, shape_),
                                   scratch.q);
    const int64_t tiles = TilesOf(block);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const char* keys = Packed(first + tile, head / shape_.group);
      kernels_.forward(
          {.k = keys,
           .v = keys + tile_bytes_,
           .q = scratch.q,
           .extent = ExtentOf(args_.segments[block.segment], block.index, tile),
           .padded = shape_.padded,
           .scale = args_.scale,
           .first = tile == 0,
           .max = scratch.max,
           .sum = scratch.sum,
           .out = scratch.out,
           .scores = scratch.scores,
           .weights = scratch.weights});
    }
    FinishBlock(block, head, scratch);
  }

  // Divides by the sums; stores the block's rows and log-sum-exps.
  void FinishBlock(const RowBlock& block, int64_t head,
                   const BlockScratch& scratch) const {
    float factors[kTile] = {};
    float* lse = args_.lse.Row<float>(head) + block.first_row;
    for (int64_t i = 0; i < block.rows; ++i) {
      factors[i] = 1.0f / scratch.sum[i];
      lse[i] = scratch.max[i] / kLog2E + std::log(scratch.sum[i]);
    }
    kernels_.store_transposed(scratch.out, factors,
                              RowsOf(args_.out, block, head, shape_));
  }

  Queue* queue_;
  const AttentionArgs& args_;
  HeadShape shape_;
  const TileKernels& kernels_;
  int64_t tile_bytes_;
  std::vector<int64_t> first_tile_;  // Per segment, among key_tiles_.
  std::vector<RowBlock> key_tiles_;
  std::vector<RowBlock> blocks_;  // Of queries.
  char* packed_ = nullptr;
};

}  // namespace

void Attention(Queue* queue, const AttentionArgs& args) {
  ZeroUncovered(queue, args.segments, Side::kQueries, args.out);
  AttendFewQuerySegments(queue, args);
  ForwardPass(queue, args).Run();
}

}  // namespace lorica::cpu
