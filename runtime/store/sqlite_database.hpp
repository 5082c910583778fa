// SQLite as the store uses it: one connection, prepared statements kept by their text.
#pragma once

#include "runtime/store/database.hpp"

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

struct sqlite3;
struct sqlite3_stmt;

namespace tandem::store {

class sqlite_database final : public database {
 public:
  enum class access : std::uint8_t { read_write, read_only };
  // Read and write: looked through for damage while it is small.
  static result<std::unique_ptr<sqlite_database>> open(const std::filesystem::path& path,
                                                       access how);
  // Closes `handle` in the end; open() makes it.
  sqlite_database(std::filesystem::path path, sqlite3* handle)
      : path_(std::move(path)), handle_(handle) {}
  ~sqlite_database() override;

  query prepare(std::string_view sql) override;
  result<void> execute(const std::string& sql) override;
  std::string name() const override { return path_.string(); }
  result<std::int64_t> schema_version() override;
  result<void> migrate(std::string_view ddl, std::int64_t version) override;
  std::string json_pair(std::string_view column, std::size_t key, std::size_t value) const override;

 private:
  friend class sqlite_run;
  error failed(int code) const;
  result<std::int64_t> number(const char* sql);
  result<void> check_pages();
  result<void> begin(bool durable) override;
  result<void> commit() override;
  void roll_back() override;
  bool lost() const override { return false; }

  std::filesystem::path path_;
  sqlite3* handle_;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

}  // namespace tandem::store
