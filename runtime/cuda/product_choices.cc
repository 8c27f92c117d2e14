#include "runtime/cuda/product_choices.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "runtime/check.h"
#include "runtime/files/atomic_file.h"
#include "runtime/status_macros.h"

namespace lorica::cuda {
namespace {

constexpr absl::string_view kTitle = "lorica product choices\n";
constexpr char kOtherwise[] =
    "; let product_choices name another file or a new one";
constexpr size_t kNumbers = 9;  // Of a key: extents, strides, alignments.
constexpr size_t kWords = 5;    // Form, types, update and bias.
constexpr size_t kFields = kWords + kNumbers + 2;
constexpr size_t kHexDigits = 8 * 16;

template <typename T>
struct Word {
  absl::string_view text;
  T value;
};
constexpr Word<MatmulForm> kForms[] = {
    {"NN", MatmulForm::kNN}, {"NT", MatmulForm::kNT}, {"TN", MatmulForm::kTN}};
constexpr Word<DType> kTypes[] = {{"F32", DType::kF32}, {"BF16", DType::kBF16}};
constexpr Word<Update> kUpdates[] = {{"assign", Update::kAssign},
                                     {"add", Update::kAdd}};
constexpr Word<bool> kBiases[] = {{"plain", false}, {"bias", true}};

template <typename T, size_t kCount>
absl::string_view WordOf(const Word<T> (&words)[kCount], T value) {
  for (const Word<T>& word : words) {
    if (word.value == value) return word.text;
  }
  LOG(FATAL) << "no word for " << static_cast<int>(value);
}

template <typename T, size_t kCount>
bool Parse(const Word<T> (&words)[kCount], absl::string_view text, T* value) {
  for (const Word<T>& word : words) {
    if (word.text != text) continue;
    *value = word.value;
    return true;
  }
  return false;
}

std::string LineOf(const MatmulKey& key, const ProductChoice& choice) {
  std::string line = absl::StrCat(
      WordOf(kForms, key.form), " ", WordOf(kTypes, key.operand), " ",
      WordOf(kTypes, key.result), " ", WordOf(kUpdates, key.update), " ",
      WordOf(kBiases, key.biased));
  for (const int64_t number :
       {key.m, key.n, key.k, key.a_stride, key.b_stride, key.y_stride,
        int64_t{key.a_alignment}, int64_t{key.b_alignment},
        int64_t{key.y_alignment}}) {
    absl::StrAppend(&line, " ", number);
  }
  absl::StrAppendFormat(&line, " %.3f ", choice.microseconds);
  for (const uint64_t word : choice.algorithm) {
    absl::StrAppendFormat(&line, "%016x", word);
  }
  return line;
}

bool ParseAlgorithm(absl::string_view hex, ProductChoice* choice) {
  if (hex.size() != kHexDigits) return false;
  for (uint64_t& word : choice->algorithm) {
    if (!absl::SimpleHexAtoi(hex.substr(0, 16), &word)) return false;
    hex.remove_prefix(16);
  }
  return true;
}

// What is wrong with the line; empty if nothing.
std::string ParseLine(absl::string_view line, MatmulKey* key,
                      ProductChoice* choice) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
  if (fields.size() != kFields) {
    return absl::StrCat("has ", fields.size(), " fields, not ", kFields);
  }
  if (!Parse(kForms, fields[0], &key->form) ||
      !Parse(kTypes, fields[1], &key->operand) ||
      !Parse(kTypes, fields[2], &key->result) ||
      !Parse(kUpdates, fields[3], &key->update) ||
      !Parse(kBiases, fields[4], &key->biased)) {
    return "names no product";
  }
  int64_t numbers[kNumbers];
  for (size_t i = 0; i < kNumbers; ++i) {
    const absl::string_view field = fields[kWords + i];
    if (!absl::SimpleAtoi(field, &numbers[i]) || numbers[i] < 0) {
      return absl::StrCat("has \"", field, "\" where a number belongs");
    }
  }
  key->m = numbers[0];
  key->n = numbers[1];
  key->k = numbers[2];
  key->a_stride = numbers[3];
  key->b_stride = numbers[4];
  key->y_stride = numbers[5];
  key->a_alignment = static_cast<int>(numbers[6]);
  key->b_alignment = static_cast<int>(numbers[7]);
  key->y_alignment = static_cast<int>(numbers[8]);
  if (!absl::SimpleAtod(fields[kFields - 2], &choice->microseconds)) {
    return "has no time";
  }
  return ParseAlgorithm(fields[kFields - 1], choice) ? "" : "has no algorithm";
}

// The text of the file; empty where there is none.
absl::StatusOr<std::string> ReadIfThere(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file && errno == ENOENT) return std::string();
  std::ostringstream text;
  if (file && file.peek() != EOF) text << file.rdbuf();
  if (!file || !text) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": cannot be read: ", std::strerror(errno), kOtherwise));
  }
  return text.str();
}

}  // namespace

ProductChoices::ProductChoices(std::string path, std::string header,
                               CudaOptions::Missing missing)
    : path_(std::move(path)), header_(std::move(header)), missing_(missing) {}

absl::StatusOr<std::unique_ptr<ProductChoices>> ProductChoices::Open(
    std::string path, absl::string_view device, size_t version,
    CudaOptions::Missing missing) {
  LORICA_ASSIGN_OR_RETURN(const std::string text, ReadIfThere(path));
  std::unique_ptr<ProductChoices> choices(new ProductChoices(
      std::move(path),
      absl::StrCat(kTitle, "device ", device, "\ncublasLt ", version, "\n"),
      missing));
  if (!text.empty()) LORICA_RETURN_IF_ERROR(choices->Read(text));
  if (choices->measures()) {
    const absl::Status written = choices->Write();
    if (!written.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(written.message(), kOtherwise));
    }
  }
  return choices;
}

absl::Status ProductChoices::Read(absl::string_view text) {
  const auto wrong = [&](size_t line, absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ":", line, ": ", what, kOtherwise));
  };
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (!lines.back().empty()) return wrong(lines.size(), "is cut short");
  lines.resize(std::max<size_t>(lines.size(), 4));
  if (lines[0] != kTitle.substr(0, kTitle.size() - 1)) {
    return wrong(1, "is not the first line of a file of product choices");
  }
  if (!absl::ConsumePrefix(&lines[1], "device ")) {
    return wrong(2, "names no device");
  }
  if (!absl::ConsumePrefix(&lines[2], "cublasLt ")) {
    return wrong(3, "names no version of cublasLt");
  }
  for (size_t i = 3; i + 1 < lines.size(); ++i) {
    MatmulKey key;
    ProductChoice choice;
    const std::string what = ParseLine(lines[i], &key, &choice);
    if (!what.empty()) return wrong(i + 1, what);
    choices_[key] = choice;
  }
  if (!absl::StartsWith(text, header_)) {
    LOG(WARNING) << path_ << ": ignored, as it was measured on " << lines[1]
                 << " with cublasLt " << lines[2] << ", and this is not that";
    choices_.clear();
  }
  return absl::OkStatus();
}

absl::Status ProductChoices::Write() const {
  std::string text = header_;
  for (const auto& [key, choice] : choices_) {
    absl::StrAppend(&text, LineOf(key, choice), "\n");
  }
  return WriteFileAtomically(path_, text);
}

const ProductChoice* ProductChoices::Find(const MatmulKey& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? nullptr : &found->second;
}

void ProductChoices::Add(const MatmulKey& key, const ProductChoice& choice) {
  choices_[key] = choice;
  const absl::Status written = Write();
  LOG_IF(WARNING, !written.ok())
      << "a measured choice is not kept: " << written.message();
}

}  // namespace lorica::cuda
