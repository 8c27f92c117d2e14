#include <algorithm>
#include <cstdint>

#include "runtime/cpu/attention/tiles.h"
#include "runtime/cpu/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/attention/tiles_f32.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lorica::cpu::HWY_NAMESPACE {
namespace {

constexpr float kHidden = -1e30f;  // The score of a key a query may not see.

constexpr int64_t kWidth = hn::MaxLanes(Floats());

// Rows that are transposed together.
constexpr int64_t kQuad = 4;

// Vectors of a product's row kept in registers beside kRowStep rows: 16 sums
// where there are 32 registers, 8 where there are 16.
constexpr int64_t kGroup = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// C [kRowStep, kVectors vectors] += A B, or = where kUpdate says so.
template <int64_t kVectors, Update kUpdate>
HWY_INLINE void ProductBlock(int64_t k, const float* a, int64_t a_stride,
                             const float* b, int64_t b_stride, float* c,
                             int64_t c_stride) {
  const Floats d;
  FloatVec sum[kRowStep][kVectors];
  for (int64_t r = 0; r < kRowStep; ++r) {
    for (int64_t v = 0; v < kVectors; ++v) {
      sum[r][v] = kUpdate == Update::kAdd
                      ? hn::LoadU(d, c + r * c_stride + v * kWidth)
                      : hn::Zero(d);
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    FloatVec right[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) {
      right[v] = hn::LoadU(d, b + i * b_stride + v * kWidth);
    }
    for (int64_t r = 0; r < kRowStep; ++r) {
      const auto left = hn::Set(d, a[r * a_stride + i]);
      for (int64_t v = 0; v < kVectors; ++v) {
        sum[r][v] = hn::MulAdd(left, right[v], sum[r][v]);
      }
    }
  }
  for (int64_t r = 0; r < kRowStep; ++r) {
    for (int64_t v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[r][v], d, c + r * c_stride + v * kWidth);
    }
  }
}

// C [m, n] of one panel of at most 64 lanes.
template <Update kUpdate>
void PanelProduct(int64_t m, int64_t n, int64_t k, const float* a,
                  int64_t a_stride, const float* b, int64_t b_stride, float* c,
                  int64_t c_stride) {
  for (int64_t row = 0; row < m; row += kRowStep) {
    const float* left = a + row * a_stride;
    float* result = c + row * c_stride;
    int64_t col = 0;
    for (; col + kGroup * kWidth <= n; col += kGroup * kWidth) {
      ProductBlock<kGroup, kUpdate>(k, left, a_stride, b + col, b_stride,
                                    result + col, c_stride);
    }
    for (; col < n; col += kWidth) {
      ProductBlock<1, kUpdate>(k, left, a_stride, b + col, b_stride,
                               result + col, c_stride);
    }
  }
}

// C [keys, queries] = A [keys, D] B of a band of keys and the queries from
// `lane` on, where B [D, queries].
void BandProduct(const TileExtent& extent, int64_t padded, const void* a,
                 const void* b, Range keys, int64_t lane, float* c) {
  PanelProduct<Update::kAssign>(
      keys.size(), extent.queries - lane, padded,
      static_cast<const float*>(a) + keys.begin * padded, padded,
      static_cast<const float*>(b) + lane, kTile, c + lane, kTile);
}

// The same of all keys.
void ScoreProduct(const TileExtent& extent, int64_t padded, const void* a,
                  const void* b, float* c) {
  ForBands(extent, [&](Range keys, int64_t lane) HWY_ATTR {
    BandProduct(extent, padded, a, b, keys, lane, c + keys.begin * kTile);
  });
}

// C [D, queries] += A [D, keys] B, where B [keys, queries]; or =, as kUpdate
// says.
template <Update kUpdate>
void QueryProduct(const TileExtent& extent, int64_t padded, const void* a,
                  const void* b, float* c) {
  ForBands(extent, [&](Range keys, int64_t lane) HWY_ATTR {
    const auto product =
        keys.begin == 0 ? PanelProduct<kUpdate> : PanelProduct<Update::kAdd>;
    product(padded, extent.queries - lane, keys.size(),
            static_cast<const float*>(a) + keys.begin, kTile,
            static_cast<const float*>(b) + keys.begin * kTile + lane, kTile,
            c + lane, kTile);
  });
}

// C [keys, D] += A [keys, queries] B, where B [queries, D].
void AddKeyProduct(const TileExtent& extent, int64_t padded, const void* a,
                   const void* b, float* c) {
  ForBands(extent, [&](Range keys, int64_t lane) HWY_ATTR {
    for (int64_t col = 0; col < padded; col += kTile) {
      const int64_t width = std::min(kTile, padded - col);
      PanelProduct<Update::kAdd>(
          keys.size(), width, extent.queries - lane,
          static_cast<const float*>(a) + keys.begin * kTile + lane, kTile,
          static_cast<const float*>(b) + col * kTile + lane * width, width,
          c + keys.begin * padded + col, padded);
    }
  });
}

// Row `row` of x, zero beyond its end, to `padded` floats.
void WidenRow(const TileRows& x, int64_t row, float* y) {
  if (row >= x.rows) {
    std::fill_n(y, x.padded, 0.0f);
    return;
  }
  DispatchFloat(x.view.dtype, [&](auto t) HWY_ATTR {
    const auto* from = x.view.Row<const decltype(t)>(row);
    ForVectors(x.view.cols, [&](auto lanes, int64_t i) HWY_ATTR {
      Store(Load(from + i, lanes), y + i, lanes);
    });
  });
  std::fill(y + x.view.cols, y + x.padded, 0.0f);
}

void PackLeft(const TileRows& x, void* y) {
  auto* to = static_cast<float*>(y);
  for (int64_t row = 0; row < kTile; ++row) {
    WidenRow(x, row, to + row * x.padded);
  }
}

// [D, 64]. Four rows at a time become columns by way of `quads`, where they
// take turns.
void PackTransposed(const TileRows& x, void* y) {
  const Floats d;
  HWY_ALIGN float rows[kQuad * kMaxHeadDim];
  HWY_ALIGN float quads[kQuad * kWidth];
  auto* to = static_cast<float*>(y);
  const int64_t n = x.padded;
  for (int64_t row = 0; row < kTile; row += kQuad) {
    for (int64_t r = 0; r < kQuad; ++r) WidenRow(x, row + r, rows + r * n);
    for (int64_t i = 0; i < n; i += kWidth) {
      const float* from = rows + i;
      hn::StoreInterleaved4(hn::Load(d, from), hn::Load(d, from + n),
                            hn::Load(d, from + 2 * n),
                            hn::Load(d, from + 3 * n), d, quads);
      for (int64_t j = 0; j < kWidth; ++j) {
        std::copy_n(quads + j * kQuad, kQuad, to + (i + j) * kTile + row);
      }
    }
  }
}

// [64, D] in panels.
void PackRight(const TileRows& x, void* y) {
  auto* to = static_cast<float*>(y);
  for (int64_t row = 0; row < kTile; ++row) {
    HWY_ALIGN float line[kMaxHeadDim];
    WidenRow(x, row, line);
    for (int64_t col = 0; col < x.padded; col += kTile) {
      const int64_t width = std::min(kTile, x.padded - col);
      std::copy_n(line + col, width, to + col * kTile + row * width);
    }
  }
}

// 2^x; zero below -126.
HWY_INLINE FloatVec Exp2(FloatVec x) {
  const Floats d;
  const auto lowest = hn::Set(d, -126.0f);
  const auto is_zero = hn::Lt(x, lowest);
  x = hn::Max(x, lowest);
  const auto shift = hn::Set(d, kRoundingShift);
  const auto shifted = hn::Add(x, shift);
  const auto f = hn::Sub(x, hn::Sub(shifted, shift));
  // Minimax on [-1/2, 1/2], relative error 2e-9.
  auto p = hn::Set(d, 1.5345812e-4f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.339993122e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.618488957e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.550328777e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.402264689e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.931472057e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  return hn::IfThenZeroElse(is_zero, TimesPowerOfTwo(p, shifted));
}

// The lanes j of the vector at lane `lane` that may see key i.
HWY_INLINE auto Visible(const TileExtent& extent, int64_t key, int64_t lane) {
  const hn::RebindToSigned<Floats> ints;
  const auto query = hn::Iota(ints, static_cast<int32_t>(lane));
  const auto least =
      hn::Set(ints, static_cast<int32_t>(key - extent.diagonal - 1));
  return hn::RebindMask(Floats(), hn::Gt(query, least));
}

// Scales the scores of a vector of queries, hides what they may not see and
// updates their maximum; returns the factor that earlier sums are due.
HWY_INLINE FloatVec ScaleScores(const ForwardTile& tile, int64_t lane) {
  const Floats d;
  const bool masked = tile.extent.Masked();
  const auto scale = hn::Set(d, tile.scale * kLog2E);
  const auto hidden = hn::Set(d, kHidden);
  const auto before = tile.first ? hidden : hn::LoadU(d, tile.max + lane);
  auto most = before;
  const int64_t keys = tile.extent.KeysOf(lane);
  for (int64_t key = 0; key < keys; ++key) {
    float* score = tile.scores + key * kTile + lane;
    auto v = hn::Mul(hn::LoadU(d, score), scale);
    if (masked) {
      v = hn::IfThenElse(Visible(tile.extent, key, lane), v, hidden);
    }
    hn::StoreU(v, d, score);
    most = hn::Max(most, v);
  }
  hn::StoreU(most, d, tile.max + lane);
  return Exp2(hn::Sub(before, most));
}

void Forward(const ForwardTile& tile) {
  const Floats d;
  const TileExtent& extent = tile.extent;
  ScoreProduct(extent, tile.padded, tile.k, tile.q, tile.scores);
  auto* weights = static_cast<float*>(tile.weights);
  for (int64_t lane = 0; lane < extent.queries; lane += kWidth) {
    const auto decay = ScaleScores(tile, lane);
    const auto most = hn::LoadU(d, tile.max + lane);
    auto sum = tile.first ? hn::Zero(d)
                          : hn::Mul(hn::LoadU(d, tile.sum + lane), decay);
    const int64_t keys = extent.KeysOf(lane);
    for (int64_t key = 0; key < keys; ++key) {
      const int64_t at = key * kTile + lane;
      const auto p = Exp2(hn::Sub(hn::LoadU(d, tile.scores + at), most));
      hn::StoreU(p, d, weights + at);
      sum = hn::Add(sum, p);
    }
    hn::StoreU(sum, d, tile.sum + lane);
    if (tile.first) continue;
    for (int64_t i = 0; i < tile.padded; ++i) {
      float* out = tile.out + i * kTile + lane;
      hn::StoreU(hn::Mul(hn::LoadU(d, out), decay), d, out);
    }
  }
  const auto values =
      tile.first ? QueryProduct<Update::kAssign> : QueryProduct<Update::kAdd>;
  values(extent, tile.padded, tile.v, weights, tile.out);
}

// Weights and score gradients of a band of keys and a vector of queries, from
// the band's scores and weight gradients.
HWY_INLINE void DifferentiateSoftmax(const BackwardTile& tile, Range keys,
                                     int64_t lane) {
  const Floats d;
  const bool masked = tile.extent.Masked();
  const auto log_scale = hn::Set(d, tile.scale * kLog2E);
  const auto scale = hn::Set(d, tile.scale);
  const auto lse = hn::LoadU(d, tile.lse + lane);
  const auto dot = hn::LoadU(d, tile.dot + lane);
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    const int64_t at = key * kTile + lane;
    const int64_t in_band = (key - keys.begin) * kTile + lane;
    auto p =
        Exp2(hn::MulSub(hn::LoadU(d, tile.scores + in_band), log_scale, lse));
    if (masked) p = hn::IfThenElseZero(Visible(tile.extent, key, lane), p);
    const auto dp = hn::Sub(hn::LoadU(d, tile.dweights + in_band), dot);
    hn::StoreU(p, d, static_cast<float*>(tile.weights) + at);
    hn::StoreU(hn::Mul(hn::Mul(p, scale), dp), d,
               static_cast<float*>(tile.dscores) + at);
  }
}

void Backward(const BackwardTile& tile) {
  const TileExtent& extent = tile.extent;
  ForBands(extent, kLanes, [&](Range keys, int64_t first_lane) HWY_ATTR {
    BandProduct(extent, tile.padded, tile.k, tile.q, keys, first_lane,
                tile.scores);
    BandProduct(extent, tile.padded, tile.v, tile.dout, keys, first_lane,
                tile.dweights);
    for (int64_t lane = first_lane; lane < extent.queries; lane += kWidth) {
      DifferentiateSoftmax(tile, keys, lane);
    }
  });
  AddKeyProduct(extent, tile.padded, tile.weights, tile.dout_rows, tile.dv);
  AddKeyProduct(extent, tile.padded, tile.dscores, tile.q_rows, tile.dk);
  QueryProduct<Update::kAdd>(extent, tile.padded, tile.k_transposed,
                             tile.dscores, tile.dq);
}

// Row `row` of y from floats.
void StoreRow(const float* from, const TileRows& y, int64_t row) {
  DispatchFloat(y.view.dtype, [&](auto t) HWY_ATTR {
    auto* to = y.view.Row<decltype(t)>(row);
    ForVectors(y.view.cols, [&](auto lanes, int64_t i) HWY_ATTR {
      Store(Load(from + i, lanes), to + i, lanes);
    });
  });
}

void StoreTile(const float* tile, const TileRows& y) {
  for (int64_t row = 0; row < y.rows; ++row) {
    StoreRow(tile + row * y.padded, y, row);
  }
}

// The other way, by quads as well.
void StoreTransposed(const float* tile, const float* factors,
                     const TileRows& y) {
  const Floats d;
  HWY_ALIGN float rows[kQuad * kMaxHeadDim];
  HWY_ALIGN float quads[kQuad * kWidth];
  const int64_t n = y.padded;
  for (int64_t row = 0; row < y.rows; row += kQuad) {
    for (int64_t i = 0; i < n; i += kWidth) {
      for (int64_t j = 0; j < kWidth; ++j) {
        std::copy_n(tile + (i + j) * kTile + row, kQuad, quads + j * kQuad);
      }
      FloatVec v[kQuad];
      hn::LoadInterleaved4(d, quads, v[0], v[1], v[2], v[3]);
      for (int64_t r = 0; r < kQuad; ++r) {
        const auto factor = hn::Set(d, factors[row + r]);
        hn::Store(hn::Mul(v[r], factor), d, rows + r * n + i);
      }
    }
    const int64_t count = std::min(kQuad, y.rows - row);
    for (int64_t r = 0; r < count; ++r) StoreRow(rows + r * n, y, row + r);
  }
}

void RowDots(const TileRows& x, const TileRows& y, float* products) {
  DispatchFloat(x.view.dtype, [&](auto t) HWY_ATTR {
    for (int64_t row = 0; row < x.rows; ++row) {
      const auto* a = x.view.Row<const decltype(t)>(row);
      const auto* b = y.view.Row<const decltype(t)>(row);
      auto sum = hn::Zero(Floats());
      ForVectors(x.view.cols, [&](auto lanes, int64_t i) HWY_ATTR {
        sum = hn::MulAdd(Load(a + i, lanes), Load(b + i, lanes), sum);
      });
      products[row] = SumOfLanes(sum);
    }
  });
}

constexpr TileKernels kKernels = {
    .operand_bytes = sizeof(float),
    .pack_left = PackLeft,
    .pack_left_transposed = PackTransposed,
    .pack_right = PackRight,
    .pack_right_transposed = PackTransposed,
    .forward = Forward,
    .backward = Backward,
    .store = StoreTile,
    .store_transposed = StoreTransposed,
    .row_dots = RowDots,
};

}  // namespace

const TileKernels* TargetTileKernels() { return &kKernels; }

}  // namespace lorica::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lorica::cpu {

HWY_EXPORT(TargetTileKernels);

const TileKernels* F32TileKernels() {
  return HWY_DYNAMIC_DISPATCH(TargetTileKernels)();
}

}  // namespace lorica::cpu
#endif  // HWY_ONCE
