// A run that must be over in time.
#ifndef LORICA_LAUNCH_TRAIN_TIME_LIMIT_H_
#define LORICA_LAUNCH_TRAIN_TIME_LIMIT_H_

#include <algorithm>
#include <chrono>

namespace lorica {

// Says when there is no more time for another step and a save.
class TimeLimit {
 public:
  using Clock = std::chrono::steady_clock;

  // `seconds` after `start` all is to be over; 0: never.
  TimeLimit(double seconds, Clock::time_point start)
      : seconds_(seconds), start_(start) {}

  // Called between steps. Holds back twice the longest time between two calls
  // so far (a step with all that comes with it) and twice the longest save.
  bool IsUp(Clock::time_point now) {
    if (seconds_ == 0) return false;
    if (asked_) step_ = std::max(step_, Seconds(now - last_));
    asked_ = true;
    last_ = now;
    return Seconds(now - start_) + 2 * step_ + 2 * save_ >= seconds_;
  }
  void Saved(double seconds) { save_ = std::max(save_, seconds); }

 private:
  static double Seconds(Clock::duration duration) {
    return std::chrono::duration<double>(duration).count();
  }

  double seconds_;
  Clock::time_point start_;
  Clock::time_point last_;
  bool asked_ = false;
  double step_ = 0;
  double save_ = 0;
};

}  // namespace lorica

#endif  // LORICA_LAUNCH_TRAIN_TIME_LIMIT_H_
