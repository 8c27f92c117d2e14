// Apart from block.cc, to be compiled for speed: most of a kernel's time on the
// simulator is here.
#include <cstdint>
#include <cstring>

#include "tests/support/cuda_sim/block.h"

namespace lorica::cuda_sim {
namespace {

// Row `group` of what the lanes show: 16 numbers, from two words of each of
// four lanes.
void Gather(const LaneWords* shown, int group, int first_word, int word_step,
            float (&row)[16]) {
  for (int k = 0; k < 16; k += 2) {
    const LaneWords& lane = shown[group * 4 + k % 8 / 2];
    const uint32_t pair = lane.words[first_word + k / 8 * word_step];
    const uint32_t halves[2] = {pair << 16, pair & 0xffff0000u};
    std::memcpy(&row[k], halves, sizeof halves);
  }
}

}  // namespace

void MmaBf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
             Site site) {
  const LaneWords mine = {{a[0], a[1], a[2], a[3], b0, b1}};
  const LaneWords* shown = Exchange(~uint32_t{0}, mine, site);
  float rows[2][16];
  float cols[2][16];
  for (int half = 0; half < 2; ++half) {
    Gather(shown, Lane() / 4, half, 2, rows[half]);
    Gather(shown, Lane() % 4 * 2 + half, 4, 1, cols[half]);
  }
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 16; ++k) d[i] += rows[i / 2][k] * cols[i % 2][k];
  }
}

}  // namespace lorica::cuda_sim
