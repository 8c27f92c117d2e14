// How the work of an attention call is cut into blocks of rows and tasks.
#ifndef LORICA_RUNTIME_CPU_ATTENTION_PLAN_H_
#define LORICA_RUNTIME_CPU_ATTENTION_PLAN_H_

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/check.h"
#include "runtime/cpu/attention/tiles.h"
#include "runtime/shape.h"

namespace lorica::cpu {

struct Queue;

constexpr int64_t RoundUp(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}
constexpr int64_t CountTiles(int64_t rows) {
  return (rows + kTile - 1) / kTile;
}

// Hands out consecutive 64-byte aligned pieces of a block; with a null block
// it only measures.
class Carver {
 public:
  explicit Carver(char* data) : data_(data) {}

  char* Take(int64_t bytes) {
    char* piece = data_ == nullptr ? nullptr : data_ + taken_;
    taken_ += RoundUp(bytes, 64);
    return piece;
  }
  float* TakeFloats(int64_t count) {
    return reinterpret_cast<float*>(
        Take(count * static_cast<int64_t>(sizeof(float))));
  }
  int64_t taken() const { return taken_; }

 private:
  char* data_;
  int64_t taken_ = 0;
};

// The extents that all of an attention call's tiles share.
struct HeadShape {
  explicit HeadShape(const AttentionArgs& args)
      : head_dim(args.head_dim),
        padded(RoundUp(args.head_dim, kLanes)),
        heads(args.q.cols / args.head_dim),
        kv_heads(args.k.cols / args.head_dim),
        group(heads / kv_heads) {
    CHECK_LE(head_dim, kMaxHeadDim);
  }

  int64_t head_dim;
  int64_t padded;
  int64_t heads;
  int64_t kv_heads;
  int64_t group;  // Query heads per key/value head.
};

// At most a tile of consecutive rows of a segment.
struct RowBlock {
  int64_t segment;    // Index among the call's segments.
  int64_t index;      // Among the segment's blocks.
  int64_t first_row;  // Of the whole matrix.
  int64_t rows;
};

// The rows of `block` in the columns of `head`.
TileRows RowsOf(const View& matrix, const RowBlock& block, int64_t head,
                const HeadShape& shape);

// Block `index` of the queries or keys of segment number `segment`.
RowBlock QueryBlock(const AttentionArgs& args, int64_t segment, int64_t index);
RowBlock KeyTile(const AttentionArgs& args, int64_t segment, int64_t index);

// Which part of a tile of scores is filled, and its diagonal.
TileExtent ExtentOf(const Segment& segment, int64_t query_block,
                    int64_t key_tile);

// Key tiles that some query of the block sees: the first ones.
int64_t VisibleTiles(const Segment& segment, int64_t query_block);
// The first query block that sees the key tile.
int64_t FirstBlock(const Segment& segment, int64_t key_tile);

// The tile arithmetic for the operands of a call.
const TileKernels& KernelsFor(const Queue& queue, const AttentionArgs& args);

// Fills with zero the rows of `matrix` [rows, any] that no segment covers.
enum class Side : uint8_t { kQueries, kKeys };
void ZeroUncovered(Queue* queue, const ArrayView<Segment>& segments, Side side,
                   const View& matrix);

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_ATTENTION_PLAN_H_
