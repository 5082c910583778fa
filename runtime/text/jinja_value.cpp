#include "runtime/text/jinja_value.hpp"

#include "runtime/text/jinja_interpreter.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::text::jinja {

void refuse(std::string detail, errc code) { throw refusal{code, std::move(detail)}; }

void meter::out_of_steps() {
  refuse("the template does more than " + std::to_string(steps_max) + " steps of work",
         errc::too_large);
}

void meter::text_too_long(std::size_t bytes) {
  refuse("the template makes " + std::to_string(bytes) + " bytes of text, more than " +
             std::to_string(text_bytes_max),
         errc::too_large);
}

namespace {

int checked_depth(int depth) {
  if (depth > meter::nesting_max)
    refuse("values nested deeper than " + std::to_string(meter::nesting_max) + " levels");
  return depth;
}

std::shared_ptr<const sequence> make_sequence(std::vector<var> items) {
  int deepest = 0;
  for (const var& item : items) deepest = std::max(deepest, item.depth());
  return std::make_shared<const sequence>(sequence{std::move(items), checked_depth(deepest + 1)});
}

[[noreturn]] void refuse_operands(const char* op, const var& a, const var& b) {
  refuse("TypeError: '" + std::string(op) + "' not supported between instances of '" +
         a.type_name() + "' and '" + b.type_name() + "'");
}

}  // namespace

var var::undefined(std::string why) {
  var v;
  v.state_ = undefined_t{std::make_shared<const undefined_info>(undefined_info{std::move(why)})};
  return v;
}

var var::list(std::vector<var> items) {
  var v;
  v.state_ = list_t{make_sequence(std::move(items))};
  return v;
}

var var::tuple(std::vector<var> items) {
  var v;
  v.state_ = tuple_t{make_sequence(std::move(items))};
  return v;
}

std::optional<std::int64_t> var::whole() const {
  if (const auto* i = if_int()) return *i;
  if (const auto* b = if_bool()) return *b ? 1 : 0;
  return std::nullopt;
}

std::optional<double> var::number() const {
  if (const auto* d = if_double()) return *d;
  if (auto i = whole()) return static_cast<double>(*i);
  return std::nullopt;
}

int var::depth() const {
  if (auto l = std::get_if<list_t>(&state_)) return l->data->depth;
  if (auto t = std::get_if<tuple_t>(&state_)) return t->data->depth;
  if (const auto* d = if_dict()) return d->depth();
  if (const auto* o = if_object()) return o->depth();
  return 0;
}

const char* var::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (if_bool()) return "bool";
  if (if_int()) return "int";
  if (if_double()) return "float";
  if (is_markup()) return "Markup";
  if (is_string()) return "str";
  if (if_list()) return "list";
  if (if_tuple()) return "tuple";
  if (if_dict()) return "dict";
  return if_object()->type_name();
}

bool var::same_as(const var& other) const {
  if (state_.index() != other.state_.index()) return false;
  if (is_none()) return true;
  if (const auto* b = if_bool()) return *b == *other.if_bool();
  // Small ints are one object in Python; larger ones that compare so are compared by value here.
  if (const auto* i = if_int()) return *i == *other.if_int();
  if (const auto* s = if_string()) return s->bytes() == other.if_string()->bytes();
  if (is_undefined() || if_double()) return false;
  if (const auto* items = if_sequence())
    return items == other.if_sequence() || (if_tuple() && items->empty());
  if (const auto* d = if_dict()) return d == other.if_dict();
  return if_object() == other.if_object();
}

std::optional<std::size_t> dictionary::place(meter& m, const var& key) const {
  if (key.if_list() || key.if_dict())
    refuse("TypeError: unhashable type: '" + std::string(key.type_name()) + "'");
  const auto* text = key.if_string();
  if (text != nullptr && members_.size() > small) {
    m.spend_bytes(text->size());
    auto found = places_.find(text->bytes());
    if (found == places_.end()) return std::nullopt;
    return found->second;
  }
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (equal(m, members_[i].first, key)) return i;
  return std::nullopt;
}

const var* dictionary::find(meter& m, const var& key) const {
  auto at = place(m, key);
  return at ? &members_[*at].second : nullptr;
}

const var* dictionary::find(std::string_view key) const {
  if (members_.size() > small) {
    auto found = places_.find(key);
    return found == places_.end() ? nullptr : &members_[found->second].second;
  }
  for (const auto& [name, held] : members_)
    if (name.if_string() && name.if_string()->bytes() == key) return &held;
  return nullptr;
}

void dictionary::put(meter& m, var key, var v) {
  depth_ = checked_depth(std::max({depth_, key.depth() + 1, v.depth() + 1}));
  if (auto at = place(m, key)) {
    members_[*at].second = std::move(v);
    return;
  }
  m.spend(2);
  members_.emplace_back(std::move(key), std::move(v));
  if (members_.size() < small + 1) return;
  // The views stay good: a key's text is shared and never changes.
  for (std::size_t i = places_.empty() ? 0 : members_.size() - 1; i < members_.size(); ++i)
    if (const auto* text = members_[i].first.if_string()) places_.emplace(text->bytes(), i);
}

traced_text object::repr(meter&, int) const {
  return {"<" + std::string(type_name()) + " object>", true};
}

std::optional<var> object::attribute(interpreter&, std::string_view) { return std::nullopt; }
std::optional<var> object::item(interpreter&, const var&) { return std::nullopt; }

var object::call(interpreter&, arguments&) {
  refuse("TypeError: '" + std::string(type_name()) + "' object is not callable");
}

bool truth(interpreter& in, const var& v) {
  if (v.is_undefined() || v.is_none()) return false;
  if (auto i = v.whole()) return *i != 0;
  if (const auto* d = v.if_double()) return *d != 0;
  if (auto length = length_of(in, v)) return *length > 0;
  return true;
}

bool equal(meter& m, const var& a, const var& b, int depth) {
  if (depth > meter::nesting_max) refuse("values nested too deep to compare");
  m.spend(1);
  if (a.whole() && b.whole()) return *a.whole() == *b.whole();
  if (a.number() && b.number()) {
    auto exact = [](const var& v) -> long double {
      return v.whole() ? static_cast<long double>(*v.whole())
                       : static_cast<long double>(*v.if_double());
    };
    return exact(a) == exact(b);
  }
  if (a.is_string() && b.is_string()) {
    if (a.if_string()->size() != b.if_string()->size()) return false;
    m.spend(a.if_string()->size() / 64);
    return a.if_string()->bytes() == b.if_string()->bytes();
  }
  if ((a.if_list() && b.if_list()) || (a.if_tuple() && b.if_tuple())) {
    const auto& left = *a.if_sequence();
    const auto& right = *b.if_sequence();
    if (left.size() != right.size()) return false;
    for (std::size_t i = 0; i < left.size(); ++i)
      if (!equal(m, left[i], right[i], depth + 1)) return false;
    return true;
  }
  if (a.if_dict() && b.if_dict()) {
    if (a.if_dict()->members().size() != b.if_dict()->members().size()) return false;
    for (const auto& [key, held] : a.if_dict()->members()) {
      const var* other = b.if_dict()->find(m, key);
      if (other == nullptr || !equal(m, held, *other, depth + 1)) return false;
    }
    return true;
  }
  if (a.is_undefined() && b.is_undefined()) return true;
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  return a.if_object() != nullptr && a.if_object() == b.if_object();
}

namespace {

const char* spelling(order op) {
  switch (op) {
    case order::less:
      return "<";
    case order::less_equal:
      return "<=";
    case order::greater:
      return ">";
    default:
      return ">=";
  }
}

template <class T>
bool holds(order op, const T& a, const T& b) {
  switch (op) {
    case order::less:
      return a < b;
    case order::less_equal:
      return a <= b;
    case order::greater:
      return a > b;
    default:
      return a >= b;
  }
}

}  // namespace

bool ordered(meter& m, order op, const var& a, const var& b, int depth) {
  if (depth > meter::nesting_max) refuse("values nested too deep to compare");
  m.spend(1);
  if (a.is_undefined()) refuse("UndefinedError: " + a.why_undefined());
  if (b.is_undefined()) refuse("UndefinedError: " + b.why_undefined());
  if (a.whole() && b.whole()) return holds(op, *a.whole(), *b.whole());
  if (a.number() && b.number()) {
    auto exact = [](const var& v) -> long double {
      return v.whole() ? static_cast<long double>(*v.whole())
                       : static_cast<long double>(*v.if_double());
    };
    return holds(op, exact(a), exact(b));
  }
  if (a.is_string() && b.is_string()) {
    m.spend(std::min(a.if_string()->size(), b.if_string()->size()) / 64);
    return holds(op, a.if_string()->bytes(), b.if_string()->bytes());
  }
  if ((a.if_list() && b.if_list()) || (a.if_tuple() && b.if_tuple())) {
    const auto& left = *a.if_sequence();
    const auto& right = *b.if_sequence();
    for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i)
      if (!equal(m, left[i], right[i], depth + 1))
        return ordered(m, op, left[i], right[i], depth + 1);
    return holds(op, left.size(), right.size());
  }
  refuse_operands(spelling(op), a, b);
}

bool contains(interpreter& in, const var& container, const var& item) {
  if (const auto* text = container.if_string()) {
    const auto* part = item.if_string();
    if (item.is_undefined()) refuse("UndefinedError: " + item.why_undefined());
    if (part == nullptr)
      refuse("TypeError: 'in <string>' requires string as left operand, not " +
             std::string(item.type_name()));
    in.work.spend_bytes(text->size());
    return find_text(text->bytes(), part->bytes(), 0) != std::string::npos;
  }
  if (const auto* d = container.if_dict()) return d->find(in.work, item) != nullptr;
  auto all = iterate(in, container);
  while (auto next = all->next())
    if (equal(in.work, *next, item)) return true;
  return false;
}

std::optional<std::size_t> length_of(interpreter& in, const var& v) {
  if (v.is_undefined()) return 0;
  if (const auto* text = v.if_string()) {
    in.work.spend(text->size() / 64);
    return character_count(text->bytes());
  }
  if (const auto* items = v.if_sequence()) return items->size();
  if (const auto* d = v.if_dict()) return d->members().size();
  if (auto* o = v.if_object()) return o->length(in);
  return std::nullopt;
}

namespace {

class sequence_cursor final : public cursor {
 public:
  sequence_cursor(meter& m, var held) : meter_(m), held_(std::move(held)) {}
  std::optional<var> next() override {
    const auto& items = *held_.if_sequence();
    if (at_ >= items.size()) return std::nullopt;
    meter_.spend(1);
    return items[at_++];
  }

 private:
  meter& meter_;
  var held_;
  std::size_t at_ = 0;
};

class key_cursor final : public cursor {
 public:
  key_cursor(meter& m, var held) : meter_(m), held_(std::move(held)) {}
  std::optional<var> next() override {
    const auto& members = held_.if_dict()->members();
    if (at_ >= members.size()) return std::nullopt;
    meter_.spend(1);
    return members[at_++].first;
  }

 private:
  meter& meter_;
  var held_;
  std::size_t at_ = 0;
};

class character_cursor final : public cursor {
 public:
  character_cursor(meter& m, var held) : meter_(m), held_(std::move(held)) {}
  std::optional<var> next() override {
    const traced_text& text = *held_.if_string();
    character c = character_at(text.bytes(), at_);
    if (c.bytes == 0) return std::nullopt;
    meter_.spend(2);
    at_ += c.bytes;
    return var(text.slice(at_ - c.bytes, at_));
  }

 private:
  meter& meter_;
  var held_;
  std::size_t at_ = 0;
};

class empty_cursor final : public cursor {
  std::optional<var> next() override { return std::nullopt; }
};

}  // namespace

std::unique_ptr<cursor> iterate(interpreter& in, const var& v) {
  if (v.is_undefined()) return std::make_unique<empty_cursor>();
  if (v.is_string()) return std::make_unique<character_cursor>(in.work, v);
  if (v.if_sequence()) return std::make_unique<sequence_cursor>(in.work, v);
  if (v.if_dict()) return std::make_unique<key_cursor>(in.work, v);
  if (auto* o = v.if_object())
    if (auto made = o->iterate(in)) return made;
  refuse("TypeError: '" + std::string(v.type_name()) + "' object is not iterable");
}

std::vector<var> items_of(interpreter& in, const var& v) {
  if (const auto* items = v.if_sequence()) {
    in.work.spend(items->size() * 2);
    return *items;
  }
  std::vector<var> items;
  auto all = iterate(in, v);
  while (auto next = all->next()) {
    in.work.spend(2);
    items.push_back(std::move(*next));
  }
  return items;
}

}  // namespace tandem::text::jinja
