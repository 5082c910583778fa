#include "runtime/store/sql_store.hpp"

#include "runtime/store/folder.hpp"
#include "runtime/store/leadership.hpp"
#include "runtime/store/schema.hpp"
#include "runtime/store/sqlite_database.hpp"

#include <fmt/format.h>
#include <sys/random.h>

#include <array>
#include <chrono>

namespace tandem::store {
namespace {

namespace fs = std::filesystem;

constexpr const char* database_name = "tandem.sqlite";

}  // namespace

fs::path files_folder(const fs::path& folder) { return folder / "files"; }

std::int64_t unix_seconds() {
  using namespace std::chrono;
  return duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
}

std::string new_id(std::string_view prefix) {
  std::array<unsigned char, 12> random{};
  // As few bytes as these are never given in parts (getrandom(2)).
  auto got = ::getrandom(random.data(), random.size(), 0);
  ensure(got == static_cast<ssize_t>(random.size()), "the kernel gave no random bytes");
  std::string id(prefix);
  for (auto byte : random) id += fmt::format("{:02x}", byte);
  return id;
}

result<std::shared_ptr<store>> store::open(const fs::path& folder) {
  std::error_code code;
  fs::create_directories(files_folder(folder), code);
  if (code)
    return error{errc::io, fmt::format("{}: {}", files_folder(folder).string(), code.message()),
                 "store.url"};
  auto lock = folder_lock::take(folder);
  if (!lock) return lock.error();
  auto writer = sqlite_database::open(folder / database_name, sqlite_database::access::read_write);
  if (!writer) return writer.error();
  if (auto ready = prepare_schema(**writer); !ready) return ready.error();
  auto reader = sqlite_database::open(folder / database_name, sqlite_database::access::read_only);
  if (!reader) return reader.error();
  auto opened = std::make_shared<sql_store>(folder, std::make_shared<folder_lock>(std::move(*lock)),
                                            std::move(*writer), std::move(*reader));
  opened->tidy();
  return std::shared_ptr<store>(std::move(opened));
}

result<std::shared_ptr<store>> store::open_read_only(const fs::path& folder) {
  std::error_code code;
  if (!fs::exists(folder / database_name, code))
    return error{errc::not_found,
                 fmt::format("{} has no store: files and jobs are made by a running tandem",
                             folder.string()),
                 "store.url"};
  auto reader = sqlite_database::open(folder / database_name, sqlite_database::access::read_only);
  if (!reader) return reader.error();
  if (auto ready = check_schema(**reader); !ready) return ready.error();
  return std::shared_ptr<store>(
      std::make_shared<sql_store>(folder, nullptr, nullptr, std::move(*reader)));
}

sql_store::sql_store(fs::path folder, std::shared_ptr<const void> held,
                     std::unique_ptr<database> writer, std::unique_ptr<database> reader)
    : folder_(std::move(folder)),
      held_(std::move(held)),
      writer_(std::move(writer)),
      reader_(std::move(reader)) {}

void sql_store::tidy() {
  remove_strays(files_folder(folder_), [&](std::string_view name) {
    auto found = find_file(name);
    return found || found.error().code != errc::not_found;
  });
}

result<void> sql_store::writable() {
  auto tried = write(false, [](database&) { return result<void>(); });
  if (tried || tried.error().code == errc::conflict) return tried;
  // Without an answer nobody knows who leads: a session that is cut off ends at the server after
  // three seconds.
  if (tried.error().code == errc::unavailable || tried.error().code == errc::timed_out)
    return error{errc::unavailable, tried.error().detail, lead_unsure};
  return {};
}

fs::path sql_store::file_path(std::string_view id) const {
  ensure(!id.empty() && id.find('/') == id.npos && id.front() != '.', "a file id made by new_id");
  return files_folder(folder_) / id;
}

fs::path sql_store::part_path() const { return files_folder(folder_) / new_id("part-"); }

int sql_store::watch(std::function<void(const std::string& job)> listener) {
  std::scoped_lock guard(listening_);
  listeners_.emplace(next_listener_, std::move(listener));
  return next_listener_++;
}

void sql_store::unwatch(int number) {
  std::scoped_lock guard(listening_);
  listeners_.erase(number);
}

void sql_store::tell(std::string_view job) const {
  std::scoped_lock guard(listening_);
  std::string id(job);
  for (const auto& [number, listener] : listeners_) listener(id);
}

}  // namespace tandem::store
