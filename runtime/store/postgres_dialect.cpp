#include "runtime/store/postgres_dialect.hpp"

#include "runtime/text/utf8.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace tandem::store {
namespace {

std::string with(std::string text, std::string_view old, std::string_view now) {
  for (auto at = text.find(old); at != text.npos; at = text.find(old, at + now.size()))
    text.replace(at, old.size(), now);
  return text;
}

}  // namespace

std::string postgres_statement(std::string_view sql) {
  std::string out(sql);
  std::replace(out.begin(), out.end(), '?', '$');  // no statement has another one
  return out;
}

std::string postgres_tables(std::string_view ddl) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> turned{
      {{"INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"},
       {" INTEGER", " BIGINT"},
       {" TEXT", " TEXT COLLATE \"C\""},
       {") STRICT", ")"}}};
  std::string out(ddl);
  for (const auto& [old, now] : turned) out = with(std::move(out), old, now);
  return out;
}

std::string postgres_text(std::string_view text) {
  std::string storage;
  const auto valid = text::valid_utf8(text, storage);
  return with(std::string(valid), std::string_view("\0", 1), "\xEF\xBF\xBD");
}

}  // namespace tandem::store
