#include "launch/export/merge_report.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "launch/commands/tensor_listing.h"

namespace lorica {
namespace {

void PrintTensor(const MergedTensor& tensor, int name_width,
                 std::ostream& out) {
  out << absl::StreamFormat("%-*s  %-14s %-7s %9.2e %9.2e", name_width,
                            tensor.name, ShapeToString(tensor.shape),
                            tensor.adapted ? "merged" : "copied",
                            tensor.rounding.largest, tensor.rounding.rms());
  if (tensor.against_expected.has_value()) {
    out << absl::StreamFormat("  %9.2e %9.2e", tensor.against_expected->largest,
                              tensor.against_expected->rms());
  }
  out << "\n";
}

// The tensors together, and the one with the largest error.
struct Worst {
  ErrorStatistic errors;
  std::string tensor;

  void Add(const std::string& name, const ErrorStatistic& of) {
    if (tensor.empty() || of.largest > errors.largest) tensor = name;
    errors.Add(of);
  }
};

void PrintErrors(const char* what, const Worst& worst, std::ostream& out) {
  out << absl::StreamFormat("%s: largest %.3e, in %s; rms %.3e\n", what,
                            worst.errors.largest, worst.tensor,
                            worst.errors.rms());
}

}  // namespace

void PrintMergedFiles(const MergedFiles& files, StoredType type, double seconds,
                      std::ostream& out) {
  int name_width = 4;
  for (const MergedTensor& tensor : files.tensors) {
    name_width = std::max(name_width, static_cast<int>(tensor.name.size()));
  }
  const bool compared = !files.tensors.empty() &&
                        files.tensors.front().against_expected.has_value();
  out << absl::StreamFormat("%-*s  %-14s %-7s %9s %9s%s\n", name_width, "name",
                            "shape", "weight", "rounding:", "rms",
                            compared ? "  original:       rms" : "");
  Worst rounding;
  Worst difference;
  int64_t merged = 0;
  std::vector<MergedTensor> tensors = files.tensors;
  std::sort(tensors.begin(), tensors.end(),
            [](const MergedTensor& a, const MergedTensor& b) {
              return NaturallyBefore(a.name, b.name);
            });
  for (const MergedTensor& tensor : tensors) {
    PrintTensor(tensor, name_width, out);
    merged += tensor.adapted ? 1 : 0;
    rounding.Add(tensor.name, tensor.rounding);
    if (compared) difference.Add(tensor.name, *tensor.against_expected);
  }
  out << absl::StreamFormat(
      "%d tensors, %d of them merged, %s, %.1f MB in %d files, %.1f s\n",
      tensors.size(), merged, NameOf(type),
      static_cast<double>(files.bytes) / 1e6, files.files.size(), seconds);
  PrintErrors("rounding error", rounding, out);
  if (compared) {
    PrintErrors("difference from the original", difference, out);
  }
}

void PrintLogits(const LogitDifference& logits, const char* from,
                 std::ostream& out) {
  out << absl::StreamFormat(
      "logits of %d tokens against %s: largest difference %.3e, rms %.3e of "
      "%.3g; the likeliest token is the same for %d\n",
      logits.tokens, from, logits.largest, logits.rms, logits.rms_logit,
      logits.same_choices);
}

}  // namespace lorica
