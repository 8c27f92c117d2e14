// Which block of an attention kernel works on which rows.
//
// Query heads that share a key/value head are packed: row r of a segment is
// query r / group with head r % group of the group, so that a tile of rows
// reads each key once for all of them, and a sum over rows is one over heads.
#ifndef LORICA_RUNTIME_CUDA_ATTENTION_SEGMENTS_CUH_
#define LORICA_RUNTIME_CUDA_ATTENTION_SEGMENTS_CUH_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cuda_target.h"
#include "runtime/backend.h"
#include "runtime/cuda/attention/uncovered.h"

namespace lorica::cuda {

// A segment and the number of its first tile among those of a table.
struct TiledSegment {
  int32_t first_query;
  int32_t num_queries;
  int32_t first_key;
  int32_t num_keys;
  int32_t first_tile;
};

// The segments of one launch.
template <int64_t kCapacity>
struct SegmentTable {
  int32_t count = 0;
  int32_t tiles = 0;  // Of all of them.
  TiledSegment segments[kCapacity];

  constexpr const SegmentTable& Now() const { return *this; }
  constexpr bool Has(int32_t) const { return true; }
};

// So many travel with the kernel's arguments, and nothing is copied to the
// device for them.
inline constexpr int64_t kArgumentSegments = 64;
// Where they are instead, if they change from run to run of recorded work. A
// grid then has blocks for the most tiles there can be.
struct RecordedSegmentTable {
  using Table = SegmentTable<kMaxRecordedSegments>;

  const Table* there;  // On the device, as far as it is filled.

  constexpr const Table& Now() const { return *there; }
  constexpr bool Has(int32_t tile) const {
    return 0 <= tile && tile < there->tiles;
  }
};

// What the attention kernels work on; absent where a kernel has no use for it.
struct AttentionOperands {
  View q;
  View k;
  View v;
  View out;
  View lse;
  View dout;
  View dq;
  View dk;
  View dv;
  float* dots = nullptr;  // [heads, T]: dout . out.
  int32_t head_dim = 0;
  int32_t group = 0;  // Query heads per key/value head.
  float scale = 0.0f;
};

// A tile of a segment for one key/value head.
struct Tile {
  TiledSegment segment;
  int32_t index;  // Among the segment's tiles.
  int32_t kv_head;
  int32_t group;

  __device__ int32_t rows() const { return segment.num_queries * group; }
  // Keys that row `row` sees: the first ones. Rows past the end see all.
  __device__ int32_t VisibleKeys(int32_t row) const {
    const int32_t before = segment.num_keys - segment.num_queries;
    return min(segment.num_keys, before + row / group + 1);
  }
  // The first row that sees key `key`.
  __device__ int32_t FirstRow(int32_t key) const {
    return max(0, key - segment.num_keys + segment.num_queries) * group;
  }
  // Of the whole matrices.
  __device__ int64_t QueryOf(int32_t row) const {
    return int64_t{segment.first_query} + row / group;
  }
  __device__ int32_t HeadOf(int32_t row) const {
    return kv_head * group + row % group;
  }
  // The head's elements of a row of a matrix like q.
  template <typename T>
  __device__ T* QueryRow(const View& matrix, int32_t row,
                         int32_t head_dim) const {
    return matrix.Row<T>(QueryOf(row)) + HeadOf(row) * head_dim;
  }
  // The same of a matrix like k.
  template <typename T>
  __device__ T* KeyRow(const View& matrix, int32_t key,
                       int32_t head_dim) const {
    return matrix.Row<T>(int64_t{segment.first_key} + key) + kv_head * head_dim;
  }
};

// Tile number `index` of the table.
template <int64_t kCapacity>
__device__ __forceinline__ Tile FindTile(const SegmentTable<kCapacity>& table,
                                         int32_t index, int32_t kv_head,
                                         int32_t group) {
  int32_t low = 0;
  int32_t high = table.count;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    (table.segments[middle].first_tile <= index ? low : high) = middle;
  }
  const TiledSegment& segment = table.segments[low];
  return {segment, index - segment.first_tile, kv_head, group};
}

// How a kernel cuts the rows of an attention in tiles: of `tile` packed rows or
// keys.
struct Tiling {
  Side side;
  int64_t group;
  int64_t tile;
};

// Calls body(table) for the segments, as many at a time as a table holds.
template <int64_t kCapacity, typename Body>
void ForSegmentTables(const ArrayView<Segment>& segments, const Tiling& tiling,
                      const Body& body) {
  const auto& [side, group, tile] = tiling;
  SegmentTable<kCapacity> table;
  for (const Segment& s : segments) {
    const int64_t extent =
        side == Side::kQueries ? s.num_queries * group : s.num_keys;
    if (extent == 0) continue;
    table.segments[table.count] = {
        static_cast<int32_t>(s.first_query),
        static_cast<int32_t>(s.num_queries), static_cast<int32_t>(s.first_key),
        static_cast<int32_t>(s.num_keys), table.tiles};
    table.tiles += static_cast<int32_t>((extent + tile - 1) / tile);
    if (++table.count == kCapacity) {
      body(table);
      table = {};
    }
  }
  if (table.count > 0) body(table);
}

// Calls body(table, tiles) for the queue's next launches, of so many tiles for
// each key/value head. In recorded work there is one, and as many tiles as
// `rows` queries or keys can have in any segments of their number, rounded up
// to a power of two.
template <typename Body>
void ForSegmentTables(Queue* queue, const ArrayView<Segment>& segments,
                      const Tiling& tiling, int64_t rows, const Body& body) {
  if (!IsRecorded(queue)) {
    return ForSegmentTables<kArgumentSegments>(
        segments, tiling, [&](const auto& table) { body(table, table.tiles); });
  }
  using Table = RecordedSegmentTable::Table;
  const auto most =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(segments.size)));
  const size_t bytes = offsetof(Table, segments) +
                       static_cast<size_t>(most) * sizeof(TiledSegment);
  const RecordTable recorded = {
      .name = {static_cast<int64_t>(TableKind::kTiles),
               static_cast<int64_t>(tiling.side), tiling.group, tiling.tile},
      .bytes = bytes,
      .fill = [tiling, bytes](const ArrayView<Segment>& now, void* to) {
        Table filled = {};
        ForSegmentTables<kMaxRecordedSegments>(
            now, tiling, [&](const Table& table) { filled = table; });
        std::memcpy(to, &filled, bytes);
      }};
  const int64_t packed =
      tiling.side == Side::kQueries ? rows * tiling.group : rows;
  body(RecordedSegmentTable{static_cast<const Table*>(
           RecordedTable(queue, recorded, segments))},
       packed / tiling.tile + most);
}

inline AttentionOperands OperandsOf(const AttentionArgs& args) {
  return {.q = args.q,
          .k = args.k,
          .v = args.v,
          .out = args.out,
          .lse = args.lse,
          .head_dim = static_cast<int32_t>(args.head_dim),
          .group = static_cast<int32_t>(args.q.cols / args.k.cols),
          .scale = args.scale};
}

// A grid of so many tiles for each key/value head.
inline dim3 GridOf(int64_t tiles, const AttentionOperands& on) {
  return dim3(static_cast<unsigned>(tiles),
              static_cast<unsigned>(on.k.cols / on.head_dim));
}

// plain.cu: the same for F32, without tensor cores.
void PlainAttention(Queue* queue, const AttentionArgs& args);
void PlainAttentionBackward(Queue* queue, const AttentionOperands& on,
                            const ArrayView<Segment>& segments);

}  // namespace lorica::cuda

#endif  // LORICA_RUNTIME_CUDA_ATTENTION_SEGMENTS_CUH_
