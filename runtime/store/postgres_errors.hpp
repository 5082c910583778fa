// What PostgreSQL and libpq say, as one line that says what to do. Nothing of an address but its
// name gets in.
#pragma once

#include "runtime/result.hpp"

#include <string>
#include <string_view>

namespace tandem::store {

error bad_postgres_url();
error read_only_server(std::string_view name);
// libpq gives no code for a connection that failed: `text` is what it said.
error no_connection(std::string_view name, std::string_view database, std::string_view user,
                    std::string_view text);
// A statement that failed with this SQLSTATE (PostgreSQL 15 manual, appendix A).
error statement_failed(std::string_view name, std::string_view sqlstate, std::string_view text,
                       int timeout_ms);
// The session is over: the server ends it, or the connection broke.
bool ends_session(std::string_view sqlstate);
std::string first_line(std::string_view text);

}  // namespace tandem::store
