#include "runtime/text/jinja_parser.hpp"

#include "runtime/text/jinja_expression_parser.hpp"

#include <algorithm>
#include <initializer_list>

namespace tandem::text::jinja {
namespace {

using words = std::initializer_list<std::string_view>;

class parser final : public expression_parser {
 public:
  explicit parser(std::string_view source) : expression_parser(source) {}

  program_tree run() {
    program_tree program;
    program.body = parse_block({});
    if (!unknown_.empty()) refuse_syntax(unknown_.front().line, unknown_.front().what);
    program.loop = intern("loop");
    program.names = std::move(names_);
    return program;
  }

 private:
  // Statements up to `{% word` of one of these, which stays the current token.
  block parse_block(words ends) {
    deeper inside(*this);
    block body;
    for (;;) {
      switch (current().kind) {
        case token_kind::data: {
          auto node = make<output_text>(current().line);
          node->text = take().text;
          body.push_back(std::move(node));
          break;
        }
        case token_kind::variable_begin: {
          auto node = make<output_value>(take().line);
          node->shown = parse_tuple(true);
          expect(token_kind::variable_end);
          body.push_back(std::move(node));
          break;
        }
        case token_kind::block_begin: {
          take();
          bool at_end = current().kind == token_kind::name &&
                        std::find(ends.begin(), ends.end(), current().text) != ends.end();
          if (at_end) return body;
          parse_statement(body);
          expect(token_kind::block_end);
          break;
        }
        case token_kind::end:
          if (ends.size() > 0)
            refuse_syntax(current().line, "Unexpected end of template, looking for '" +
                                              std::string(*(ends.end() - 1)) + "'");
          return body;
        default:
          unexpected("expected text or a tag");
      }
    }
  }

  // From the end of an opening tag to behind its closing word.
  block parse_body(words ends) {
    skip_op(":");
    expect(token_kind::block_end);
    return parse_block(ends);
  }
  block parse_body_to(std::string_view end) {
    auto body = parse_body({end});
    take();
    return body;
  }
  // A body that is no longer inside the `if` or the loop around it.
  block parse_fresh_body_to(std::string_view end) {
    bool soft = std::exchange(soft_, false);
    auto body = parse_body_to(end);
    soft_ = soft;
    return body;
  }

  void parse_statement(block& body) {
    if (current().kind != token_kind::name) unexpected("tag name expected");
    int line = current().line;
    std::string word = take().text;
    if (word == "if") return body.push_back(parse_if(line));
    if (word == "for") return body.push_back(parse_for(line));
    if (word == "set") return body.push_back(parse_set(line));
    if (word == "macro") return body.push_back(parse_macro(line));
    if (word == "call") return body.push_back(parse_call_block(line));
    if (word == "filter") return body.push_back(parse_filter_block(line));
    if (word == "with") return body.push_back(parse_with(line));
    if (word == "break" || word == "continue") return body.push_back(parse_control(line, word));
    if (word == "generation") return body.push_back(parse_generation(line));
    if (word == "block") return body.push_back(parse_named_block(line));
    if (word == "autoescape") return body.push_back(parse_autoescape(line));
    if (word == "print") return parse_print(body, line);
    if (word == "include" || word == "import" || word == "from" || word == "extends")
      return body.push_back(parse_loader_tag(line, word));
    refuse_syntax(line, "Encountered unknown tag '" + word + "'.");
  }

  statement_ptr parse_if(int line) {
    auto node = make<if_statement>(line);
    bool soft = std::exchange(soft_, true);
    for (;;) {
      if_statement::branch branch;
      branch.condition = parse_tuple(false);
      branch.body = parse_body({"elif", "else", "endif"});
      node->branches.push_back(std::move(branch));
      std::string word = take().text;
      if (word == "elif") continue;
      if (word == "else") node->branches.push_back({nullptr, parse_body_to("endif")});
      break;
    }
    soft_ = soft;
    return node;
  }

  statement_ptr parse_for(int line) {
    auto node = make<for_statement>(line);
    node->item = parse_targets(false);
    if (assigns(node->item, intern("loop")))
      refuse_syntax(line, "Can't assign to special loop variable in for-loop target");
    if (!skip_name("in")) unexpected("expected 'in'");
    node->over = parse_tuple(false);
    if (skip_name("if")) node->condition = parse_expression();
    node->recursive = skip_name("recursive");
    bool soft = std::exchange(soft_, false);
    ++loops_;
    node->body = parse_body({"endfor", "else"});
    --loops_;
    if (take().text == "else") node->otherwise = parse_body_to("endfor");
    soft_ = soft;
    return node;
  }

  static bool assigns(const target& to, symbol name) {
    if (!to.tuple) return to.name == name;
    return std::any_of(to.parts.begin(), to.parts.end(),
                       [&](const target& part) { return assigns(part, name); });
  }

  statement_ptr parse_set(int line) {
    target to = parse_targets(true);
    if (skip_op("=")) {
      auto node = make<set_statement>(line);
      node->to = std::move(to);
      node->from = parse_tuple(true);
      return node;
    }
    auto node = make<set_block>(line);
    node->to = std::move(to);
    node->filter = parse_filters(nullptr);
    node->body = parse_fresh_body_to("endset");
    return node;
  }

  statement_ptr parse_with(int line) {
    auto node = make<with_statement>(line);
    while (current().kind != token_kind::block_end) {
      if (!node->variables.empty()) expect_op(",");
      target to = parse_targets(false);
      expect_op("=");
      node->variables.emplace_back(std::move(to), parse_expression());
    }
    node->body = parse_fresh_body_to("endwith");
    return node;
  }

  statement_ptr parse_filter_block(int line) {
    auto node = make<filter_block>(line);
    node->filter = parse_filters(parse_filter(nullptr));
    node->body = parse_fresh_body_to("endfilter");
    return node;
  }

  statement_ptr parse_macro(int line) {
    auto node = make<macro_statement>(line);
    node->macro.name = expect_name();
    node->name = intern(node->macro.name);
    parse_parameters(node->macro);
    parse_macro_body(node->macro, "endmacro");
    return node;
  }

  statement_ptr parse_call_block(int line) {
    auto node = make<call_block>(line);
    node->macro.name = "caller";
    if (current().is_op("(")) parse_parameters(node->macro);
    auto called = parse_expression();
    auto* as_call = dynamic_cast<call_of*>(called.get());
    if (as_call == nullptr) refuse_syntax(line, "expected call");
    node->function = std::move(as_call->function);
    node->args = std::move(as_call->args);
    parse_macro_body(node->macro, "endcall");
    return node;
  }

  statement_ptr parse_generation(int line) {
    auto node = make<scoped_block>(line);
    int loops = std::exchange(loops_, 0);
    node->body = parse_fresh_body_to("endgeneration");
    loops_ = loops;
    return node;
  }

  void parse_parameters(macro_body& macro) {
    expect_op("(");
    bool defaults = false;
    while (!current().is_op(")")) {
      if (!macro.parameters.empty()) expect_op(",");
      macro_body::parameter p;
      int line = current().line;
      p.text = assignable_name();
      p.name = intern(p.text);
      for (const auto& earlier : macro.parameters)
        if (earlier.name == p.name) refuse_syntax(line, "duplicate argument '" + p.text + "'");
      if (skip_op("="))
        p.fallback = parse_expression();
      else if (defaults)
        refuse_syntax(line, "non-default argument follows default argument");
      defaults = defaults || p.fallback != nullptr;
      macro.parameters.push_back(std::move(p));
    }
    expect_op(")");
  }

  void parse_macro_body(macro_body& macro, std::string_view end) {
    int line = current().line;
    macro.caller = intern("caller");
    macro.kwargs = intern("kwargs");
    macro.varargs = intern("varargs");
    int loops = std::exchange(loops_, 0);
    macros_.push_back({});
    macro.body = parse_fresh_body_to(end);
    special_names used = macros_.back();
    macros_.pop_back();
    loops_ = loops;
    auto declared = [&](symbol name) {
      return std::find_if(macro.parameters.begin(), macro.parameters.end(),
                          [&](const auto& p) { return p.name == name; });
    };
    auto caller = declared(macro.caller);
    if (used.caller && caller != macro.parameters.end() && !caller->fallback)
      refuse_syntax(line, "the special \"caller\" argument must be omitted or be given a default");
    macro.uses_caller = used.caller;
    macro.uses_kwargs = used.kwargs && declared(macro.kwargs) == macro.parameters.end();
    macro.uses_varargs = used.varargs && declared(macro.varargs) == macro.parameters.end();
  }

  statement_ptr parse_control(int line, const std::string& word) {
    if (loops_ == 0) refuse_syntax(line, "'" + word + "' outside loop");
    auto node = make<loop_control>(line);
    node->kind = word == "break" ? flow::break_loop : flow::continue_loop;
    return node;
  }

  // Without inheritance a block prints where it stands; it sees the template's own variables only.
  statement_ptr parse_named_block(int line) {
    std::string name = expect_name();
    auto known = std::find(blocks_.begin(), blocks_.end(), name);
    if (known != blocks_.end()) refuse_syntax(line, "block '" + name + "' defined twice");
    blocks_.push_back(name);
    auto node = make<scoped_block>(line);
    node->sees_template_only = !skip_name("scoped");
    if (skip_name("required")) refuse_syntax(line, "a required block needs a template to extend");
    int loops = std::exchange(loops_, 0);
    node->body = parse_fresh_body_to("endblock");
    loops_ = loops;
    skip_name(name);
    return node;
  }

  statement_ptr parse_autoescape(int line) {
    auto mode = parse_expression();
    const auto* fixed = dynamic_cast<const constant*>(mode.get());
    if (fixed == nullptr || fixed->held.if_bool() == nullptr || *fixed->held.if_bool())
      refuse_syntax(line, "only {% autoescape false %} is supported: prompts are not HTML");
    auto node = make<scoped_block>(line);
    node->body = parse_fresh_body_to("endautoescape");
    return node;
  }

  void parse_print(block& body, int line) {
    bool first = true;
    while (current().kind != token_kind::block_end) {
      if (!first) expect_op(",");
      first = false;
      auto node = make<output_value>(line);
      node->shown = parse_expression();
      body.push_back(std::move(node));
    }
  }

  statement_ptr parse_loader_tag(int line, const std::string& word) {
    while (current().kind != token_kind::block_end && current().kind != token_kind::end) take();
    auto node = make<refused_statement>(line);
    node->why = "{% " + word + " %} needs other templates, and a chat template has none";
    return node;
  }

  std::string assignable_name() {
    const token& t = current();
    std::string name = expect_name();
    for (std::string_view word : {"true", "false", "none", "True", "False", "None"})
      if (name == word) refuse_syntax(t.line, "can't assign to '" + name + "'");
    return name;
  }

  target parse_target(bool with_attributes) {
    deeper inside(*this);
    target to;
    to.line = current().line;
    if (skip_op("(")) {
      to = parse_targets(with_attributes);
      expect_op(")");
      return to;
    }
    to.name = intern(assignable_name());
    if (with_attributes && skip_op(".")) to.attribute = expect_name();
    return to;
  }

  target parse_targets(bool with_attributes) {
    target first = parse_target(with_attributes);
    if (!current().is_op(",")) return first;
    target all;
    all.line = first.line;
    all.tuple = true;
    all.parts.push_back(std::move(first));
    while (skip_op(",")) {
      bool over = current().is_op(")") || current().kind == token_kind::block_end;
      if (over) break;
      all.parts.push_back(parse_target(with_attributes));
    }
    return all;
  }

  int loops_ = 0;  // around the current statement, inside its macro
  std::vector<std::string> blocks_;
};

}  // namespace

program_tree parse(std::string_view source) { return parser(source).run(); }

}  // namespace tandem::text::jinja
