#include "launch/report/metrics.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lorica {
namespace {

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

TEST(MetricsTest, EveryFieldIsInTheLine) {
  const std::string path = testing::TempDir() + "/every_field.jsonl";
  auto writer = MetricsWriter::Create(path);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer
                  ->Write(StepMetrics{.step = 3,
                                      .loss = 2.5,
                                      .learning_rate = 1e-4,
                                      .grad_norm = 0.75,
                                      .target_tokens = 8064,
                                      .tokens = 8192,
                                      .step_seconds = 9,
                                      .tokens_per_second = 910.25,
                                      .peak_rss_bytes = int64_t{1} << 33,
                                      .peak_device_bytes = int64_t{1} << 34,
                                      .unplanned_bytes = 64,
                                      .anomalies = 2})
                  .ok());
  ASSERT_TRUE(writer
                  ->Write(ValidMetrics{.step = 3,
                                       .valid_loss = 0.1,
                                       .valid_tokens = 400,
                                       .valid_records = 20,
                                       .valid_seconds = 0.5})
                  .ok());
  ASSERT_TRUE(writer
                  ->Write(SaveMetrics{.step = 3,
                                      .save_seconds = 0.5,
                                      .save_blocked_seconds = 0.25,
                                      .save_bytes = 1000})
                  .ok());
  const std::vector<std::string> lines = Lines(path);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0],
            "{\"step\":3,\"loss\":2.5,\"learning_rate\":0.0001,"
            "\"grad_norm\":0.75,\"target_tokens\":8064,\"tokens\":8192,"
            "\"step_seconds\":9.0,\"tokens_per_second\":910.25,"
            "\"peak_rss_bytes\":8589934592,\"anomalies\":2,"
            "\"peak_device_bytes\":17179869184,\"unplanned_bytes\":64}");
  EXPECT_EQ(lines[1],
            "{\"step\":3,\"valid_loss\":0.1,\"valid_tokens\":400,"
            "\"valid_records\":20,\"valid_seconds\":0.5}");
  EXPECT_EQ(lines[2],
            "{\"step\":3,\"saved\":true,\"save_seconds\":0.5,"
            "\"save_blocked_seconds\":0.25,\"save_bytes\":1000}");
}

TEST(MetricsTest, AResumedRunGoesOnAfterItsSave) {
  const std::string path = testing::TempDir() + "/resumed.jsonl";
  {
    auto writer = MetricsWriter::Create(path);
    for (const int64_t step : {1, 2, 3}) {
      ASSERT_TRUE(writer->Write(StepMetrics{.step = step}).ok());
    }
  }
  std::ofstream(path, std::ios::app) << "{\"step\":4,\"lo";
  auto writer = MetricsWriter::Continue(path, 2);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Write(ValidMetrics{.step = 3}).ok());
  const std::vector<std::string> lines = Lines(path);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].rfind("{\"step\":1,\"loss\"", 0), 0u);
  EXPECT_EQ(lines[1].rfind("{\"step\":2,\"loss\"", 0), 0u);
  EXPECT_EQ(lines[2].rfind("{\"step\":3,\"valid_loss\"", 0), 0u);
}

TEST(MetricsTest, WhereCpusComputeNoMemoryOfGpusIsReported) {
  const std::string path = testing::TempDir() + "/cpus.jsonl";
  auto writer = MetricsWriter::Create(path);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Write(StepMetrics{.peak_rss_bytes = 1}).ok());
  const auto line = nlohmann::json::parse(Lines(path).at(0));
  EXPECT_FALSE(line.contains("peak_device_bytes"));
  EXPECT_FALSE(line.contains("unplanned_bytes"));
}

TEST(MetricsTest, ALossIsWrittenToTheLastBit) {
  const std::string path = testing::TempDir() + "/last_bit.jsonl";
  auto writer = MetricsWriter::Create(path);
  ASSERT_TRUE(writer.ok()) << writer.status();
  StepMetrics metrics;
  metrics.loss = 3.0412345678901236;
  ASSERT_TRUE(writer->Write(metrics).ok());
  const auto line = nlohmann::json::parse(Lines(path).at(0));
  EXPECT_EQ(line["loss"].get<double>(), metrics.loss);
}

TEST(MetricsTest, ALineIsOnFileOnceWritten) {
  const std::string path = testing::TempDir() + "/on_file.jsonl";
  auto writer = MetricsWriter::Create(path);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Write(StepMetrics{}).ok());
  EXPECT_EQ(Lines(path).size(), 1u);
}

TEST(MetricsTest, AFileThatCannotBeMadeIsNamed) {
  const auto writer = MetricsWriter::Create("/nonexistent/metrics.jsonl");
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(std::string(writer.status().message()),
            "cannot write /nonexistent/metrics.jsonl: No such file or "
            "directory");
}

TEST(MetricsTest, AFullDiskIsAnError) {
  auto writer = MetricsWriter::Create("/dev/full");
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ(std::string(writer->Write(StepMetrics{}).message()),
            "cannot write /dev/full: No space left on device");
}

TEST(MetricsTest, PeakMemoryGrowsWithUse) {
  const int64_t before = PeakRssBytes();
  EXPECT_GT(before, 0);
  constexpr int64_t kBytes = 64 << 20;
  const std::vector<char> used(static_cast<size_t>(before + kBytes), 1);
  EXPECT_GE(PeakRssBytes(), before + kBytes / 2) << used.back();
}

}  // namespace
}  // namespace lorica
