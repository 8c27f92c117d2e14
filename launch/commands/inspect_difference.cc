#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_format.h"
#include "launch/commands/inspect.h"
#include "launch/commands/saved_adapter.h"
#include "launch/commands/tensor_listing.h"
#include "model/export/adapter_algebra.h"
#include "model/peft_adapter.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

absl::StatusOr<PeftAdapter> ReadAdapterAt(const std::string& path,
                                          const char* which,
                                          std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const std::string directory,
                          FindAdapterDirectory(path));
  LORICA_ASSIGN_OR_RETURN(PeftAdapter adapter, ReadPeftAdapter(directory));
  out << absl::StreamFormat("%s: %s, %d modules, rank %d, alpha %g\n", which,
                            directory, adapter.modules.size(),
                            adapter.lora.rank, adapter.lora.alpha);
  return adapter;
}

std::string CosineOf(const std::optional<Likeness>& likeness) {
  return likeness.has_value() ? absl::StrFormat("%.6f", likeness->cosine) : "-";
}

void PrintLine(const std::string& name, int width, const Likeness& change,
               const std::string& cosine, const std::string& a,
               const std::string& b, std::ostream& out) {
  out << absl::StreamFormat("%-*s %10.4g %10.4g %10.4g %10s %10s %10s\n", width,
                            name, change.first_norm, change.second_norm,
                            change.difference_norm, cosine, a, b);
}

}  // namespace

absl::Status InspectDifference(const std::string& first,
                               const std::string& second, std::ostream& out) {
  LORICA_ASSIGN_OR_RETURN(const PeftAdapter x,
                          ReadAdapterAt(first, "first ", out));
  LORICA_ASSIGN_OR_RETURN(const PeftAdapter y,
                          ReadAdapterAt(second, "second", out));
  std::vector<ModuleLikeness> modules = Compare(x, y);
  std::sort(modules.begin(), modules.end(),
            [](const ModuleLikeness& a, const ModuleLikeness& b) {
              return NaturallyBefore(a.module, b.module);
            });
  int width = 6;
  for (const ModuleLikeness& module : modules) {
    width = std::max(width, static_cast<int>(module.module.size()));
  }
  out << "\nnorms of the changes s B A, and cosines of changes and factors\n";
  out << absl::StreamFormat("%-*s %10s %10s %10s %10s %10s %10s\n", width,
                            "module", "first", "second", "difference", "cosine",
                            "cosine A", "cosine B");
  for (const ModuleLikeness& module : modules) {
    const std::string cosine =
        module.comparable ? absl::StrFormat("%.6f", module.change.cosine)
                          : (!module.in_second  ? "only first"
                             : !module.in_first ? "only second"
                                                : "shapes");
    PrintLine(module.module, width, module.change, cosine, CosineOf(module.a),
              CosineOf(module.b), out);
  }
  const Likeness total = Total(modules);
  PrintLine("total", width, total, absl::StrFormat("%.6f", total.cosine), "-",
            "-", out);
  return absl::OkStatus();
}

}  // namespace lorica
