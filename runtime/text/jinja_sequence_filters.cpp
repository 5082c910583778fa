// Filters over sequences and mappings. Those that Jinja makes as they are asked for are generators
// here too: each item once, and an error only when its item is reached.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

#include <algorithm>

namespace tandem::text::jinja {
namespace {

var length(interpreter& in, const var& input, arguments& args) {
  parameters("length", args, {});
  if (auto count = length_of(in, input)) return var::integer(*count);
  refuse("TypeError: object of type '" + std::string(input.type_name()) + "' has no len()");
}

var first(interpreter& in, const var& input, arguments& args) {
  parameters("first", args, {});
  auto item = iterate(in, input)->next();
  return item ? *item : var::undefined("No first item, sequence was empty.");
}

bool reversible(const var& v) {
  auto* o = v.if_object();
  return v.is_undefined() || v.is_string() || v.if_sequence() != nullptr ||
         v.if_dict() != nullptr ||
         (o != nullptr && (o->subscriptable() || dynamic_cast<dict_view*>(o) != nullptr));
}

var last(interpreter& in, const var& input, arguments& args) {
  parameters("last", args, {});
  if (!reversible(input))
    refuse("TypeError: '" + std::string(input.type_name()) + "' object is not reversible");
  auto items = items_of(in, input);
  return items.empty() ? var::undefined("No last item, sequence was empty.") : items.back();
}

// The pass over items that are all made already.
var pass_over(interpreter& in, const char* type, std::vector<var> items) {
  var held = var::list(std::move(items));
  auto all = std::shared_ptr<cursor>(iterate(in, held));
  return make_generator(
      in, type, [all] { return all->next(); }, held.depth());
}

var reverse(interpreter& in, const var& input, arguments& args) {
  parameters("reverse", args, {});
  if (input.is_string()) return slice(in, input, var(), var(), var(std::int64_t{-1}));
  bool once = reversible(input);
  auto items = items_of(in, input);
  std::reverse(items.begin(), items.end());
  if (!once) return var::list(std::move(items));
  return pass_over(in, "reversed", std::move(items));
}

var list(interpreter& in, const var& input, arguments& args) {
  parameters("list", args, {});
  return var::list(items_of(in, input));
}

// A pass that begins when its first item is asked for: until then nothing is refused.
class late_cursor final : public cursor {
 public:
  late_cursor(interpreter& in, var over) : in_(in), over_(std::move(over)) {}
  std::optional<var> next() override {
    if (!items_) items_ = jinja::iterate(in_, over_);
    return items_->next();
  }

 private:
  interpreter& in_;
  var over_;
  std::unique_ptr<cursor> items_;
};

std::shared_ptr<cursor> later(interpreter& in, const var& over) {
  return std::make_shared<late_cursor>(in, over);
}

// What a value is sorted and compared as.
var key_of(interpreter& in, const var& v, bool case_sensitive) {
  if (case_sensitive || !v.is_string()) return v;
  in.work.spend_bytes(v.if_string()->size());
  return var(change_case(*v.if_string(), case_change::lower));
}

struct keyed {
  var key;
  var item;
};

void sort_by_key(interpreter& in, std::vector<keyed>& items, bool backwards) {
  // Reversed twice, equal items keep their order, as in Python.
  if (backwards) std::reverse(items.begin(), items.end());
  std::stable_sort(items.begin(), items.end(), [&](const keyed& a, const keyed& b) {
    return ordered(in.work, order::less, a.key, b.key);
  });
  if (backwards) std::reverse(items.begin(), items.end());
}

var sort(interpreter& in, const var& input, arguments& args) {
  parameters given("sort", args, {"reverse", "case_sensitive", "attribute"});
  bool case_sensitive = given.truth(in, 1, false);
  std::vector<var> paths;
  if (!given.none(2)) {
    const auto* text = given.at(2).if_string();
    std::string_view rest = text ? std::string_view(text->bytes()) : std::string_view();
    for (std::size_t comma = 0; text != nullptr && comma != std::string_view::npos;) {
      comma = rest.find(',');
      paths.push_back(var::literal(rest.substr(0, comma)));
      if (comma != std::string_view::npos) rest.remove_prefix(comma + 1);
    }
    if (text == nullptr) paths.push_back(given.at(2));
  }
  std::vector<keyed> items;
  for (var& item : items_of(in, input)) {
    std::vector<var> key;
    for (const var& path : paths) key.push_back(key_of(in, follow(in, item, path), case_sensitive));
    if (paths.empty()) key.push_back(key_of(in, item, case_sensitive));
    items.push_back({var::list(std::move(key)), std::move(item)});
  }
  sort_by_key(in, items, given.truth(in, 0, false));
  std::vector<var> sorted;
  for (keyed& k : items) sorted.push_back(std::move(k.item));
  return var::list(std::move(sorted));
}

var dict_sort(interpreter& in, const var& input, arguments& args) {
  parameters given("dictsort", args, {"case_sensitive", "by", "reverse"});
  std::string by = given.has(1) ? to_text(in.work, given.at(1)).bytes() : "key";
  if (by != "key" && by != "value") refuse("You can only sort by either \"key\" or \"value\"");
  if (input.is_undefined()) refuse("UndefinedError: " + input.why_undefined());
  const auto* dict = input.if_dict();
  if (dict == nullptr)
    refuse("AttributeError: '" + std::string(input.type_name()) +
           "' object has no attribute 'items'");
  bool case_sensitive = given.truth(in, 0, false);
  std::vector<keyed> items;
  in.work.spend(4 * dict->members().size());
  for (const auto& [key, held] : dict->members())
    items.push_back(
        {key_of(in, by == "key" ? key : held, case_sensitive), var::tuple({key, held})});
  sort_by_key(in, items, given.truth(in, 2, false));
  std::vector<var> sorted;
  for (keyed& k : items) sorted.push_back(std::move(k.item));
  return var::list(std::move(sorted));
}

var unique(interpreter& in, const var& input, arguments& args) {
  parameters given("unique", args, {"case_sensitive", "attribute"});
  bool case_sensitive = given.truth(in, 0, false);
  var path = given.has(1) ? given.at(1) : var();
  auto all = later(in, input);
  auto seen = std::make_shared<dictionary>();
  int depth = std::max(input.depth(), path.depth()) + 1;
  return make_generator(
      in, "generator",
      [&in, all, seen, path, case_sensitive]() -> std::optional<var> {
        while (auto item = all->next()) {
          var key = key_of(in, follow(in, *item, path), case_sensitive);
          if (seen->find(in.work, key) != nullptr) continue;
          seen->put(in.work, key, var());
          return item;
        }
        return std::nullopt;
      },
      depth);
}

var extreme(interpreter& in, const var& input, arguments& args, const char* name, order better) {
  parameters given(name, args, {"case_sensitive", "attribute"});
  bool case_sensitive = given.truth(in, 0, false);
  var path = given.has(1) ? given.at(1) : var();
  auto all = iterate(in, input);
  auto best = all->next();
  if (!best) return var::undefined("No aggregated item, sequence was empty.");
  var best_key = key_of(in, follow(in, *best, path), case_sensitive);
  while (auto item = all->next()) {
    var key = key_of(in, follow(in, *item, path), case_sensitive);
    if (!ordered(in.work, better, key, best_key)) continue;
    best = std::move(item);
    best_key = std::move(key);
  }
  return *best;
}

var minimum(interpreter& in, const var& input, arguments& args) {
  return extreme(in, input, args, "min", order::less);
}
var maximum(interpreter& in, const var& input, arguments& args) {
  return extreme(in, input, args, "max", order::greater);
}

var sum(interpreter& in, const var& input, arguments& args) {
  parameters given("sum", args, {"attribute", "start"});
  var total = given.has(1) ? given.at(1) : var(std::int64_t{0});
  if (total.is_string()) refuse("TypeError: sum() can't sum strings [use ''.join(seq) instead]");
  auto all = iterate(in, input);
  while (auto item = all->next()) {
    var term = given.none(0) ? *item : follow(in, *item, given.at(0));
    total = apply(in, binary_op::add, total, term);
  }
  return total;
}

var items(interpreter& in, const var& input, arguments& args) {
  parameters("items", args, {});
  if (input.is_undefined()) return pass_over(in, "generator", {});
  const auto* dict = input.if_dict();
  if (dict == nullptr) refuse("TypeError: Can only get item pairs from a mapping.");
  std::vector<var> pairs;
  in.work.spend(4 * dict->members().size());
  for (const auto& [key, held] : dict->members()) pairs.push_back(var::tuple({key, held}));
  return pass_over(in, "generator", std::move(pairs));
}

int depth_of(const var& input, const arguments& args) {
  int depth = input.depth();
  for (const var& v : args.positional) depth = std::max(depth, v.depth());
  for (const auto& [name, v] : args.named) depth = std::max(depth, v.depth());
  return depth + 1;
}

std::string called_name(interpreter& in, arguments& args) {
  std::string name = to_text(in.work, args.positional.front()).bytes();
  args.positional.erase(args.positional.begin());
  return name;
}

var map(interpreter& in, const var& input, arguments& args) {
  if (!truth(in, input)) return pass_over(in, "generator", {});
  int depth = depth_of(input, args);
  auto all = later(in, input);
  if (args.positional.empty()) {
    var path;
    var fallback;
    bool has_path = false;
    for (const auto& [name, v] : args.named) {
      if (name == "attribute") {
        path = v;
        has_path = true;
      } else if (name == "default") {
        fallback = v;
      } else {
        refuse("Unexpected keyword argument '" + name + "'");
      }
    }
    if (!has_path) refuse("map requires a filter argument");
    return make_generator(
        in, "generator",
        [&in, all, path, fallback]() -> std::optional<var> {
          auto item = all->next();
          if (!item) return std::nullopt;
          return follow(in, *item, path, &fallback);
        },
        depth);
  }
  arguments rest = args;
  std::string name = called_name(in, rest);
  return make_generator(
      in, "generator",
      [&in, all, name, rest]() -> std::optional<var> {
        auto item = all->next();
        if (!item) return std::nullopt;
        auto function = find_filter(name);
        if (function == nullptr) refuse("No filter named '" + name + "'.");
        interpreter::nested inside(in);
        arguments given = rest;
        in.work.spend(2 + given.positional.size());
        return function(in, *item, given);
      },
      depth);
}

var choose(interpreter& in, const var& input, arguments& args, bool keep, bool by_attribute) {
  if (!truth(in, input)) return pass_over(in, "generator", {});
  int depth = depth_of(input, args);
  arguments rest = args;
  var path;
  if (by_attribute) {
    if (rest.positional.empty()) refuse("Missing parameter for attribute name");
    path = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
  }
  std::string name = rest.positional.empty() ? std::string() : called_name(in, rest);
  auto all = later(in, input);
  return make_generator(
      in, "generator",
      [&in, all, path, name, rest, keep]() -> std::optional<var> {
        test_function function = name.empty() ? nullptr : find_test(name);
        if (function == nullptr && !name.empty()) refuse("No test named '" + name + "'.");
        interpreter::nested inside(in);
        while (auto item = all->next()) {
          var held = follow(in, *item, path);
          arguments given = rest;
          in.work.spend(2 + given.positional.size());
          if ((function == nullptr ? truth(in, held) : function(in, held, given)) == keep)
            return item;
        }
        return std::nullopt;
      },
      depth);
}

var select(interpreter& in, const var& input, arguments& args) {
  return choose(in, input, args, true, false);
}
var reject(interpreter& in, const var& input, arguments& args) {
  return choose(in, input, args, false, false);
}
var select_attribute(interpreter& in, const var& input, arguments& args) {
  return choose(in, input, args, true, true);
}
var reject_attribute(interpreter& in, const var& input, arguments& args) {
  return choose(in, input, args, false, true);
}

var batch(interpreter& in, const var& input, arguments& args) {
  parameters given("batch", args, {"linecount", "fill_with"}, 1);
  std::int64_t count = given.whole(0, 1);
  std::vector<var> rows;
  std::vector<var> row;
  for (var& item : items_of(in, input)) {
    if (static_cast<std::int64_t>(row.size()) == count)
      rows.push_back(var::list(std::exchange(row, {})));
    row.push_back(std::move(item));
  }
  if (!row.empty()) {
    while (!given.none(1) && static_cast<std::int64_t>(row.size()) < count) {
      in.work.spend(2);
      row.push_back(given.at(1));
    }
    rows.push_back(var::list(std::move(row)));
  }
  return pass_over(in, "generator", std::move(rows));
}

var slice_filter(interpreter& in, const var& input, arguments& args) {
  parameters given("slice", args, {"slices", "fill_with"}, 1);
  std::int64_t slices = given.whole(0, 1);
  auto items = items_of(in, input);
  if (slices == 0) refuse("ZeroDivisionError: integer division or modulo by zero");
  std::vector<var> columns;
  std::size_t offset = 0;
  for (std::int64_t i = 0; i < slices; ++i) {
    auto wide = static_cast<std::size_t>(slices);
    in.work.spend(4);
    bool extra = static_cast<std::size_t>(i) < items.size() % wide;
    std::size_t end = offset + items.size() / wide + (extra ? 1 : 0);
    std::vector<var> column(items.begin() + static_cast<std::ptrdiff_t>(offset),
                            items.begin() + static_cast<std::ptrdiff_t>(end));
    if (!given.none(1) && !extra) column.push_back(given.at(1));
    columns.push_back(var::list(std::move(column)));
    offset = end;
  }
  return pass_over(in, "generator", std::move(columns));
}

// One group: a pair that also answers to `grouper` and `list`.
class group_object final : public object {
 public:
  group_object(var key, var items) : pair_(var::tuple({std::move(key), std::move(items)})) {}
  const char* type_name() const override { return "_GroupTuple"; }
  traced_text repr(meter& m, int depth) const override { return to_repr(m, pair_, depth); }
  std::optional<var> attribute(interpreter&, std::string_view name) override {
    if (name == "grouper") return pair_.if_tuple()->front();
    if (name == "list") return pair_.if_tuple()->back();
    return std::nullopt;
  }
  std::optional<var> item(interpreter& in, const var& key) override {
    if (!key.whole()) return std::nullopt;
    var held = jinja::item(in, pair_, key);
    return held.is_undefined() ? std::nullopt : std::optional(held);
  }
  std::unique_ptr<cursor> iterate(interpreter& in) override { return jinja::iterate(in, pair_); }
  std::optional<std::size_t> length(interpreter&) override { return 2; }
  bool subscriptable() const override { return true; }
  int depth() const override { return pair_.depth() + 1; }

 private:
  var pair_;
};

var group_by(interpreter& in, const var& input, arguments& args) {
  parameters given("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const var* fallback = given.has(1) ? &given.at(1) : nullptr;
  bool case_sensitive = given.truth(in, 2, false);
  std::vector<keyed> all;
  for (var& item : items_of(in, input)) {
    var key = key_of(in, follow(in, item, given.at(0), fallback), case_sensitive);
    all.push_back({std::move(key), std::move(item)});
  }
  sort_by_key(in, all, false);
  std::vector<var> groups;
  for (std::size_t i = 0; i < all.size();) {
    std::vector<var> members;
    std::size_t start = i;
    for (; i < all.size() && equal(in.work, all[i].key, all[start].key); ++i)
      members.push_back(all[i].item);
    if (i == start) members.push_back(all[i++].item);  // a key unequal to itself
    var key = follow(in, members.front(), given.at(0), fallback);
    groups.push_back(var(std::shared_ptr<object>(
        std::make_shared<group_object>(std::move(key), var::list(std::move(members))))));
    in.work.spend(8);
  }
  return var::list(std::move(groups));
}

var fallback_value(interpreter& in, const var& input, arguments& args) {
  parameters given("default", args, {"default_value", "boolean"});
  bool missing = input.is_undefined() || (given.truth(in, 1, false) && !truth(in, input));
  if (!missing) return input;
  return given.has(0) ? given.at(0) : var::literal("");
}

var attribute_filter(interpreter& in, const var& input, arguments& args) {
  parameters given("attr", args, {"name"}, 1);
  const std::string& name = given.text(0).bytes();
  if (input.is_undefined()) refuse("UndefinedError: " + input.why_undefined());
  std::optional<var> held =
      input.if_object() ? input.if_object()->attribute(in, name) : find_method(input, name);
  if (held) return *held;
  return var::undefined("'" + std::string(input.type_name()) + " object' has no attribute '" +
                        name + "'");
}

}  // namespace

std::vector<named_filter> sequence_filters() {
  return {{"length", length},
          {"count", length},
          {"first", first},
          {"last", last},
          {"reverse", reverse},
          {"list", list},
          {"sort", sort},
          {"dictsort", dict_sort},
          {"unique", unique},
          {"min", minimum},
          {"max", maximum},
          {"sum", sum},
          {"items", items},
          {"map", map},
          {"select", select},
          {"reject", reject},
          {"selectattr", select_attribute},
          {"rejectattr", reject_attribute},
          {"batch", batch},
          {"slice", slice_filter},
          {"groupby", group_by},
          {"default", fallback_value},
          {"d", fallback_value},
          {"attr", attribute_filter}};
}

}  // namespace tandem::text::jinja
