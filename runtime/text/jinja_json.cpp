// tojson, as transformers defines it: Python's json.dumps without escaping what is not ASCII.
#include "runtime/text/jinja_library.hpp"

#include <algorithm>
#include <cmath>

namespace tandem::text::jinja {
namespace {

class json_writer {
 public:
  json_writer(interpreter& in, arguments& args) : in_(in) {
    parameters given("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
    ensure_ascii_ = given.truth(in, 0, false);
    sort_keys_ = given.truth(in, 3, false);
    if (!given.none(1)) {
      const var& indent = given.at(1);
      pretty_ = true;
      indent_ = indent.is_string()
                    ? given.text(1)
                    : repeat(in.work, {" ", true}, std::max<std::int64_t>(given.whole(1, 0), 0));
      comma_ = {",", true};
    }
    if (given.none(2)) return;
    auto separators = items_of(in, given.at(2));
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
      refuse("TypeError: tojson wants two strings as separators");
    comma_ = *separators[0].if_string();
    colon_ = *separators[1].if_string();
  }

  traced_text run(const var& v) {
    write(v, 0);
    return std::move(out_);
  }

 private:
  void put(std::string_view text) { out_.append(text, true); }
  void grown() {
    if (out_.size() > meter::text_bytes_max) in_.work.spend_bytes(out_.size());
  }

  void write(const var& v, int depth) {
    in_.work.spend(1);
    if (v.is_none()) {
      put("null");
    } else if (const auto* b = v.if_bool()) {
      put(*b ? "true" : "false");
    } else if (const auto* i = v.if_int()) {
      put(std::to_string(*i));
    } else if (const auto* d = v.if_double()) {
      put(number(*d));
    } else if (const auto* text = v.if_string()) {
      write_text(*text);
    } else if (const auto* items = v.if_sequence()) {
      write_items(*items, depth);
    } else if (const auto* dict = v.if_dict()) {
      write_members(*dict, depth);
    } else if (auto* o = v.if_object();
               o != nullptr && std::string_view(o->type_name()) == "_GroupTuple") {
      write_items(items_of(in_, v), depth);
    } else {
      refuse("TypeError: Object of type " + std::string(v.type_name()) +
             " is not JSON serializable");
    }
    grown();
  }

  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return double_repr(d);
  }

  void line(int depth) {
    if (!pretty_) return;
    put("\n");
    for (int i = 0; i < depth; ++i) out_.append(indent_);
    in_.work.spend(1 + static_cast<std::size_t>(depth) * indent_.size() / 16);
    grown();
  }

  void write_items(const std::vector<var>& items, int depth) {
    if (items.empty()) return put("[]");
    put("[");
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(comma_);
      line(depth + 1);
      write(items[i], depth + 1);
    }
    line(depth);
    put("]");
  }

  void write_members(const dictionary& dict, int depth) {
    if (dict.members().empty()) return put("{}");
    std::vector<const dictionary::member*> members;
    for (const auto& member : dict.members()) members.push_back(&member);
    in_.work.spend(members.size());
    if (sort_keys_)
      std::stable_sort(members.begin(), members.end(), [this](const auto* a, const auto* b) {
        return ordered(in_.work, order::less, a->first, b->first);
      });
    put("{");
    bool first = true;
    for (const auto* member : members) {
      if (!first) out_.append(comma_);
      first = false;
      line(depth + 1);
      write_key(member->first);
      out_.append(colon_);
      write(member->second, depth + 1);
    }
    line(depth);
    put("}");
  }

  void write_key(const var& key) {
    if (const auto* text = key.if_string()) return write_text(*text);
    put("\"");
    if (key.is_none())
      put("null");
    else if (const auto* b = key.if_bool())
      put(*b ? "true" : "false");
    else if (const auto* i = key.if_int())
      put(std::to_string(*i));
    else if (const auto* d = key.if_double())
      put(number(*d));
    else
      refuse("TypeError: keys must be str, int, float, bool or None, not " +
             std::string(key.type_name()));
    put("\"");
  }

  void write_text(const traced_text& text) {
    in_.work.spend_bytes(text.size());
    put("\"");
    text.for_each_run([this](std::string_view run, bool trusted) {
      std::string escaped;
      for (std::size_t i = 0; i < run.size();) {
        character c = character_at(run, i);
        append_character(escaped, run.substr(i, c.bytes), c.code);
        i += c.bytes;
      }
      out_.append(escaped, trusted);
    });
    put("\"");
  }

  void append_character(std::string& out, std::string_view bytes, char32_t code) const {
    switch (code) {
      case '"':
        out += "\\\"";
        return;
      case '\\':
        out += "\\\\";
        return;
      case '\n':
        out += "\\n";
        return;
      case '\r':
        out += "\\r";
        return;
      case '\t':
        out += "\\t";
        return;
      case '\f':
        out += "\\f";
        return;
      case '\b':
        out += "\\b";
        return;
      default:
        break;
    }
    if (code >= 0x20 && (code < 0x7F || !ensure_ascii_)) {
      out += bytes;
    } else if (code == 0x7F) {
      out += bytes;
    } else if (code < 0x10000) {
      append_unit(out, code);
    } else {
      append_unit(out, 0xD800 + ((code - 0x10000) >> 10));
      append_unit(out, 0xDC00 + ((code - 0x10000) & 0x3FF));
    }
  }

  static void append_unit(std::string& out, char32_t unit) {
    constexpr char hex[] = "0123456789abcdef";
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += hex[(unit >> shift) & 15];
  }

  interpreter& in_;
  bool ensure_ascii_ = false;
  bool sort_keys_ = false;
  bool pretty_ = false;
  traced_text indent_;
  traced_text comma_{", ", true};
  traced_text colon_{": ", true};
  traced_text out_;
};

}  // namespace

traced_text to_json(interpreter& in, const var& v, arguments& args) {
  return json_writer(in, args).run(v);
}

}  // namespace tandem::text::jinja
