// Which lane of a warp holds which element, as the simulator has it, against
// the layouts that CuTe declares for the same instructions.
#include <gtest/gtest.h>

#include <cstdint>
#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/tensor.hpp>

#include "runtime/dtype.h"
#include "tests/support/cuda_sim/fragments.h"

namespace lorica::cuda_sim {
namespace {

using Mma = cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;
constexpr int kM = 16;
constexpr int kN = 8;
constexpr int kK = 16;

// Element `i` of lane `lane` as (row, column) of a matrix of `rows` rows: CuTe
// numbers the elements of a, b' and d down their columns.
struct Element {
  int row;
  int col;
};
template <typename Layout>
Element At(const Layout& layout, int lane, int i, int rows) {
  const int number = static_cast<int>(layout(lane, i));
  return {number % rows, number / rows};
}

// Small, so that products and their sums are exact, and no two rows alike.
int LeftAt(Element e) { return (e.row * 7 + e.col * e.col * 3) % 31 - 15; }
int RightAt(Element e) { return (e.row * e.row * 5 + e.col * 11) % 29 - 14; }

uint16_t Bits(int value) {
  return std::bit_cast<uint16_t>(BFloat16(static_cast<float>(value)));
}

TEST(MmaLayoutTest, ProductsOfFragmentsLaidOutByCuTeAreTheProduct) {
  PerLane<uint16_t, 8> a;
  PerLane<uint16_t, 4> b;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto at = static_cast<size_t>(lane);
    for (int i = 0; i < 8; ++i) {
      a[at][i] = Bits(LeftAt(At(Mma::ALayout{}, lane, i, kM)));
    }
    for (int i = 0; i < 4; ++i) {
      b[at][i] = Bits(RightAt(At(Mma::BLayout{}, lane, i, kN)));
    }
  }
  const PerLane<float, 4> d = MultiplyFragments(a, b);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Element e = At(Mma::CLayout{}, lane, i, kM);
      int sum = 0;
      for (int k = 0; k < kK; ++k) {
        sum += LeftAt({e.row, k}) * RightAt({e.col, k});
      }
      EXPECT_EQ(d[static_cast<size_t>(lane)][i], static_cast<float>(sum))
          << "lane " << lane << " element " << i;
    }
  }
}

// CuTe's copies number bits: (lane, bit) of what lanes point to and of what
// they receive have the same number where they are the same bit.
template <typename Traits>
void ExpectLoadsAsInCuTe(Load load) {
  PerLane<uint16_t, 8> rows;
  uint16_t source[kLanes * 8];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const auto number =
          static_cast<int>(typename Traits::SrcLayout{}(lane, i * 16));
      const auto value = static_cast<uint16_t>(lane * 8 + i);
      rows[static_cast<size_t>(lane)][i] = value;
      source[number / 16] = value;
    }
  }
  const PerLane<uint16_t, 8> loaded = LoadFragments(rows, load);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const auto number =
          static_cast<int>(typename Traits::DstLayout{}(lane, i * 16));
      EXPECT_EQ(loaded[static_cast<size_t>(lane)][i], source[number / 16])
          << "lane " << lane << " element " << i;
    }
  }
}

TEST(MatrixLoadLayoutTest, LanesReceiveWhatCuTeSays) {
  ExpectLoadsAsInCuTe<cute::Copy_Traits<cute::SM75_U32x4_LDSM_N>>(Load::kPlain);
}

TEST(MatrixLoadLayoutTest, LanesReceiveWhatCuTeSaysTransposed) {
  ExpectLoadsAsInCuTe<cute::Copy_Traits<cute::SM75_U16x8_LDSM_T>>(
      Load::kTransposed);
}

}  // namespace
}  // namespace lorica::cuda_sim
