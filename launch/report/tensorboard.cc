#include "launch/report/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/status_macros.h"

namespace lorica {
namespace {

// Little-endian bytes of a plain value.
template <typename T>
std::string Bytes(T value) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

// The wire format of protocol buffers, as far as Event needs it: message Event
// { double wall_time = 1; int64 step = 2; string file_version = 3; Summary
// summary = 5; }, message Summary { repeated Value value = 1; } and message
// Value { string tag = 1; float simple_value = 2; }.
enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) {
    out->push_back(static_cast<char>(value | 0x80));
  }
  out->push_back(static_cast<char>(value));
}

void AppendTag(int field, WireType type, std::string* out) {
  AppendVarint(static_cast<uint64_t>(field) << 3 | type, out);
}

void AppendBytes(int field, absl::string_view bytes, std::string* out) {
  AppendTag(field, kBytes, out);
  AppendVarint(bytes.size(), out);
  absl::StrAppend(out, bytes);
}

std::string EventAt(int64_t step) {
  std::string event;
  AppendTag(1, kFixed64, &event);
  event += Bytes(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  AppendTag(2, kVarint, &event);
  AppendVarint(static_cast<uint64_t>(step), &event);
  return event;
}

absl::Status WriteError(const std::string& path) {
  return absl::InternalError(
      absl::StrCat("cannot write ", path, ": ", strerror(errno)));
}

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
    }
    table[byte] = crc;
  }
  return table;
}

}  // namespace

uint32_t Crc32c(absl::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = std::numeric_limits<uint32_t>::max();
  for (const char byte : bytes) {
    crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xff];
  }
  return ~crc;
}

uint32_t MaskedCrc32c(absl::string_view bytes) {
  return std::rotr(Crc32c(bytes), 15) + 0xa282ead8u;
}

absl::StatusOr<EventWriter> EventWriter::Create(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot make the directory ", directory, ": ", error.message()));
  }
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  std::string path =
      absl::StrCat(directory, "/events.out.tfevents.",
                   absl::ToUnixSeconds(absl::Now()), ".", host, ".", getpid());
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return WriteError(path);
  EventWriter writer(std::move(path), file);
  std::string event = EventAt(0);
  AppendBytes(3, "brain.Event:2", &event);
  LORICA_RETURN_IF_ERROR(writer.WriteRecord(event));
  return writer;
}

absl::Status EventWriter::Write(const StepMetrics& metrics) {
  std::vector<Scalar> scalars = {
      {"train/loss", metrics.loss},
      {"train/learning_rate", metrics.learning_rate},
      {"train/grad_norm", metrics.grad_norm},
      {"train/target_tokens", static_cast<double>(metrics.target_tokens)},
      {"speed/step_seconds", metrics.step_seconds},
      {"speed/tokens_per_second", metrics.tokens_per_second},
      {"memory/peak_rss_bytes", static_cast<double>(metrics.peak_rss_bytes)}};
  if (metrics.peak_device_bytes > 0) {
    scalars.push_back({"memory/peak_device_bytes",
                       static_cast<double>(metrics.peak_device_bytes)});
  }
  return WriteScalars(metrics.step, scalars);
}

absl::Status EventWriter::Write(const SaveMetrics& metrics) {
  return WriteScalars(
      metrics.step, {{"save/seconds", metrics.save_seconds},
                     {"save/blocked_seconds", metrics.save_blocked_seconds},
                     {"save/bytes", static_cast<double>(metrics.save_bytes)}});
}

absl::Status EventWriter::Write(const ValidMetrics& metrics) {
  return WriteScalars(metrics.step, {{"valid/loss", metrics.valid_loss}});
}

absl::Status EventWriter::WriteScalars(int64_t step,
                                       const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    AppendBytes(1, tag, &value);
    AppendTag(2, kFixed32, &value);
    value += Bytes(static_cast<float>(number));
    AppendBytes(1, value, &summary);
  }
  std::string event = EventAt(step);
  AppendBytes(5, summary, &event);
  return WriteRecord(event);
}

absl::Status EventWriter::WriteRecord(const std::string& event) {
  const std::string length = Bytes(uint64_t{event.size()});
  const std::string record = absl::StrCat(length, Bytes(MaskedCrc32c(length)),
                                          event, Bytes(MaskedCrc32c(event)));
  if (std::fwrite(record.data(), 1, record.size(), file_.get()) !=
          record.size() ||
      std::fflush(file_.get()) != 0) {
    return WriteError(path_);
  }
  return absl::OkStatus();
}

}  // namespace lorica
