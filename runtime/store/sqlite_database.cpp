#include "runtime/store/sqlite_database.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include <cstring>

namespace tandem::store {
namespace {

// Another process may look (read only) while we write: its locks are short.
constexpr int busy_timeout_ms = 5000;

// A whole look costs as much as reading the file: done while that is nothing at start-up.
constexpr std::int64_t checked_bytes_max = std::int64_t{64} << 20;

}  // namespace

class sqlite_run final : public statement_run {
 public:
  sqlite_run(sqlite_database& owner, sqlite3_stmt* statement, int failure)
      : owner_(owner), statement_(statement), failure_(failure) {}
  sqlite_run(const sqlite_run&) = delete;
  sqlite_run& operator=(const sqlite_run&) = delete;
  ~sqlite_run() override {
    if (!statement_) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }

  void bind_at(int index, std::int64_t value) override {
    if (failure_ == SQLITE_OK) failure_ = sqlite3_bind_int64(statement_, index, value);
  }
  void bind_at(int index, std::string_view value) override {
    if (failure_ != SQLITE_OK) return;
    // A null pointer would bind NULL where the empty text is meant.
    failure_ = sqlite3_bind_text64(statement_, index, value.data() ? value.data() : "",
                                   value.size(), SQLITE_STATIC, SQLITE_UTF8);
  }
  result<bool> next() override {
    if (failure_ != SQLITE_OK) return owner_.failed(failure_);
    int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return owner_.failed(code);
  }
  result<int> run() override {
    auto row = next();
    if (!row) return row.error();
    ensure(!*row, "a statement without rows gave one");
    return sqlite3_changes(owner_.handle_);
  }
  std::int64_t integer(int column) const override {
    return sqlite3_column_int64(statement_, column);
  }
  std::string text(int column) const override {
    const void* bytes = sqlite3_column_blob(statement_, column);
    auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
    return bytes ? std::string(static_cast<const char*>(bytes), size) : std::string();
  }

 private:
  sqlite_database& owner_;
  sqlite3_stmt* statement_;
  int failure_;  // SQLite's code of a statement that could not be prepared or bound
};

result<std::unique_ptr<sqlite_database>> sqlite_database::open(const std::filesystem::path& path,
                                                               access how) {
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
              (how == access::read_only ? SQLITE_OPEN_READONLY
                                        : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  sqlite3* handle = nullptr;
  int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  auto opened = std::make_unique<sqlite_database>(path, handle);
  if (code != SQLITE_OK) return opened->failed(code);
  sqlite3_busy_timeout(handle, busy_timeout_ms);
  if (how == access::read_only) return opened;
  if (auto wal = opened->execute("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON"); !wal)
    return wal.error();
  if (auto whole = opened->check_pages(); !whole) return whole.error();
  return opened;
}

sqlite_database::~sqlite_database() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(handle_);
}

query sqlite_database::prepare(std::string_view sql) {
  auto found = statements_.find(sql);
  if (found != statements_.end()) {
    // In use still by a query of the same text: two at once would share a cursor.
    ensure(!sqlite3_stmt_busy(found->second), "a statement is run within itself");
    return query(std::make_unique<sqlite_run>(*this, found->second, SQLITE_OK));
  }
  sqlite3_stmt* statement = nullptr;
  int code = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()),
                                SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  ensure((code & 0xff) != SQLITE_ERROR, sqlite3_errmsg(handle_));  // the text is ours
  if (code == SQLITE_OK) statements_.emplace(sql, statement);
  return query(std::make_unique<sqlite_run>(*this, statement, code));
}

result<void> sqlite_database::execute(const std::string& sql) {
  int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return failed(code);
  return {};
}

error sqlite_database::failed(int code) const {
  auto say = [&](errc kind, std::string_view what) {
    return error{kind, fmt::format("{}: {}", path_.string(), what), "store.url"};
  };
  const char* reason = handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(code);
  switch (code & 0xff) {
    case SQLITE_FULL:
      return say(errc::io,
                 "the disk is full: nothing of this change was kept; make room and try "
                 "again");
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return say(errc::bad_file,
                 fmt::format("{}: move it (and its -wal and -shm) away to begin with an empty one, "
                             "or bring a copy back",
                             reason));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return say(errc::unavailable,
                 fmt::format("another program held its lock for {} ms", busy_timeout_ms));
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_IOERR: {
      int cause = handle_ ? sqlite3_system_errno(handle_) : 0;
      return say(errc::io, cause ? fmt::format("{} ({})", reason, std::strerror(cause))
                                 : std::string(reason));
    }
    case SQLITE_NOMEM:
      return say(errc::no_memory, reason);
    default:
      return say(errc::internal, fmt::format("{} (SQLite code {})", reason, code));
  }
}

result<std::int64_t> sqlite_database::number(const char* sql) {
  auto asked = prepare(sql);
  auto row = asked.next();
  if (!row) return row.error();
  return *row ? asked.integer(0) : 0;
}

result<std::int64_t> sqlite_database::schema_version() { return number("PRAGMA user_version"); }

result<void> sqlite_database::migrate(std::string_view ddl, std::int64_t version) {
  if (auto made = execute(std::string(ddl)); !made) return made;
  return execute(fmt::format("PRAGMA user_version = {}", version));
}

std::string sqlite_database::json_pair(std::string_view column, std::size_t key,
                                       std::size_t value) const {
  return fmt::format("EXISTS (SELECT 1 FROM json_each({}) WHERE key = ?{} AND value = ?{})", column,
                     key, value);
}

result<void> sqlite_database::check_pages() {
  auto count = number("PRAGMA page_count");
  auto size = number("PRAGMA page_size");
  if (!count) return count.error();
  if (!size) return size.error();
  if (*count * *size > checked_bytes_max) return {};
  auto check = prepare("PRAGMA quick_check(1)");
  auto row = check.next();
  if (!row) return row.error();
  if (*row && check.text(0) == "ok") return {};
  return error{errc::bad_file,
               fmt::format("{} is damaged ({}): move it (and its -wal and -shm) away to begin with "
                           "an empty one, or bring a copy back",
                           path_.string(), *row ? check.text(0) : "no answer"),
               "store.url"};
}

result<void> sqlite_database::begin(bool durable) {
  // WAL: NORMAL leaves syncing to the next FULL commit, which syncs all before it.
  if (auto set = execute(durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL");
      !set)
    return set;
  auto begun = prepare("BEGIN IMMEDIATE").run();
  if (!begun) return begun.error();
  return {};
}

result<void> sqlite_database::commit() {
  auto done = prepare("COMMIT").run();
  if (done) return {};
  auto why = done.error();  // before the roll-back writes over SQLite's own message
  roll_back();
  return why;
}

void sqlite_database::roll_back() {
  // After a full disk SQLite has rolled back already.
  if (!sqlite3_get_autocommit(handle_)) (void)prepare("ROLLBACK").run();
}

}  // namespace tandem::store
