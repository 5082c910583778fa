// The functions every template can call.
#include "runtime/text/jinja_library.hpp"
#include "runtime/text/jinja_objects.hpp"

#include <ctime>
#include <map>

namespace tandem::text::jinja {
namespace {

var range(interpreter& in, arguments& args) {
  parameters given("range", args, {"start", "stop", "step"}, 1);
  std::int64_t start = given.has(1) ? given.whole(0, 0) : 0;
  std::int64_t stop = given.has(1) ? given.whole(1, 0) : given.whole(0, 0);
  in.work.spend(8);
  auto made = std::make_shared<range_object>(start, stop, given.whole(2, 1));
  in.work.spend(made->count() / 16);
  return var(std::shared_ptr<object>(std::move(made)));
}

// Pairs, another dict, and names: what dict() and namespace() take.
template <class Put>
void take_members(interpreter& in, const arguments& args, const char* who, Put put) {
  if (args.positional.size() > 1)
    refuse("TypeError: " + std::string(who) + " expected at most 1 argument, got " +
           std::to_string(args.positional.size()));
  if (!args.positional.empty()) {
    const var& from = args.positional.front();
    if (const auto* dict = from.if_dict()) {
      for (const auto& [key, held] : dict->members()) put(key, held);
    } else {
      for (const var& pair : items_of(in, from)) {
        auto halves = items_of(in, pair);
        if (halves.size() != 2) refuse("ValueError: " + std::string(who) + " wants pairs");
        put(halves[0], halves[1]);
      }
    }
  }
  for (const auto& [name, v] : args.named) put(var::literal(name), v);
}

var make_dict(interpreter& in, arguments& args) {
  auto dict = std::make_shared<dictionary>();
  take_members(in, args, "dict",
               [&](const var& key, const var& held) { dict->put(in.work, key, held); });
  return var(std::shared_ptr<const dictionary>(std::move(dict)));
}

var make_namespace(interpreter& in, arguments& args) {
  auto space = in.make<namespace_object>();
  take_members(in, args, "namespace", [&](const var& key, const var& held) {
    if (!key.is_string()) refuse("TypeError: a namespace's names are strings");
    space->set(in, key.if_string()->bytes(), held);
  });
  return var(std::shared_ptr<object>(std::move(space)));
}

var cycler(interpreter& in, arguments& args) {
  if (args.positional.empty()) refuse("RuntimeError: at least one item has to be provided");
  in.work.spend(8);
  return var(std::shared_ptr<object>(std::make_shared<cycler_object>(var::tuple(args.positional))));
}

var joiner(interpreter& in, arguments& args) {
  parameters given("joiner", args, {"sep"});
  in.work.spend(8);
  return var(std::shared_ptr<object>(
      std::make_shared<joiner_object>(given.has(0) ? given.at(0) : var::literal(", "))));
}

var raise_exception(interpreter& in, arguments& args) {
  parameters given("raise_exception", args, {"message"}, 1);
  refuse(to_text(in.work, given.at(0)).bytes());
}

// The local time now, as C's strftime writes it.
var strftime_now(interpreter& in, arguments& args) {
  parameters given("strftime_now", args, {"format"}, 1);
  const traced_text& format = given.text(0);
  constexpr std::size_t format_bytes_max = 1024;
  if (format.size() > format_bytes_max) refuse("strftime_now() wants at most 1024 bytes of format");
  in.work.spend(64);
  std::time_t now = in.now ? static_cast<std::time_t>(*in.now) : std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::string out(64 * format_bytes_max, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.bytes().c_str(), &local));
  return var(traced_text(std::move(out), format.trusted()));
}

var refuse_random(interpreter&, arguments&) {
  refuse("lipsum() is random, and a prompt must not be");
}

}  // namespace

std::optional<var> find_global(std::string_view name) {
  using function = var (*)(interpreter&, arguments&);
  static const std::map<std::string_view, function> table = {
      {"range", range},
      {"dict", make_dict},
      {"namespace", make_namespace},
      {"cycler", cycler},
      {"joiner", joiner},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
      {"lipsum", refuse_random},
  };
  auto found = table.find(name);
  if (found == table.end()) return std::nullopt;
  return make_function(std::string(name), found->second);
}

}  // namespace tandem::text::jinja
