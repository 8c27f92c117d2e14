#include <immintrin.h>

#include <cstdint>

#include "runtime/cpu/attention/tiles.h"
#include "runtime/cpu/avx512-inl.h"
#include "runtime/dtype.h"

namespace lorica::cpu {
namespace {

constexpr float kHidden = -1e30f;  // Below any score.

const uint16_t* RowOf(const TileRows& x, int64_t row) {
  return static_cast<const uint16_t*>(x.view.data) + row * x.view.row_stride;
}

// Elements `col` .. `col` + 31 of a row, zero past its end.
__m512i LoadHalves(const TileRows& x, int64_t row, int64_t col) {
  if (row >= x.rows) return _mm512_setzero_si512();
  return _mm512_maskz_loadu_epi16(FirstHalves(x.view.cols - col),
                                  RowOf(x, row) + col);
}

void PackLeft(const TileRows& x, void* y) {
  auto* to = static_cast<uint16_t*>(y);
  for (int64_t row = 0; row < kTile; ++row, to += x.padded) {
    for (int64_t col = 0; col < x.padded; col += 32) {
      _mm512_mask_storeu_epi16(to + col, FirstHalves(x.padded - col),
                               LoadHalves(x, row, col));
    }
  }
}

// Calls store(first column pair, first row, vectors) with 16 rows of 16 column
// pairs transposed: vector i holds pair i of the 16 rows.
template <typename StoreBlock>
void ForTransposed(const TileRows& x, const StoreBlock& store) {
  for (int64_t row = 0; row < kTile; row += 16) {
    for (int64_t col = 0; col < x.padded; col += 32) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i) block[i] = LoadHalves(x, row + i, col);
      Transpose(block);
      store(col / 2, row, block);
    }
  }
}

int64_t PairsFrom(const TileRows& x, int64_t pair) {
  const int64_t left = x.padded / 2 - pair;
  return left < 16 ? left : 16;
}

void PackRightTransposed(const TileRows& x, void* y) {
  auto* to = static_cast<uint32_t*>(y);
  ForTransposed(x, [&](int64_t pair, int64_t row, const __m512i* block) {
    const int64_t pairs = PairsFrom(x, pair);
    for (int64_t i = 0; i < pairs; ++i) {
      _mm512_storeu_si512(to + (pair + i) * kTile + row, block[i]);
    }
  });
}

void PackLeftTransposed(const TileRows& x, void* y) {
  auto* to = static_cast<uint16_t*>(y);
  ForTransposed(x, [&](int64_t pair, int64_t row, const __m512i* block) {
    const int64_t pairs = PairsFrom(x, pair);
    for (int64_t i = 0; i < pairs; ++i) {
      uint16_t* even = to + 2 * (pair + i) * kTile + row;
      const __m512i odd = _mm512_srli_epi32(block[i], 16);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(even),
                          _mm512_cvtepi32_epi16(block[i]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(even + kTile),
                          _mm512_cvtepi32_epi16(odd));
    }
  });
}

void PackRight(const TileRows& x, void* y) {
  const __m512i low = InterleaveLow();
  const __m512i high = InterleaveHigh();
  auto* to = static_cast<uint32_t*>(y);
  for (int64_t col = 0; col < x.padded; col += 32) {
    const int64_t panel = col / kTile * kTile;
    const int64_t width = x.padded - panel < kTile ? x.padded - panel : kTile;
    for (int64_t row = 0; row < kTile; row += 2) {
      const __m512i a = LoadHalves(x, row, col);
      const __m512i b = LoadHalves(x, row + 1, col);
      uint32_t* pairs =
          to + panel * kTile / 2 + row / 2 * width + (col - panel);
      _mm512_storeu_si512(pairs, _mm512_permutex2var_epi16(a, low, b));
      if (x.padded - col < 32) continue;
      _mm512_storeu_si512(pairs + 16, _mm512_permutex2var_epi16(a, high, b));
    }
  }
}

enum class Mask : uint8_t { kNone, kDiagonal };

// The lanes of the vector at lane `lane` that see key `key`.
template <Mask kMask>
__mmask16 Visible(const TileExtent& extent, int64_t key, int64_t lane) {
  if (kMask == Mask::kNone) return 0xffff;
  return static_cast<__mmask16>(~FirstLanes(key - extent.diagonal - lane));
}

// Updates the maxima of 16 queries with their scores; returns the factor that
// earlier sums are due.
template <Mask kMask>
__m512 UpdateMax(const ForwardTile& tile, int64_t lane) {
  const __m512 scale = _mm512_set1_ps(tile.scale * kLog2E);
  const __m512 before =
      tile.first ? _mm512_set1_ps(kHidden) : _mm512_loadu_ps(tile.max + lane);
  __m512 most[kRowStep] = {before, before, before, before};
  const int64_t keys = tile.extent.KeysOf(lane);
  for (int64_t key = 0; key < keys; key += kRowStep) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowStep; ++r) {
      const __m512 score = _mm512_mul_ps(
          _mm512_loadu_ps(tile.scores + (key + r) * kTile + lane), scale);
      const __mmask16 visible = Visible<kMask>(tile.extent, key + r, lane);
      most[r] = _mm512_mask_max_ps(most[r], visible, most[r], score);
    }
  }
  const __m512 max = _mm512_max_ps(_mm512_max_ps(most[0], most[1]),
                                   _mm512_max_ps(most[2], most[3]));
  _mm512_storeu_ps(tile.max + lane, max);
  return Exp2(_mm512_sub_ps(before, max));
}

// Stores the weights of 16 queries; returns their sum.
template <Mask kMask>
__m512 StoreWeights(const ForwardTile& tile, int64_t lane) {
  const __m512 scale = _mm512_set1_ps(tile.scale * kLog2E);
  const __m512 max = _mm512_loadu_ps(tile.max + lane);
  auto* weights = static_cast<uint32_t*>(tile.weights);
  __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  const int64_t keys = tile.extent.KeysOf(lane);
  for (int64_t key = 0; key < keys; key += 2) {
    __m512 p[2];
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      const __m512 score =
          _mm512_loadu_ps(tile.scores + (key + r) * kTile + lane);
      p[r] = _mm512_maskz_mov_ps(Visible<kMask>(tile.extent, key + r, lane),
                                 Exp2(_mm512_fmsub_ps(score, scale, max)));
      sum[r] = _mm512_add_ps(sum[r], p[r]);
    }
    _mm512_storeu_si512(weights + key / 2 * kTile + lane,
                        Interleave(_mm512_cvtne2ps_pbh(p[1], p[0])));
  }
  return _mm512_add_ps(sum[0], sum[1]);
}

template <Mask kMask>
void UpdateSoftmax(const ForwardTile& tile, float* decay) {
  for (int64_t lane = 0; lane < tile.extent.queries; lane += kLanes) {
    const __m512 factor = UpdateMax<kMask>(tile, lane);
    _mm512_storeu_ps(decay + lane, factor);
    __m512 sum = StoreWeights<kMask>(tile, lane);
    if (!tile.first) {
      sum = _mm512_fmadd_ps(_mm512_loadu_ps(tile.sum + lane), factor, sum);
    }
    _mm512_storeu_ps(tile.sum + lane, sum);
  }
}

// C [keys, queries] = A [keys, D] B of a band of keys and the queries from
// `lane` on, where B [D, queries].
void BandProduct(const TileExtent& extent, int64_t padded, const void* a,
                 const void* b, Range keys, int64_t lane, float* c) {
  PanelProduct<Before::kReplace>(
      {.a = static_cast<const uint16_t*>(a) + keys.begin * padded,
       .a_stride = padded,
       .b = static_cast<const uint32_t*>(b) + lane,
       .b_stride = kTile,
       .c = c + lane,
       .c_stride = kTile},
      keys.size(), extent.queries - lane, padded);
}

// The same of all keys.
void ScoreProduct(const TileExtent& extent, int64_t padded, const void* a,
                  const void* b, float* c) {
  ForBands(extent, [&](Range keys, int64_t lane) {
    BandProduct(extent, padded, a, b, keys, lane, c + keys.begin * kTile);
  });
}

// C [D, queries] += A [D, keys] B, where B [keys, queries]; or what kBefore
// says.
template <Before kBefore>
void QueryProduct(const TileExtent& extent, int64_t padded, const void* a,
                  const void* b, float* c, const float* decay) {
  ForBands(extent, [&](Range keys, int64_t lane) {
    const PanelOperands operands = {
        .a = static_cast<const uint16_t*>(a) + keys.begin,
        .a_stride = kTile,
        .b = static_cast<const uint32_t*>(b) + keys.begin / 2 * kTile + lane,
        .b_stride = kTile,
        .c = c + lane,
        .c_stride = kTile,
        .decay = decay};
    const int64_t n = extent.queries - lane;
    if (keys.begin == 0) {
      PanelProduct<kBefore>(operands, padded, n, keys.size());
    } else {
      PanelProduct<Before::kAdd>(operands, padded, n, keys.size());
    }
  });
}

void Forward(const ForwardTile& tile) {
  const TileExtent& extent = tile.extent;
  ScoreProduct(extent, tile.padded, tile.k, tile.q, tile.scores);
  alignas(64) float decay[kTile];
  if (extent.Masked()) {
    UpdateSoftmax<Mask::kDiagonal>(tile, decay);
  } else {
    UpdateSoftmax<Mask::kNone>(tile, decay);
  }
  const auto values = tile.first ? QueryProduct<Before::kReplace>
                                 : QueryProduct<Before::kDecay>;
  values(extent, tile.padded, tile.v, tile.weights, tile.out, decay);
}

// Stores two rows of 16 lanes of a left operand.
void StoreRows(__m512bh low_high, void* left, int64_t key, int64_t lane) {
  auto* to = static_cast<uint16_t*>(left) + key * kTile + lane;
  const auto rows = (__m512i)low_high;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_castsi512_si256(rows));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + kTile),
                      _mm512_extracti64x4_epi64(rows, 1));
}

// Weights and score gradients of a band of keys and 16 queries, from the band's
// scores and weight gradients.
template <Mask kMask>
void DifferentiateSoftmax(const BackwardTile& tile, Range keys, int64_t lane) {
  const __m512 log_scale = _mm512_set1_ps(tile.scale * kLog2E);
  const __m512 scale = _mm512_set1_ps(tile.scale);
  const __m512 lse = _mm512_loadu_ps(tile.lse + lane);
  const __m512 dot = _mm512_loadu_ps(tile.dot + lane);
  auto* right = static_cast<uint32_t*>(tile.dscores_right);
  for (int64_t key = keys.begin; key < keys.end; key += 2) {
    __m512 p[2];
    __m512 ds[2];
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r) {
      const int64_t at = (key - keys.begin + r) * kTile + lane;
      p[r] = _mm512_maskz_mov_ps(
          Visible<kMask>(tile.extent, key + r, lane),
          Exp2(_mm512_fmsub_ps(_mm512_loadu_ps(tile.scores + at), log_scale,
                               lse)));
      const __m512 dp = _mm512_sub_ps(_mm512_loadu_ps(tile.dweights + at), dot);
      ds[r] = _mm512_mul_ps(_mm512_mul_ps(p[r], scale), dp);
    }
    StoreRows(_mm512_cvtne2ps_pbh(p[1], p[0]), tile.weights, key, lane);
    const __m512bh ds_rows = _mm512_cvtne2ps_pbh(ds[1], ds[0]);
    StoreRows(ds_rows, tile.dscores, key, lane);
    _mm512_storeu_si512(right + key / 2 * kTile + lane, Interleave(ds_rows));
  }
}

// C [keys, D] += A [keys, queries] B, where B [queries, D].
void AddKeyProduct(const TileExtent& extent, int64_t padded, const void* a,
                   const void* b, float* c) {
  ForBands(extent, [&](Range keys, int64_t lane) {
    AddProduct({.a = static_cast<const uint16_t*>(a) + keys.begin * kTile,
                .a_stride = kTile,
                .b = static_cast<const uint32_t*>(b),
                .c = c + keys.begin * padded,
                .c_stride = padded},
               keys.size(), padded, {lane, extent.queries});
  });
}

void Backward(const BackwardTile& tile) {
  const TileExtent& extent = tile.extent;
  const auto differentiate = extent.Masked()
                                 ? DifferentiateSoftmax<Mask::kDiagonal>
                                 : DifferentiateSoftmax<Mask::kNone>;
  ForBands(extent, kLanes, [&](Range keys, int64_t first_lane) {
    BandProduct(extent, tile.padded, tile.k, tile.q, keys, first_lane,
                tile.scores);
    BandProduct(extent, tile.padded, tile.v, tile.dout, keys, first_lane,
                tile.dweights);
    for (int64_t lane = first_lane; lane < extent.queries; lane += kLanes) {
      differentiate(tile, keys, lane);
    }
  });
  AddKeyProduct(extent, tile.padded, tile.weights, tile.dout_rows, tile.dv);
  AddKeyProduct(extent, tile.padded, tile.dscores, tile.q_rows, tile.dk);
  QueryProduct<Before::kAdd>(extent, tile.padded, tile.k_transposed,
                             tile.dscores_right, tile.dq, nullptr);
}

void StoreHalves(__m512 v, const TileRows& y, int64_t row, int64_t col) {
  _mm256_mask_storeu_epi16(const_cast<uint16_t*>(RowOf(y, row)) + col,
                           FirstLanes(y.view.cols - col),
                           (__m256i)_mm512_cvtneps_pbh(v));
}

void StoreTile(const float* tile, const TileRows& y) {
  for (int64_t row = 0; row < y.rows; ++row) {
    for (int64_t col = 0; col < y.padded; col += kLanes) {
      StoreHalves(_mm512_loadu_ps(tile + row * y.padded + col), y, row, col);
    }
  }
}

void StoreTransposed(const float* tile, const float* factors,
                     const TileRows& y) {
  for (int64_t row = 0; row < y.rows; row += 16) {
    const int64_t rows = y.rows - row < 16 ? y.rows - row : 16;
    for (int64_t col = 0; col < y.padded; col += kLanes) {
      __m512i block[16];
      for (int64_t i = 0; i < 16; ++i) {
        block[i] = _mm512_loadu_si512(tile + (col + i) * kTile + row);
      }
      Transpose(block);
      for (int64_t i = 0; i < rows; ++i) {
        const __m512 factor = _mm512_set1_ps(factors[row + i]);
        StoreHalves(_mm512_mul_ps(_mm512_castsi512_ps(block[i]), factor), y,
                    row + i, col);
      }
    }
  }
}

void RowDots(const TileRows& x, const TileRows& y, float* products) {
  for (int64_t row = 0; row < x.rows; ++row) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t col = 0; col < x.padded; col += 32) {
      sum = _mm512_dpbf16_ps(sum, (__m512bh)LoadHalves(x, row, col),
                             (__m512bh)LoadHalves(y, row, col));
    }
    products[row] = _mm512_reduce_add_ps(sum);
  }
}

}  // namespace

const TileKernels* Bf16TileKernels() {
  static constexpr TileKernels kKernels = {
      .operand_bytes = sizeof(uint16_t),
      .pack_left = PackLeft,
      .pack_left_transposed = PackLeftTransposed,
      .pack_right = PackRight,
      .pack_right_transposed = PackRightTransposed,
      .forward = Forward,
      .backward = Backward,
      .store = StoreTile,
      .store_transposed = StoreTransposed,
      .row_dots = RowDots,
  };
  return &kKernels;
}

}  // namespace lorica::cpu
