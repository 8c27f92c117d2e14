#include "model/text/jinja/template.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/damage.h"

namespace lorica::jinja {
namespace {

using testing::HasSubstr;

Value Variables() {
  return Value::parse(R"({
    "messages": [{"role": "user", "content": " Hi "},
                 {"role": "assistant", "content": "Yes"}],
    "n": 3, "none_yet": null})");
}

std::string Render(const std::string& source) {
  const absl::StatusOr<Template> parsed = Template::Create(source);
  if (!parsed.ok()) {
    return std::string(parsed.status().message());
  }
  const absl::StatusOr<std::string> text = parsed->Render(Variables());
  return text.ok() ? *text : std::string(text.status().message());
}

// All expected values are those of Jinja2 as transformers sets it up.
TEST(JinjaTest, ControlsWhiteSpaceAsTransformersDoes) {
  EXPECT_EQ(Render("  {% if true %}\n  a\n  {% endif %}\n  b\n"), "  a\n  b");
  EXPECT_EQ(Render("x {%- if true -%}  e  {%- endif %} \ny"), "xe \ny");
  EXPECT_EQ(Render("x\n  {{ 'v' -}}  \n y"), "x\n  vy");
  EXPECT_EQ(Render("a\n  {# c #}\nb{#- d -#}  e"), "a\nbe");
  EXPECT_EQ(Render(" {%+ if true %}\n{% endif +%}\nz"), " \nz");
  EXPECT_EQ(Render("a\r\nb\rc\n\n"), "a\nb\nc\n");
}

TEST(JinjaTest, EvaluatesAsPython) {
  EXPECT_EQ(Render("{{ 'a' ~ 1 ~ 2.5 ~ true ~ none ~ x }}"), "a12.5TrueNone");
  EXPECT_EQ(Render("{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} "
                   "{{ 10 - 2 - 3 }} {{ 2 * 3 ~ 4 }} {{ 5 - -2 }}"),
            "3 -4 2 3.5 5 64 7");
  EXPECT_EQ(Render("{{ 'h\u00e9llo'[::-1] }}{{ [1, 2][-1] }}{{ 'abc'[5] }}"),
            "oll\u00e9h2");
  EXPECT_EQ(Render("{{ 1 and 2 }}{{ 0 or 'z' }}{{ not 1 }}{{ 1 == 1.0 }}"
                   "{{ true == 1 }}{{ 'a' < 'b' }}{{ 3 not in [1] }}"),
            "2zFalseTrueTrueTrueTrue");
  EXPECT_EQ(Render("{{ 'p' if false }}{{ 'q' if 0 else 'r' }}"), "r");
  EXPECT_EQ(Render("{{ 'a\\tb\\\\\\'\\x41\\u00e9' \"z\" }}"),
            "a\tb\\'A\u00e9z");
  EXPECT_EQ(Render("{{ messages[0]['content'] | trim + messages[-1].role }}"),
            "Hiassistant");
}

TEST(JinjaTest, HasTheFiltersTestsAndMethodsOfChatTemplates) {
  EXPECT_EQ(
      Render("{{ {'a': '\u00e9\\n', 'b': [1, none], 'c': {}} | tojson }}"),
      "{\"a\": \"\u00e9\\n\", \"b\": [1, null], \"c\": {}}");
  EXPECT_EQ(Render("{{ {'a': [1]} | tojson(indent=2) }}"),
            "{\n  \"a\": [\n    1\n  ]\n}");
  EXPECT_EQ(Render("{{ x | default('d') }}{{ 'AbC' | lower | upper }}"
                   "{{ messages | length }}{{ '42' | int + 1 }}"),
            "dABC243");
  EXPECT_EQ(Render("{{ messages | map(attribute='role') | join(',') }}{{ "
                   "messages | selectattr('role', 'equalto', 'user') | list | "
                   "length }}"),
            "user,assistant1");
  EXPECT_EQ(Render("{{ x is defined }}{{ none_yet is none }}{{ n is odd }}"
                   "{{ messages[0] is mapping }}{{ n is not string }}"),
            "FalseTrueTrueTrueTrue");
  EXPECT_EQ(Render("{{ ' a  b '.split() | tojson }}{{ 'x,y'.split(',')[-1] }}"
                   "{{ 'xxaxx'.strip('x') }}{{ 'abc'.startswith('ab') }}"
                   "{{ messages[0].get('z', 'no') }}"),
            "[\"a\", \"b\"]yaTrueno");
}

TEST(JinjaTest, LoopsAndScopes) {
  EXPECT_EQ(Render("{% for i in range(5) if i % 2 == 0 %}{{ i }}"
                   "{{ loop.index }}{{ loop.last }} {% endfor %}"),
            "01False 22False 43True ");
  EXPECT_EQ(Render("{% for i in [] %}x{% else %}empty{% endfor %}"), "empty");
  EXPECT_EQ(Render("{% for i in range(6) %}{% if i == 1 %}{% continue %}"
                   "{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}"
                   "{% endfor %}"),
            "023");
  EXPECT_EQ(Render("{% set ns = namespace(a=1) %}{% for i in range(3) %}"
                   "{% set ns.a = ns.a + i %}{% set b = i %}{% endfor %}"
                   "{{ ns.a }}{{ b is defined }}"),
            "4False");
  EXPECT_EQ(Render("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}"
                   "{% endfor %}{% set c %}[{{ n }}]{% endset %}{{ c }}"),
            "a1[3]");
  EXPECT_EQ(Render("{% for m in messages %}{{ loop.nextitem.role if not "
                   "loop.last }}>{% generation %}{{ m.role }}{% endgeneration "
                   "%} {% endfor %}"),
            "assistant>user >assistant ");
}

TEST(JinjaTest, ErrorsNameThePlace) {
  EXPECT_EQ(Render("a\n{{ 'b' + 1 }}"),
            "chat template, line 2, column 8: '+' of string and number has no "
            "value");
  EXPECT_THAT(Render("{{ raise_exception('roles must alternate') }}"),
              HasSubstr("roles must alternate"));
  EXPECT_THAT(Render("{{ x.y }}"), HasSubstr("column 5: 'y' of an undefined"));
  EXPECT_THAT(Render("{% macro f() %}{% endmacro %}"),
              HasSubstr("line 1, column 1: {% macro %} is not supported"));
  EXPECT_THAT(Render("{{ strftime_now('%d') }}"),
              HasSubstr("the function 'strftime_now' is not supported"));
  EXPECT_THAT(Render("{{ messages }}"), HasSubstr("which has no text here"));
  EXPECT_THAT(Render("{% if true %}"), HasSubstr("expected {% endif %}"));
  EXPECT_THAT(Render("{{ a"), HasSubstr("a tag without an end"));
  EXPECT_THAT(Render("{{ 'a }}"), HasSubstr("a string without an end"));
  EXPECT_THAT(Render("{# "), HasSubstr("a comment without an end"));
  EXPECT_THAT(Render("{{ 1 // 0 }}"), HasSubstr("a division by zero"));
  EXPECT_THAT(Render("{{ 9223372036854775807 + 1 }}"),
              HasSubstr("an integer beyond 64 bits"));
}

TEST(JinjaTest, StopsWhatHasNoMeasure) {
  EXPECT_THAT(Render("{{ 'abcdefgh' * 1000000000 }}"),
              HasSubstr("a text without measure"));
  EXPECT_THAT(Render("{{ range(1000000000) }}"), HasSubstr("out of bounds"));
  EXPECT_THAT(Render("{% for a in range(9999) %}{% for b in range(9999) %}"
                     "{% endfor %}{% endfor %}"),
              HasSubstr("does not come to an end"));
  EXPECT_THAT(Render("{% set ns = namespace(a=[1]) %}{% for i in range(99) %}"
                     "{% set ns.a = ns.a + ns.a %}{% endfor %}"),
              HasSubstr("a list without measure"));
  std::string deep = "{{ ";
  deep.append(5000, '(').append("1").append(5000, ')');
  EXPECT_THAT(Render(deep + " }}"), HasSubstr("nested too deeply"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) {
    sum += " + 1";
  }
  EXPECT_THAT(Render(sum + " }}"), HasSubstr("too many parts"));
  std::string nots = "{{ ";
  for (int i = 0; i < 5000; ++i) {
    nots += "not ";
  }
  EXPECT_THAT(Render(nots + "1 }}"), HasSubstr("nested too deeply"));
}

// Whatever a template holds, it renders or fails.
TEST(JinjaTest, SurvivesDamage) {
  const std::string source =
      "{%- for m in messages[0:] if m.role != 'x' -%}{% set a = m['content'] | "
      "trim(chars=' ') %}{{ '<' + m.role ~ loop.index0 % 2 + '>\\n' if a is "
      "string and not n > 3 else [1, {'k': -2.5}] | tojson }}{% endfor %}"
      "{# c #}{% if n %}{{ x }}{% elif 1 %}b{% else %}c{% endif %}";
  const absl::StatusOr<Template> whole = Template::Create(source);
  ASSERT_TRUE(whole.ok()) << whole.status();
  ForEachDamage(source, source.size(), 3000,
                [](const std::string& damaged) { Render(damaged); });
}

}  // namespace
}  // namespace lorica::jinja
