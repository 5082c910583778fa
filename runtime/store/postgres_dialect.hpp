// The store's statements as PostgreSQL reads them: they are written once, as SQLite reads them.
#pragma once

#include <string>
#include <string_view>

namespace tandem::store {

// ?1, ?2, … become $1, $2, ….
std::string postgres_statement(std::string_view sql);
// Tables: whole numbers have 64 bits, rows number themselves, texts compare byte by byte.
std::string postgres_tables(std::string_view ddl);
// What PostgreSQL can hold: UTF-8 without zero bytes. Anything else becomes U+FFFD.
std::string postgres_text(std::string_view text);

}  // namespace tandem::store
