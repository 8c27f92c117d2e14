#include "runtime/files/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lorica {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const std::string& text) {
  return std::string(ParseJson(text, "f.json").status().message());
}

TEST(JsonTest, ErrorsNameFileLineAndColumn) {
  EXPECT_THAT(ErrorOf("{\n  \"a\": 1,\n  \"b\" 2}"),
              StartsWith("f.json:3:7: not valid JSON: syntax error "));
  EXPECT_THAT(ErrorOf("?"), StartsWith("f.json:1:1: "));
  EXPECT_THAT(ErrorOf(""), StartsWith("f.json:1:1: "));
  EXPECT_THAT(ErrorOf("{} {}"), StartsWith("f.json:1:4: "));
  EXPECT_THAT(ErrorOf("\"\xff\""), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf("[1e999]"), HasSubstr("out of range"));
}

TEST(JsonTest, RefusesAKeyThatIsThereTwiceInOneObject) {
  EXPECT_THAT(ErrorOf(R"({"a": {"x": 1}, "b": {"x": 1, "y": 2, "x": 3}})"),
              HasSubstr("\"x\" is there twice"));
  EXPECT_TRUE(ParseJson(R"({"a": {"x": 1}, "b": {"x": 1}})", "f").ok());
}

TEST(JsonTest, SurvivesDeepNesting) {
  EXPECT_FALSE(ParseJson(std::string(1000000, '['), "f").ok());
  EXPECT_TRUE(
      ParseJson(
          absl::StrCat(std::string(100000, '['), std::string(100000, ']')), "f")
          .ok());
}

class JsonFieldsTest : public ::testing::Test {
 protected:
  JsonFieldsTest()
      : json_(*ParseJson(R"({"yes": true, "three": 3, "half": 0.5, "none": null,
                             "big": 18446744073709551615, "word": "w",
                             "words": ["u", "v"], "mixed": ["u", 1]})",
                         "f")),
        fields_(*JsonFields::Of(json_, "f.json")) {}

  template <typename T>
  std::string Refusal(absl::string_view name) {
    T value{};
    return std::string(fields_.Read(name, &value).message());
  }

  const Json json_;
  const JsonFields fields_;
};

TEST_F(JsonFieldsTest, ReadsEachType) {
  bool yes = false;
  int64_t three = 0;
  double half = 0;
  double three_too = 0;
  std::string word;
  std::vector<std::string> words;
  EXPECT_TRUE(fields_.Read("yes", &yes).ok());
  EXPECT_TRUE(fields_.Read("three", &three).ok());
  EXPECT_TRUE(fields_.Read("half", &half).ok());
  EXPECT_TRUE(fields_.Read("three", &three_too).ok());
  EXPECT_TRUE(fields_.Read("word", &word).ok());
  EXPECT_TRUE(fields_.Read("words", &words).ok());
  EXPECT_TRUE(yes);
  EXPECT_EQ(three, 3);
  EXPECT_EQ(half, 0.5);
  EXPECT_EQ(three_too, 3.0);
  EXPECT_EQ(word, "w");
  EXPECT_THAT(words, ElementsAre("u", "v"));
}

TEST_F(JsonFieldsTest, AbsentAndNullMembersLeaveTheValue) {
  int64_t value = 7;
  EXPECT_TRUE(fields_.Read("missing", &value).ok());
  EXPECT_TRUE(fields_.Read("none", &value).ok());
  EXPECT_EQ(value, 7);
  EXPECT_FALSE(fields_.Has("none"));
  EXPECT_EQ(fields_.Require("missing", &value).message(),
            "f.json: missing is missing");
  EXPECT_FALSE(fields_.Require("none", &value).ok());
}

TEST_F(JsonFieldsTest, AnotherTypeIsAnErrorThatShowsTheValue) {
  EXPECT_EQ(Refusal<bool>("three"),
            "f.json: three is 3; true or false is needed");
  EXPECT_EQ(Refusal<int64_t>("half"),
            "f.json: half is 0.5; an integer is needed");
  EXPECT_THAT(Refusal<int64_t>("big"), HasSubstr("an integer is needed"));
  EXPECT_THAT(Refusal<int64_t>("yes"), HasSubstr("an integer is needed"));
  EXPECT_THAT(Refusal<double>("word"), HasSubstr("\"w\"; a number is needed"));
  EXPECT_THAT(Refusal<std::string>("yes"), HasSubstr("a string is needed"));
  EXPECT_THAT(Refusal<std::vector<std::string>>("mixed"),
              HasSubstr("a list of 2; a list of strings is needed"));
  EXPECT_THAT(JsonFields::Of(json_["three"], "p").status().message(),
              HasSubstr("p is 3; an object is needed"));
}

}  // namespace
}  // namespace lorica
