// The boundary of the template engine: JSON values in, trusted and untrusted pieces out, and the
// one place where a template's `refusal` becomes an error.
#include "runtime/text/chat_template.hpp"

#include "runtime/text/jinja_interpreter.hpp"
#include "runtime/text/jinja_parser.hpp"

#include <algorithm>
#include <new>

namespace tandem::text {

struct chat_template::program {
  jinja::program_tree tree;
};

namespace {

using jinja::var;

constexpr std::size_t source_bytes_max = std::size_t{4} << 20;

var to_var(jinja::meter& m, const value& v, bool trusted, int depth) {
  if (depth > jinja::meter::nesting_max) jinja::refuse("the context is nested too deep");
  m.spend(2);
  if (const bool* b = v.if_bool()) return var(*b);
  if (const std::int64_t* i = v.if_int()) return var(*i);
  if (const double* d = v.if_double()) return var(*d);
  if (const std::string* s = v.if_string()) {
    m.spend_bytes(s->size());
    return var(jinja::traced_text(*s, trusted));
  }
  if (const value::array* items = v.if_array()) {
    std::vector<var> list;
    list.reserve(items->size());
    for (const value& item : *items) list.push_back(to_var(m, item, trusted, depth + 1));
    return var::list(std::move(list));
  }
  if (const value::object* members = v.if_object()) {
    auto dict = std::make_shared<jinja::dictionary>();
    for (const auto& [name, member] : *members)
      dict->put(m, var(jinja::traced_text(name, trusted)), to_var(m, member, trusted, depth + 1));
    return var(std::shared_ptr<const jinja::dictionary>(std::move(dict)));
  }
  return var();
}

// A role is written between a template's own brackets ("<|" + role + "|>"), where it becomes a
// control token. Only a plain word may: any other role is a user's text.
bool is_plain_word(const std::string& role) {
  return !role.empty() && std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

var messages_to_var(jinja::meter& m, const value& messages) {
  const value::array* items = messages.if_array();
  if (items == nullptr) return to_var(m, messages, false, 0);
  std::vector<var> list;
  for (const value& message : *items) {
    const value::object* members = message.if_object();
    if (members == nullptr) {
      list.push_back(to_var(m, message, false, 1));
      continue;
    }
    auto dict = std::make_shared<jinja::dictionary>();
    for (const auto& [name, member] : *members) {
      const std::string* text = member.if_string();
      bool trusted = name == "role" && text != nullptr && is_plain_word(*text);
      dict->put(m, var(jinja::traced_text(name, false)), to_var(m, member, trusted, 2));
    }
    list.push_back(var(std::shared_ptr<const jinja::dictionary>(std::move(dict))));
  }
  return var::list(std::move(list));
}

// Only what the template names is converted.
void set_context(jinja::interpreter& in, const value& context) {
  const value::object* members = context.if_object();
  if (members == nullptr) {
    if (!context.is_null()) jinja::refuse("a template's context must be an object");
    return;
  }
  const auto& names = in.program().names;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const value* member = context.find(names[i]);
    if (member == nullptr) continue;
    bool is_text = member->if_string() != nullptr;
    bool users = names[i] == "messages" || names[i] == "tools" || names[i] == "documents";
    in.set(static_cast<jinja::symbol>(i), names[i] == "messages"
                                              ? messages_to_var(in.work, *member)
                                              : to_var(in.work, *member, is_text && !users, 0));
  }
}

error at_line(const jinja::refusal& why, int line) {
  return {why.code, "chat template, line " + std::to_string(line) + ": " + why.detail, {}};
}

result<jinja::traced_text> run(const jinja::program_tree& program, const value& context,
                               const render_options& options) {
  jinja::interpreter in(program);
  in.now = options.now;
  try {
    set_context(in, context);
    jinja::interpreter::in_buffer printed(in);
    in.run(program.body);
    return std::move(printed.text);
  } catch (const jinja::refusal& why) {
    return at_line(why, in.line);
  } catch (const std::bad_alloc&) {
    return at_line({errc::no_memory, "out of memory"}, in.line);
  }
}

}  // namespace

chat_template::chat_template(std::shared_ptr<const program> p) : program_(std::move(p)) {}
chat_template::chat_template(const chat_template&) = default;
chat_template::chat_template(chat_template&&) noexcept = default;
chat_template& chat_template::operator=(const chat_template&) = default;
chat_template& chat_template::operator=(chat_template&&) noexcept = default;
chat_template::~chat_template() = default;

result<chat_template> chat_template::compile(std::string_view source) {
  if (source.size() > source_bytes_max)
    return error{errc::bad_file,
                 "the chat template has " + std::to_string(source.size()) + " bytes, more than " +
                     std::to_string(source_bytes_max),
                 {}};
  try {
    return chat_template(std::make_shared<const program>(program{jinja::parse(source)}));
  } catch (const jinja::refusal& why) {
    return error{errc::bad_file, "the chat template does not compile: " + why.detail, {}};
  }
}

result<std::string> chat_template::render(const value& context,
                                          const render_options& options) const {
  auto printed = run(program_->tree, context, options);
  if (!printed) return printed.error();
  return printed->bytes();
}

result<std::vector<prompt_piece>> chat_template::render_pieces(
    const value& context, const render_options& options) const {
  auto printed = run(program_->tree, context, options);
  if (!printed) return printed.error();
  std::vector<prompt_piece> pieces;
  printed->for_each_run([&](std::string_view run, bool trusted) {
    pieces.push_back({std::string(run), trusted});
  });
  return pieces;
}

}  // namespace tandem::text
