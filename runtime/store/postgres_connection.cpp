#include "runtime/store/postgres_connection.hpp"

#include "runtime/store/postgres_errors.hpp"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>

#include <array>
#include <charconv>
#include <optional>
#include <utility>

namespace tandem::store {
namespace {

using clock = std::chrono::steady_clock;

// The server gives up on a statement first; where nothing comes from it, we do.
constexpr int statement_timeout_ms = 5000;
constexpr int answer_timeout_ms = 7000;
// Of a transaction whose head says nothing more: it holds others up.
constexpr int idle_transaction_ms = 3000;
constexpr int oldest_server = 140000;  // idle_session_timeout

std::string name_of(const pg_conn* handle) {
  const auto or_none = [](const char* text) { return std::string(text ? text : ""); };
  const auto host = or_none(PQhost(handle));
  return fmt::format("postgresql://{}@{}:{}/{}", or_none(PQuser(handle)),
                     host.find(':') == host.npos ? host : "[" + host + "]", or_none(PQport(handle)),
                     or_none(PQdb(handle)));
}

// libpq's own words about a broken address may quote a password, and so may a port or database that
// an unescaped / in a password has made.
bool sound(const std::string& url) {
  PQconninfoOption* parsed = PQconninfoParse(url.c_str(), nullptr);
  if (!parsed) return false;
  bool good = true;
  for (const auto* option = parsed; option->keyword; ++option) {
    const std::string_view key(option->keyword), value(option->val ? option->val : "");
    if (key == "port") good &= value.find_first_not_of("0123456789,") == value.npos;
    if (key == "dbname") good &= value.find('@') == value.npos;
  }
  PQconninfoFree(parsed);
  return good;
}

}  // namespace

void postgres_rows::clear::operator()(pg_result* rows) const { PQclear(rows); }

int postgres_rows::count() const { return PQntuples(rows_.get()); }

std::string postgres_rows::text(int row, int column) const {
  return {PQgetvalue(rows_.get(), row, column),
          static_cast<std::size_t>(PQgetlength(rows_.get(), row, column))};
}

std::int64_t postgres_rows::integer(int row, int column) const {
  std::int64_t value = 0;
  const char* text = PQgetvalue(rows_.get(), row, column);
  std::from_chars(text, text + PQgetlength(rows_.get(), row, column), value);
  return value;
}

int postgres_rows::changed() const {
  const std::string_view text(PQcmdTuples(rows_.get()));
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string postgres_rows::outcome() const { return PQcmdStatus(rows_.get()); }

postgres_connection::postgres_connection(pg_conn* handle)
    : handle_(handle), name_(name_of(handle)) {}

postgres_connection::~postgres_connection() { PQfinish(handle_); }

result<std::unique_ptr<postgres_connection>> postgres_connection::open(
    const std::string& url, std::chrono::milliseconds silent_max) {
  if (!sound(url)) return bad_postgres_url();
  // What stands before dbname is a default for it, what stands behind has the last word.
  constexpr std::array keys{
      "connect_timeout",  "tcp_user_timeout",          "keepalives_idle", "keepalives_interval",
      "keepalives_count", "fallback_application_name", "dbname",          "client_encoding"};
  const std::array<const char*, keys.size()> values{"3", "3000",   "1",         "1",
                                                    "3", "tandem", url.c_str(), "UTF8"};
  std::array<const char*, keys.size() + 1> keys_ended{}, values_ended{};
  for (std::size_t at = 0; at < keys.size(); ++at) {
    keys_ended[at] = keys[at];
    values_ended[at] = values[at];
  }
  auto* handle = PQconnectdbParams(keys_ended.data(), values_ended.data(), 1);
  if (!handle) return error{errc::no_memory, "no memory for a connection to PostgreSQL", ""};
  auto opened = std::unique_ptr<postgres_connection>(new postgres_connection(handle));
  if (PQstatus(handle) != CONNECTION_OK)
    return no_connection(opened->name_, PQdb(handle), PQuser(handle), PQerrorMessage(handle));
  if (auto greeted = opened->greet(silent_max); !greeted) return greeted.error();
  return opened;
}

result<void> postgres_connection::greet(std::chrono::milliseconds silent_max) {
  PQsetNoticeProcessor(
      handle_, [](void*, const char*) {}, nullptr);
  PQsetnonblocking(handle_, 1);
  if (const int version = PQserverVersion(handle_); version < oldest_server)
    return error{errc::unsupported,
                 fmt::format("{} is PostgreSQL {}: {} or newer is needed", name_, version / 10000,
                             oldest_server / 10000),
                 "store.url"};
  // The server finds a cut line as soon as we do.
  auto set = execute(fmt::format(
      "SET statement_timeout = {0}; SET lock_timeout = {0};"
      "SET idle_in_transaction_session_timeout = {1}; SET idle_session_timeout = {2};"
      "SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3;"
      "SET tcp_user_timeout = 3000; SET client_min_messages = error;"
      "SET default_transaction_isolation = 'read committed';"
      "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean",
      statement_timeout_ms, idle_transaction_ms, silent_max.count()));
  if (!set) return set.error();
  if (set->text(0, 0) == "t") return read_only_server(name_);
  return {};
}

result<postgres_rows> postgres_connection::execute(const std::string& sql) {
  if (!handle_) return broken(errc::unavailable, "the connection is gone");
  return answer(PQsendQuery(handle_, sql.c_str()) == 1);
}

result<postgres_rows> postgres_connection::run(std::string_view sql,
                                               const std::vector<std::string>& values) {
  if (!handle_) return broken(errc::unavailable, "the connection is gone");
  auto known = planned_.find(sql);
  if (known == planned_.end()) {
    const auto name = fmt::format("s{}", planned_.size());
    const std::string text(sql);
    auto planned = answer(PQsendPrepare(handle_, name.c_str(), text.c_str(), 0, nullptr) == 1);
    if (!planned) return planned;
    known = planned_.emplace(text, name).first;
  }
  std::vector<const char*> pointers;
  for (const auto& value : values) pointers.push_back(value.c_str());
  return answer(PQsendQueryPrepared(handle_, known->second.c_str(),
                                    static_cast<int>(pointers.size()), pointers.data(), nullptr,
                                    nullptr, 0) == 1);
}

// Until the server is ready for the next statement; the last result, or the first that failed.
result<postgres_rows> postgres_connection::answer(bool sent) {
  if (!sent) return broken(errc::unavailable, first_line(PQerrorMessage(handle_)));
  const auto deadline = clock::now() + std::chrono::milliseconds(answer_timeout_ms);
  postgres_rows last(nullptr);
  std::optional<error> why;
  for (;;) {
    const int unsent = PQflush(handle_);
    if (unsent < 0) return broken(errc::unavailable, first_line(PQerrorMessage(handle_)));
    if (unsent == 0 && PQisBusy(handle_) == 0) {
      pg_result* rows = PQgetResult(handle_);
      if (!rows) break;
      const auto status = PQresultStatus(rows);
      postgres_rows got(rows);
      if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        last = std::move(got);
      else if (!why)
        why = failed(rows);
      if (!handle_) return *why;
      continue;
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock::now()).count();
    pollfd socket{PQsocket(handle_), static_cast<short>(unsent ? POLLIN | POLLOUT : POLLIN), 0};
    if (left <= 0 || ::poll(&socket, 1, static_cast<int>(left)) == 0)
      return broken(
          errc::timed_out,
          fmt::format("no answer within {} ms: the connection was given up", answer_timeout_ms));
    if (PQconsumeInput(handle_) == 0)
      return broken(errc::unavailable, first_line(PQerrorMessage(handle_)));
  }
  if (why) return *why;
  return last;
}

error postgres_connection::failed(const pg_result* rows) {
  const char* state = PQresultErrorField(rows, PG_DIAG_SQLSTATE);
  const char* text = PQresultErrorField(rows, PG_DIAG_MESSAGE_PRIMARY);
  if (!state || ends_session(state))
    return broken(errc::unavailable, first_line(text ? text : PQresultErrorMessage(rows)));
  return statement_failed(name_, state, text ? text : "", statement_timeout_ms);
}

error postgres_connection::broken(errc code, std::string_view what) {
  error why{code, fmt::format("{}: the connection broke: {}", name_, what), "store.url"};
  PQfinish(handle_);
  handle_ = nullptr;
  planned_.clear();
  return why;
}

}  // namespace tandem::store
