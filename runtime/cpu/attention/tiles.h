// Attention in tiles of 64 queries by 64 keys: what the loops over segments,
// heads and tiles ask of the arithmetic on one tile, which exists twice:
// tiles_f32.cc for F32 products on any processor, tiles_bf16.cc for BF16
// operands on processors that multiply them.
//
// Scores are held transposed, keys as rows and queries as lanes, so that the
// maximum, the sum and the other statistics of a query are lanes of plain
// vectors and no sum ever runs across a vector. Every operand of a product is
// packed beforehand into a contiguous zero-padded tile; rows a power of two
// apart would share cache sets and cost a quarter of the speed.
//
// D is head_dim rounded up to kLanes. A product C [m, n] = A [m, k] B [k, n]
// takes two kinds of operand, of BF16 or F32 elements:
//   left    A, row by row.
//   right   B in panels of at most 64 lanes, one panel after the other; within
//           a panel row by row, BF16 two rows at a time, element by element.
#ifndef LORICA_RUNTIME_CPU_ATTENTION_TILES_H_
#define LORICA_RUNTIME_CPU_ATTENTION_TILES_H_

#include <algorithm>
#include <cstdint>

#include "runtime/backend.h"
#include "runtime/shape.h"

namespace lorica::cpu {

inline constexpr int64_t kTile = 64;
inline constexpr int64_t kLanes = 16;
inline constexpr int64_t kRowStep = 4;  // Rows a product computes together.
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr float kLog2E = 1.44269504088896341f;

// Some rows of one head in memory, at most a tile of them.
struct TileRows {
  View view;       // Its first element is the head's.
  int64_t rows;    // Rows that exist; the tile's others count as zero.
  int64_t padded;  // D
};

// The extent of a score tile: which rows and lanes hold anything.
struct TileExtent {
  int64_t keys;      // Multiple of kRowStep.
  int64_t queries;   // Multiple of kLanes.
  int64_t diagonal;  // Key i is visible to query j where i <= j + diagonal.

  bool Masked() const { return diagonal < keys - 1; }
  // The keys before this one are all that queries from `lane` on, kLanes of
  // them, need be multiplied with.
  int64_t KeysOf(int64_t lane) const {
    if (!Masked()) return keys;
    const int64_t past = lane / kLanes * kLanes + kLanes + diagonal;
    const int64_t bands = (past + kLanes - 1) / kLanes;
    return std::min(keys, std::max<int64_t>(bands, 1) * kLanes);
  }
};

// Calls body(keys, lane) with bands of at most `step` keys, a multiple of
// kLanes, and the first lane that may see any of them, a multiple of kLanes.
// The first band has all lanes.
template <typename Body>
void ForBands(const TileExtent& extent, int64_t step, const Body& body) {
  int64_t lane = 0;
  for (int64_t key = 0; key < extent.keys; key += step) {
    while (lane < extent.queries && extent.KeysOf(lane) <= key) lane += kLanes;
    if (lane >= extent.queries) return;
    body(Range{key, std::min(extent.keys, key + step)}, lane);
  }
}

// On the diagonal in bands of kLanes, 5/8 of the scores; else all keys at once.
template <typename Body>
void ForBands(const TileExtent& extent, const Body& body) {
  ForBands(extent, extent.Masked() ? kLanes : kTile, body);
}

// One step of the forward pass for a block of queries: the keys of one tile.
struct ForwardTile {
  const void* k;  // Left [64, D].
  const void* v;  // Left [D, 64], transposed.
  const void* q;  // Right [D, 64].
  TileExtent extent;
  int64_t padded;  // D
  float scale;     // Of the scores.
  bool first;      // No tile came before: max, sum and out are undefined.
  float* max;      // [64] of the scaled scores, times log2 e.
  float* sum;      // [64] of exp(scaled score - its maximum).
  float* out;      // [D, 64], transposed, not yet divided by sum.
  float* scores;   // [64, 64] scratch.
  void* weights;   // Right [64, 64] scratch.
};

struct BackwardTile {
  const void* k;             // Left [64, D].
  const void* v;             // Left [64, D].
  const void* k_transposed;  // Left [D, 64].
  const void* q;             // Right [D, 64].
  const void* dout;          // Right [D, 64].
  const void* q_rows;        // Right [64, D].
  const void* dout_rows;     // Right [64, D].
  const float* lse;          // [64] times log2 e.
  const float* dot;          // [64] dout . out
  TileExtent extent;
  int64_t padded;
  float scale;
  float* dq;            // [D, 64], transposed; added.
  float* dk;            // [64, D]; added.
  float* dv;            // [64, D]; added.
  float* scores;        // [16, 64] scratch: a band of keys.
  float* dweights;      // [16, 64] scratch.
  void* weights;        // Left [64, 64] scratch.
  void* dscores;        // Left [64, 64] scratch.
  void* dscores_right;  // Right [64, 64] scratch.
};

// The arithmetic on tiles. Views are F32 or BF16.
struct TileKernels {
  int64_t operand_bytes;  // Of one element.

  void (*pack_left)(const TileRows& x, void* y);              // [64, D]
  void (*pack_left_transposed)(const TileRows& x, void* y);   // [D, 64]
  void (*pack_right)(const TileRows& x, void* y);             // [64, D]
  void (*pack_right_transposed)(const TileRows& x, void* y);  // [D, 64]
  void (*forward)(const ForwardTile& tile);
  void (*backward)(const BackwardTile& tile);
  // Rows of y from a tile [64, D], and from [D, 64] times a factor per row.
  void (*store)(const float* tile, const TileRows& y);
  void (*store_transposed)(const float* tile, const float* factors,
                           const TileRows& y);
  // products[i] = the product of rows i of x and y.
  void (*row_dots)(const TileRows& x, const TileRows& y, float* products);
};

// For BF16 operands, on processors that have AVX-512 BF16.
const TileKernels* Bf16TileKernels();
const TileKernels* F32TileKernels();

}  // namespace lorica::cpu

#endif  // LORICA_RUNTIME_CPU_ATTENTION_TILES_H_
