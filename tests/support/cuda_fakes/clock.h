// Vector clocks: what is certain to have happened before what.
#ifndef LORICA_TESTS_SUPPORT_CUDA_FAKES_CLOCK_H_
#define LORICA_TESTS_SUPPORT_CUDA_FAKES_CLOCK_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lorica::cuda_fakes {

// The tick-th operation of a stream. Ticks count from 1.
struct Stamp {
  size_t lane = 0;
  uint32_t tick = 0;
};

// How many operations of each stream are known to be done. Fidge, Mattern 1988.
class Clock {
 public:
  void Join(const Clock& other) {
    ticks_.resize(std::max(ticks_.size(), other.ticks_.size()), 0);
    for (size_t lane = 0; lane < other.ticks_.size(); ++lane) {
      ticks_[lane] = std::max(ticks_[lane], other.ticks_[lane]);
    }
  }
  void Add(Stamp stamp) {
    ticks_.resize(std::max(ticks_.size(), stamp.lane + 1), 0);
    ticks_[stamp.lane] = std::max(ticks_[stamp.lane], stamp.tick);
  }
  bool Knows(Stamp stamp) const {
    return stamp.tick == 0 ||
           (stamp.lane < ticks_.size() && ticks_[stamp.lane] >= stamp.tick);
  }

 private:
  std::vector<uint32_t> ticks_;
};

}  // namespace lorica::cuda_fakes

#endif  // LORICA_TESTS_SUPPORT_CUDA_FAKES_CLOCK_H_
