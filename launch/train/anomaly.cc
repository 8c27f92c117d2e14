#include "launch/train/anomaly.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lorica {
namespace {

double MedianOf(std::vector<double> values) {
  const auto middle =
      values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string Judge(const char* what, double value, double factor,
                  const std::vector<double>& recent) {
  if (!std::isfinite(value)) return absl::StrCat("the ", what, " is ", value);
  if (factor == 0 || recent.size() < kFewestRecentSteps) return "";
  const double median = MedianOf(recent);
  if (value <= factor * median) return "";
  return absl::StrCat("the ", what, " is ", value, ", over ", factor,
                      " times the ", median, " usual lately");
}

void Add(double value, std::vector<double>* recent) {
  recent->push_back(value);
  if (recent->size() > kRecentSteps) recent->erase(recent->begin());
}

}  // namespace

std::string AnomalyOf(double loss, double grad_norm, double outlier_factor,
                      const TrainingPosition& position) {
  std::string loss_anomaly =
      Judge("loss", loss, outlier_factor, position.recent_losses);
  if (!loss_anomaly.empty()) return loss_anomaly;
  return Judge("gradient's norm", grad_norm, outlier_factor,
               position.recent_grad_norms);
}

void Remember(double loss, double grad_norm, TrainingPosition* position) {
  Add(loss, &position->recent_losses);
  Add(grad_norm, &position->recent_grad_norms);
}

}  // namespace lorica
