// Adapters as changes of the weights, s B A: negated, added, compared.
#ifndef LORICA_MODEL_EXPORT_ADAPTER_ALGEBRA_H_
#define LORICA_MODEL_EXPORT_ADAPTER_ALGEBRA_H_

#include <optional>
#include <string>
#include <vector>

#include "model/peft_adapter.h"

namespace lorica {

// s of a module of the adapter: alpha / r, or alpha / sqrt(r). The patterns
// must be one entry a module, as ReadPeftAdapter leaves them.
double ScaleOf(const PeftAdapter& adapter, const std::string& module);

// -s B A. Exact.
PeftAdapter Negated(PeftAdapter adapter);

// s1 B1 A1 + s2 B2 A2 as one adapter that stacks the factors, so that ranks
// add. Where the two scales differ, B1 is multiplied by their ratio and rounded
// to F32. Both adapters must be of one model.
PeftAdapter Sum(const PeftAdapter& first, const PeftAdapter& second);

// Two arrays of one shape as vectors, or two changes s B A of a weight.
struct Likeness {
  double first_norm = 0;  // Euclidean.
  double second_norm = 0;
  double difference_norm = 0;
  // Of the angle between them; 0 where one of them is zero.
  double cosine = 0;
};

struct ModuleLikeness {
  std::string module;
  // Which of the two adapt it.
  bool in_first = false;
  bool in_second = false;
  // Of A and B where both have the module with the same shapes. Many pairs of
  // factors make one change, so these may differ where `change` agrees.
  std::optional<Likeness> a;
  std::optional<Likeness> b;
  // Of s B A where both have it and their products have one shape; otherwise
  // only the norms of those that are there.
  Likeness change;
  bool comparable = false;
};

// In the order of the modules' names. Sums are in double; a difference's norm
// below 1e-8 of the norms is noise.
std::vector<ModuleLikeness> Compare(const PeftAdapter& first,
                                    const PeftAdapter& second);

// The modules together, as one long vector.
Likeness Total(const std::vector<ModuleLikeness>& modules);

}  // namespace lorica

#endif  // LORICA_MODEL_EXPORT_ADAPTER_ALGEBRA_H_
