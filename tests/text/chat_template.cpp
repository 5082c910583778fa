#include "runtime/text/chat_template.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <sstream>
#include <string>

using tandem::text::chat_template;
using tandem::text::prompt_piece;
using tandem::text::value;

namespace {

constexpr std::int64_t fourth_of_july_2026 = 1783166400;  // noon UTC: when the goldens were made

value read_golden(const std::string& name) {
  std::ifstream file(std::string(TANDEM_GOLDEN) + "/" + name);
  REQUIRE(file);
  std::stringstream text;
  text << file.rdbuf();
  auto parsed = value::from_json(text.str());
  REQUIRE(parsed);
  return std::move(*parsed);
}

tandem::result<std::string> try_render(std::string_view source, const value& context) {
  auto compiled = chat_template::compile(source);
  if (!compiled) return compiled.error();
  return compiled->render(context, {.now = fourth_of_july_2026});
}

std::string rendered(std::string_view source, std::string_view context = "{}") {
  auto text = try_render(source, *value::from_json(context));
  return text ? *text : "refused: " + text.error().detail;
}

std::string refusal(std::string_view source, std::string_view context = "{}") {
  auto text = try_render(source, *value::from_json(context));
  REQUIRE_FALSE(text);
  return text.error().detail;
}

bool says(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// A case's template or context is there itself, or by its name among `shared`.
const value& resolved(const value& c, std::string_view key, std::string_view name_key,
                      const value* shared) {
  const value* held = c.find(key);
  const value* name = c.find(name_key);
  if (name != nullptr && name->if_string() != nullptr && shared != nullptr)
    held = shared->find(*name->if_string());
  REQUIRE(held != nullptr);
  return *held;
}

void check_cases(const value& cases, const value* families, const value* contexts,
                 std::size_t count_min) {
  REQUIRE(cases.if_array()->size() >= count_min);
  for (const value& c : *cases.if_array()) {
    const value& source = resolved(c, "template", "family", families);
    const value& context = resolved(c, "context", "context", contexts);
    INFO(*c.find("name")->if_string());
    INFO(*source.if_string());
    INFO(context.to_json());
    auto text = try_render(*source.if_string(), context);
    if (c.find("error") != nullptr) {
      CHECK_FALSE(text);
    } else if (!text) {
      FAIL_CHECK("refused: " << text.error().detail);
    } else {
      CHECK(*text == *c.find("expected")->if_string());
    }
  }
}

}  // namespace

TEST_CASE("every golden template prints what Jinja2 prints and is refused where Jinja2 refuses") {
  check_cases(read_golden("chat_templates.json"), nullptr, nullptr, 94);
}

TEST_CASE("snippets of every feature and the families' templates print what Jinja2 prints") {
  value extra = read_golden("templates_extra.json");
  check_cases(*extra.find("cases"), extra.find("families"), extra.find("contexts"), 1000);
}

TEST_CASE("a syntax error names its line") {
  CHECK(says(refusal("a\nb\n{{ 1 + }}"), "line 3"));
  CHECK(says(refusal("a\n{% if x %}\nb"), "endif"));
  CHECK(says(refusal("{% for x in %}{% endfor %}"), "line 1"));
  CHECK(says(refusal("{{ 'open }}"), "not closed"));
  CHECK(says(refusal("{# open"), "comment"));
  CHECK(says(refusal("{% raw %} open"), "raw"));
  CHECK(says(refusal("{{ (1] }}"), "expected ')'"));
  CHECK(says(refusal("{{ 1 $ 2 }}"), "unexpected char"));
  CHECK(says(refusal("{% break %}"), "outside loop"));
  CHECK(says(refusal("{{ 99999999999999999999 }}"), "64 bits"));
}

TEST_CASE("an unknown filter or test is refused when the template is compiled") {
  auto compiled = chat_template::compile("x\n{{ a | frobnicate }}");
  REQUIRE_FALSE(compiled);
  CHECK(says(compiled.error().detail, "line 2"));
  CHECK(says(compiled.error().detail, "frobnicate"));
  CHECK_FALSE(chat_template::compile("{{ a is frobnicated }}"));
  CHECK_FALSE(chat_template::compile("{{ [1, 2] | random }}"));
}

TEST_CASE("an unknown filter inside an if is refused only when it is reached") {
  CHECK(rendered("{% if 'frob' is filter %}{{ 1 | frob }}{% else %}no{% endif %}") == "no");
  CHECK(says(refusal("{% if true %}{{ 1 | frob }}{% endif %}"), "frob"));
  CHECK(rendered("{{ (1 | frob) if false else 'no' }}") == "no");
}

TEST_CASE("a failed render names the line and prints nothing") {
  CHECK(says(refusal("a\n{{ raise_exception('roles must alternate') }}"),
             "line 2: roles must alternate"));
  CHECK(says(refusal("a\nb\n{{ nothing.at_all }}"), "line 3"));
  CHECK(says(refusal("{{ nothing.at_all }}"), "'nothing' is undefined"));
  CHECK(says(refusal("{{ 'a' + 1 }}"), "can only concatenate str (not \"int\") to str"));
  CHECK(says(refusal("{% include 'x' %}"), "other templates"));
}

TEST_CASE("a template can change nothing but a namespace") {
  CHECK(says(refusal("{% set l = [] %}{{ l.append(1) }}"), "unsafe"));
  CHECK(says(refusal("{{ d.update(a=1) }}", R"({"d":{}})"), "unsafe"));
  CHECK(says(refusal("{% set d = {} %}{% set d.a = 1 %}"), "non-namespace"));
  CHECK(says(refusal("{% set n = namespace() %}{% set n._a = 1 %}"), "underscore"));
}

TEST_CASE("a template cannot work without end") {
  std::string loop = "{% for a in range(99999) %}";
  std::string twice = loop + loop + "{% endfor %}{% endfor %}";
  CHECK(says(refusal(twice), "steps of work"));
  CHECK(says(refusal("{% for a in range(99999999) %}{% endfor %}"), "Range too big"));
  CHECK(says(refusal("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "inside one another"));
  CHECK(says(refusal("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
             "inside one another"));
  CHECK(says(refusal("{% macro f(n) %}{% call g(n) %}{% endcall %}{% endmacro %}"
                     "{% macro g(n) %}{{ f(n) ~ caller() }}{% endmacro %}{{ f(1) }}"),
             "inside one another"));
  CHECK(says(refusal("{% macro f() %}{{ [1] | map('d') | list ~ f() }}{% endmacro %}{{ f() }}"),
             "inside one another"));
}

TEST_CASE("a template cannot make text without end") {
  CHECK(says(refusal("{{ 'x' * 99999999 }}"), "bytes of text"));
  CHECK(says(refusal("{{ 'x' * 9223372036854775807 }}"), "bytes of text"));
  CHECK(says(refusal("{{ '%9999999999d' % 1 }}"), "too large"));
  CHECK(says(refusal("{{ '{:>9999999999}'.format(1) }}"), "too large"));
  CHECK(says(refusal("{{ 'x' | center(99999999) }}"), "bytes of text"));
  CHECK(says(refusal("{{ 'x\n' | indent(99999999, true) }}"), "bytes of text"));
  CHECK(says(refusal("{% set s = namespace(t='x' * 1000000) %}{% for i in range(99) %}"
                     "{% set s.t = s.t ~ s.t %}{% endfor %}"),
             "more than"));
  CHECK(says(refusal("{% set t = 'x' * 1000000 %}{% for i in range(99) %}{{ t }}{% endfor %}"),
             "bytes of text"));
  CHECK(says(refusal("{% set l = [1] * 100000 %}{% set l = l * 100000 %}"), "steps of work"));
}

TEST_CASE("a template cannot nest values or calls without end") {
  CHECK(says(refusal("{% set n = namespace(l=[]) %}{% for i in range(9999) %}"
                     "{% set n.l = [n.l] %}{% endfor %}"),
             "nested deeper"));
  CHECK(says(refusal("{% set n = namespace(g=[1]) %}{% for i in range(9999) %}"
                     "{% set n.g = n.g | map('string') %}{% endfor %}"),
             "nested"));
  CHECK(says(refusal("{% set n = namespace(d={}) %}{% for i in range(9999) %}"
                     "{% set n.d = {'a': n.d} %}{% endfor %}"),
             "nested deeper"));
  CHECK(says(refusal("{% set n = namespace() %}{% set n.self = n %}{{ n }}"), "nested"));
}

TEST_CASE("objects that hold themselves are let go when the render is over") {
  // What leaks here is found by the address sanitizer's run of this test.
  CHECK(rendered("{% set n = namespace() %}{% set n.self = n %}"
                 "{% macro f() %}{{ n.x }}{% endmacro %}{% set n.f = f %}"
                 "{% for i in [1] %}{% set n.loop = loop %}{{ loop.changed(loop) }}{% endfor %}") ==
        "True");
}

TEST_CASE("a deeply nested source is refused before it can overflow the stack") {
  auto many = [](const char* what, std::size_t count) {
    std::string all;
    for (std::size_t i = 0; i < count; ++i) all += what;
    return all;
  };
  constexpr std::size_t deep = 100'000;
  CHECK(says(refusal("{{ " + many("(", deep) + "1" + many(")", deep) + " }}"), "nested deeper"));
  CHECK(says(refusal("{{ " + many("[", deep) + many("]", deep) + " }}"), "nested deeper"));
  CHECK(says(refusal("{{ " + many("{1:", deep) + "1" + many("}", deep) + " }}"), "nested deeper"));
  CHECK(says(refusal("{{ " + many("not ", deep) + "1 }}"), "nested deeper"));
  CHECK(says(refusal("{{ " + many("-", deep) + "1 }}"), "nested deeper"));
  CHECK(says(refusal("{{ 1" + many(" + 1", deep) + " }}"), "nested operations"));
  CHECK(says(refusal("{{ x" + many(".a", deep) + " }}"), "nested operations"));
  CHECK(says(refusal("{{ x" + many("|list", deep) + " }}"), "nested operations"));
  CHECK(says(refusal("{{ x" + many("()", deep) + " }}"), "nested operations"));
  CHECK(says(refusal("{{ 1" + many(" if 1 else 1", deep) + " }}"), "nested deeper"));
  CHECK(says(refusal(many("{% if 1 %}", deep) + many("{% endif %}", deep)), "nested deeper"));
  CHECK(says(refusal("{% set " + many("(", deep) + "a" + many(")", deep) + " = 1 %}"),
             "nested deeper"));
  CHECK(rendered("{{ ''" + many(" ~ 'a'", 5000) + " }}").size() == 5000);
}

TEST_CASE("the time can be given") {
  CHECK(rendered("{{ strftime_now('%Y-%m-%d') }}") == "2026-07-04");
  auto compiled = chat_template::compile("{{ strftime_now('%Y') | int > 2000 }}");
  REQUIRE(compiled);
  CHECK(*compiled->render(value()) == "True");
}

TEST_CASE("one compiled template renders many contexts") {
  auto compiled = chat_template::compile("{% set n = namespace(a=x) %}{{ n.a }}");
  REQUIRE(compiled);
  chat_template copied = *compiled;
  CHECK(*compiled->render(*value::from_json(R"({"x":1})")) == "1");
  CHECK(*copied.render(*value::from_json(R"({"x":"two"})")) == "two");
  CHECK(*compiled->render(value()) == "");
  CHECK_FALSE(compiled->render(value(3)));
}
