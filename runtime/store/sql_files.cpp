// Files of the store: the bytes first, then the row; a row first removed, then the bytes. A crash
// between leaves a stray that the next start removes, never a row without bytes.
#include "runtime/store/folder.hpp"
#include "runtime/store/rows.hpp"
#include "runtime/store/sql_store.hpp"

#include <fmt/format.h>

namespace tandem::store {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view file_columns = "id, filename, purpose, bytes, created_at";

result<file_record> file_from(const query& row) {
  return file_record{row.text(0), row.text(1), row.text(2), row.integer(3), row.integer(4)};
}

}  // namespace

result<file_record> sql_store::add_file(file_record file, const fs::path& from) {
  if (file.id.empty()) file.id = new_id("file-");
  if (file.created_at == 0) file.created_at = unix_seconds();
  std::error_code code;
  auto bytes = fs::file_size(from, code);
  if (code) return error{errc::io, fmt::format("{}: {}", from.string(), code.message()), {}};
  file.bytes = static_cast<std::int64_t>(bytes);
  auto added = write(true, [&](database& db) -> result<file_record> {
    auto inserted = db.prepare(
                          "INSERT INTO files (id, filename, purpose, bytes, created_at) "
                          "VALUES (?1, ?2, ?3, ?4, ?5)")
                        .bind(std::string_view(file.id), std::string_view(file.filename),
                              std::string_view(file.purpose), file.bytes, file.created_at)
                        .run();
    if (!inserted) return inserted.error();
    // Within the transaction: no commit without the bytes in place.
    if (auto put = put_in_place(from, file_path(file.id)); !put) return put.error();
    return file;
  });
  if (!added) fs::remove(file_path(file.id), code);  // a stray when only the commit failed
  return added;
}

result<file_record> sql_store::find_file(std::string_view id) const {
  return read([&](database& db) -> result<file_record> {
    auto found = db.prepare(fmt::format("SELECT {} FROM files WHERE id = ?1", file_columns));
    auto row = found.bind(id).next();
    if (!row) return row.error();
    if (!*row) return error{errc::not_found, fmt::format("No such File object: {}", id), "id"};
    return file_from(found);
  });
}

result<page<file_record>> sql_store::list_files(std::string_view purpose, std::string_view after,
                                                int limit, bool oldest_first) const {
  ensure(limit >= 1, "a page of no rows");
  return read([&](database& db) -> result<page<file_record>> {
    auto start = page_start(db, "files", after);
    if (!start) return start.error();
    if (after.empty() && oldest_first) *start = 0;
    auto rows = db.prepare(fmt::format(
        "SELECT {} FROM files WHERE number {} ?1 AND (?2 = '' OR purpose = ?2) ORDER BY number {} "
        "LIMIT ?3",
        file_columns, oldest_first ? '>' : '<', oldest_first ? "ASC" : "DESC"));
    rows.bind(*start, purpose, std::int64_t{limit} + 1);
    return page_of<file_record>(rows, limit, file_from);
  });
}

result<void> sql_store::remove_file(std::string_view id) {
  auto removed = write(true, [&](database& db) -> result<void> {
    auto number = number_of(db, "files", id, "File object");
    if (!number) return number.error();
    auto needing = db.prepare(
        "SELECT id, status FROM jobs WHERE (training_file = ?1 OR validation_file = ?1) AND status "
        "NOT IN ('succeeded', 'failed', 'cancelled') LIMIT 1");
    auto needed = needing.bind(id).next();
    if (!needed) return needed.error();
    if (*needed)
      return error{errc::conflict,
                   fmt::format("{} is needed by {}, which is {}: cancel the job first, or wait "
                               "until it ends",
                               id, needing.text(0), needing.text(1)),
                   "file_id"};
    auto deleted = db.prepare("DELETE FROM files WHERE number = ?1").bind(*number).run();
    if (!deleted) return deleted.error();
    return {};
  });
  if (!removed) return removed;
  std::error_code ignored;  // a stray is removed at the next start
  fs::remove(file_path(id), ignored);
  return {};
}

}  // namespace tandem::store
