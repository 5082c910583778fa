// Addresses of PostgreSQL databases, as settings hold them: what people may see of one.
#pragma once

#include <string>
#include <string_view>

namespace tandem {

// "postgresql://…" or "postgres://…", the two that libpq knows.
bool names_postgres(std::string_view url);

// The same with "***" for what is secret: the password before the @, and the values of password and
// sslpassword. Any text goes in, also one that is no address.
std::string without_password(std::string_view url);

}  // namespace tandem
