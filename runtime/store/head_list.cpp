#include "runtime/store/head_list.hpp"

#include "runtime/store/postgres_dialect.hpp"

#include <fmt/format.h>

namespace tandem::store {
namespace {

// A head writes every second; one that is paused for a few must not vanish from the list.
constexpr int present_seconds = 15;

}  // namespace

result<void> note_head(postgres_connection& on, const std::string& joins_at) {
  auto noted = on.run(
      "INSERT INTO tandem_heads VALUES ($1, now()) ON CONFLICT (joins_at) DO UPDATE SET seen = "
      "now()",
      {postgres_text(joins_at)});
  if (!noted) return noted.error();
  return {};
}

// Rows of addresses that nobody uses any more go too.
result<void> forget_head(postgres_connection& on, const std::string& joins_at) {
  auto gone =
      on.run("DELETE FROM tandem_heads WHERE joins_at = $1 OR seen < now() - interval '1 day'",
             {postgres_text(joins_at)});
  if (!gone) return gone.error();
  return {};
}

result<std::vector<std::string>> heads_there(postgres_connection& on, const std::string& own) {
  auto rows =
      on.run(fmt::format("SELECT joins_at FROM tandem_heads WHERE joins_at <> $1 AND seen > "
                         "now() - interval '{} s' ORDER BY joins_at LIMIT {}",
                         present_seconds, heads_listed_max),
             {postgres_text(own)});
  if (!rows) return rows.error();
  std::vector<std::string> heads;
  for (int row = 0; row < rows->count(); ++row) heads.push_back(rows->text(row, 0));
  return heads;
}

}  // namespace tandem::store
