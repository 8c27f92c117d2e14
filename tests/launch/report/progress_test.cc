#include "launch/report/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace lorica {
namespace {

// A FILE whose text can be read back.
class Output {
 public:
  Output() : file_(open_memstream(&data_, &size_)) {}
  ~Output() {
    std::fclose(file_);
    std::free(data_);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  std::FILE* file() const { return file_; }
  std::string text() const { return {data_, size_}; }

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_;
};

StepMetrics At(int64_t step) {
  return {.step = step,
          .loss = 3.0412,
          .learning_rate = 0,
          .grad_norm = 0,
          .target_tokens = 0,
          .tokens = 0,
          .step_seconds = 2,
          .tokens_per_second = 910.2,
          .peak_rss_bytes = 0};
}

TEST(ProgressTest, PlainLinesComeFirstLastAndEverySoManySteps) {
  Output out;
  Progress progress(out.file(), Screen::kPlain, 5, 2);
  for (int64_t step = 1; step <= 5; ++step) progress.Report(At(step));
  EXPECT_EQ(out.text(),
            "step 1/5  loss 3.0412  910 tokens/s  8 s left\n"
            "step 2/5  loss 3.0412  910 tokens/s  6 s left\n"
            "step 4/5  loss 3.0412  910 tokens/s  2 s left\n"
            "step 5/5  loss 3.0412  910 tokens/s  0 s left\n");
}

TEST(ProgressTest, ATerminalsLineRenewsItselfAndStaysInTheEnd) {
  Output out;
  Progress progress(out.file(), Screen::kTerminal, 2, 100);
  progress.Report(At(1));
  progress.Say("saved");
  progress.Report(At(2));
  EXPECT_EQ(out.text(),
            "\r\x1b[Kstep 1/2  loss 3.0412  910 tokens/s  2 s left"
            "\r\x1b[Ksaved\n"
            "\r\x1b[Kstep 2/2  loss 3.0412  910 tokens/s  0 s left\n");
}

TEST(ProgressTest, TimeLeftIsTheMeanOfTheStepsOfThisRun) {
  Output out;
  Progress progress(out.file(), Screen::kPlain, 104, 1);
  StepMetrics slow = At(101);
  slow.step_seconds = 6;
  progress.Report(slow);
  progress.Report(At(102));
  EXPECT_EQ(out.text(),
            "step 101/104  loss 3.0412  910 tokens/s  18 s left\n"
            "step 102/104  loss 3.0412  910 tokens/s  8 s left\n");
}

TEST(ProgressTest, ValidationHasItsOwnLine) {
  Output out;
  Progress progress(out.file(), Screen::kPlain, 10, 1);
  progress.Report(ValidMetrics{.step = 10,
                               .valid_loss = 2.5,
                               .valid_tokens = 4000,
                               .valid_records = 200,
                               .valid_seconds = 61});
  EXPECT_EQ(out.text(),
            "step 10/10  validation loss 2.5000  (4000 tokens of 200 records, "
            "1 min 1 s)\n");
}

TEST(ProgressTest, DurationsHaveTheirTwoLargestUnits) {
  EXPECT_EQ(Duration(-1), "0 s");
  EXPECT_EQ(Duration(59.4), "59 s");
  EXPECT_EQ(Duration(250), "4 min 10 s");
  EXPECT_EQ(Duration(12000), "3 h 20 min");
}

TEST(ProgressTest, OnlyTwoTerminalsAreATerminal) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  const int primary = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_EQ(grantpt(primary), 0);
  ASSERT_EQ(unlockpt(primary), 0);
  std::FILE* terminal = std::fopen(ptsname(primary), "r+");
  ASSERT_NE(terminal, nullptr);
  EXPECT_EQ(ScreenOf(terminal, terminal), Screen::kTerminal);
  EXPECT_EQ(ScreenOf(terminal, file), Screen::kPlain);
  EXPECT_EQ(ScreenOf(file, terminal), Screen::kPlain);
  std::fclose(terminal);
  std::fclose(file);
  close(primary);
}

}  // namespace
}  // namespace lorica
