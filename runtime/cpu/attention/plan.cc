#include "runtime/cpu/attention/plan.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/cpu/queue.h"

namespace lorica::cpu {

TileRows RowsOf(const View& matrix, const RowBlock& block, int64_t head,
                const HeadShape& shape) {
  const int64_t first_col = head * shape.head_dim;
  const View view = matrix.Rows({block.first_row, block.first_row + block.rows})
                        .Cols({first_col, first_col + shape.head_dim});
  return {.view = view, .rows = block.rows, .padded = shape.padded};
}

RowBlock QueryBlock(const AttentionArgs& args, int64_t segment, int64_t index) {
  const Segment& s = args.segments[segment];
  return {.segment = segment,
          .index = index,
          .first_row = s.first_query + index * kTile,
          .rows = std::min(kTile, s.num_queries - index * kTile)};
}

RowBlock KeyTile(const AttentionArgs& args, int64_t segment, int64_t index) {
  const Segment& s = args.segments[segment];
  return {.segment = segment,
          .index = index,
          .first_row = s.first_key + index * kTile,
          .rows = std::min(kTile, s.num_keys - index * kTile)};
}

TileExtent ExtentOf(const Segment& segment, int64_t query_block,
                    int64_t key_tile) {
  const int64_t keys = std::min(kTile, segment.num_keys - key_tile * kTile);
  const int64_t queries =
      std::min(kTile, segment.num_queries - query_block * kTile);
  return {.keys = RoundUp(keys, kRowStep),
          .queries = RoundUp(queries, kLanes),
          .diagonal = segment.num_keys - segment.num_queries +
                      (query_block - key_tile) * kTile};
}

int64_t VisibleTiles(const Segment& segment, int64_t query_block) {
  const int64_t end = std::min(segment.num_queries, (query_block + 1) * kTile);
  return CountTiles(segment.num_keys - segment.num_queries + end);
}

int64_t FirstBlock(const Segment& segment, int64_t key_tile) {
  const int64_t before = segment.num_keys - segment.num_queries;
  return std::max<int64_t>(0, key_tile * kTile - before) / kTile;
}

const TileKernels& KernelsFor(const Queue& queue, const AttentionArgs& args) {
  const bool native = args.q.dtype == DType::kBF16 &&
                      queue.bf16_products == Bf16Products::kNative;
  return native ? *Bf16TileKernels() : *F32TileKernels();
}

void ZeroUncovered(Queue* queue, const ArrayView<Segment>& segments, Side side,
                   const View& matrix) {
  char* covered = queue->ScratchFor<char>(ScratchUse::kPartials, matrix.rows);
  std::fill_n(covered, matrix.rows, char{0});
  for (const Segment& s : segments) {
    if (side == Side::kQueries) {
      std::fill_n(covered + s.first_query, s.num_queries, char{1});
    } else {
      std::fill_n(covered + s.first_key, s.num_keys, char{1});
    }
  }
  const size_t bytes = static_cast<size_t>(matrix.cols) * SizeOf(matrix.dtype);
  for (int64_t row = 0; row < matrix.rows; ++row) {
    if (covered[row] != 0) continue;
    std::memset(matrix.At(row, 0), 0, bytes);
  }
}

}  // namespace lorica::cpu
