#include "runtime/shelf/cache.hpp"

#include "runtime/durable_folder.hpp"
#include "runtime/log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace tandem::shelf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view lock_suffix = ".lock";
constexpr std::string_view on_the_disk = "on the disk";
constexpr std::uint64_t synced_at_once = std::uint64_t{32} << 20;
// A disk that is full to the last byte harms whoever else writes there.
constexpr std::uint64_t left_free = std::uint64_t{64} << 20;

fs::path lock_of(const fs::path& folder) { return folder.string() + std::string(lock_suffix); }
fs::path part_of(const fs::path& folder) { return folder.string() + std::string(part_suffix); }

std::uint64_t bytes_under(const fs::path& folder) {
  std::uint64_t sum = 0;
  std::error_code failed;
  for (fs::recursive_directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    std::error_code gone;
    if (const auto bytes = at->file_size(gone); !gone) sum += bytes;
  }
  return sum;
}

struct kept_entry {
  std::string key;
  std::uint64_t bytes = 0;
  fs::file_time_type used;
};

// By their locks, which outlive what they lock; the oldest use first.
std::vector<kept_entry> entries_in(const fs::path& root) {
  std::vector<kept_entry> entries;
  std::error_code failed;
  for (fs::directory_iterator at(root, failed), end; !failed && at != end; at.increment(failed)) {
    auto name = at->path().filename().string();
    if (!name.ends_with(lock_suffix)) continue;
    name.resize(name.size() - lock_suffix.size());
    std::error_code gone;
    const auto used = at->last_write_time(gone);
    if (gone) continue;
    const auto bytes = bytes_under(root / name) + bytes_under(part_of(root / name));
    entries.push_back({std::move(name), bytes, used});
  }
  std::ranges::sort(entries, {}, &kept_entry::used);
  return entries;
}

// False: somebody holds it.
bool throw_away(const fs::path& folder) {
  const auto lock = lock_file::take(lock_of(folder), lock_file::kind::alone);
  if (!lock || !*lock) return false;
  std::error_code failed;
  fs::remove_all(part_of(folder), failed);
  if (failed) return false;
  // First under a name that nobody reads: half an entry is none.
  fs::rename(folder, part_of(folder), failed);
  fs::remove_all(part_of(folder), failed);
  if (failed) return false;
  fs::remove(lock_of(folder), failed);
  return !failed;
}

std::string mark_of(const fs::path& folder) {
  std::ifstream file(lock_of(folder));
  std::string mark;
  std::getline(file, mark);
  return mark;
}

// One stretch of a file to the disk, or all that is left of it; true: that was the last.
result<bool> sync_stretch(const fs::path& path, std::uint64_t offset) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  const auto size =
      static_cast<std::uint64_t>(std::max<off_t>(::lseek(descriptor, 0, SEEK_END), 0));
  const bool is_last = offset + synced_at_once >= size;
  const bool done =
      descriptor >= 0 &&
      (is_last ? ::fsync(descriptor)
               : ::sync_file_range(descriptor, static_cast<off64_t>(offset),
                                   static_cast<off64_t>(synced_at_once),
                                   SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                       SYNC_FILE_RANGE_WAIT_AFTER)) == 0;
  const int cause = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (done) return is_last;
  return error{errc::io, fmt::format("syncing {}: {}", path.string(), std::strerror(cause)), ""};
}

double megabytes(std::uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

}  // namespace

bool cache::is_whole(const listing& what, const std::string& key) const {
  const auto mark = mark_of(folder_of(key));
  if (mark.empty() || (mark != on_the_disk && mark != this_machines_name())) return false;
  return compare(what, folder_of(key) / what.name) != likeness::other;
}

result<std::optional<held_path>> cache::find(const listing& what) const {
  const auto key = key_of(what);
  if (!is_whole(what, key)) return std::optional<held_path>();
  auto lock = lock_file::take(lock_of(folder_of(key)), lock_file::kind::shared);
  if (!lock) return lock.error();
  // It may have been thrown away before it was held.
  if (!*lock || !is_whole(what, key)) return std::optional<held_path>();
  (*lock)->touch();
  return std::optional(
      held_path{folder_of(key) / what.name, std::make_shared<const lock_file>(**std::move(lock))});
}

result<std::optional<incoming>> cache::begin(const listing& what) const {
  std::error_code failed;
  fs::create_directories(root_, failed);
  if (failed) return error{errc::io, fmt::format("{}: {}", root_.string(), failed.message()), ""};
  const auto key = key_of(what);
  auto lock = lock_file::take(lock_of(folder_of(key)), lock_file::kind::alone);
  if (!lock) return lock.error();
  if (!*lock || is_whole(what, key)) return std::optional<incoming>();
  const auto part = part_of(folder_of(key));
  if (!mark_of(folder_of(key)).empty())
    if (auto cleared = (*lock)->write_to_disk(""); !cleared) return cleared.error();
  // One that cannot be trusted is looked at as what is left of a try.
  fs::rename(folder_of(key), part, failed);
  fs::remove_all(folder_of(key), failed);
  const auto there = std::min(bytes_under(part), what.bytes());
  if (auto room = make_room(key, what.bytes() - there); !room) return room.error();
  fs::create_directories(what.is_folder ? part / what.name : part, failed);
  if (failed) return error{errc::io, fmt::format("{}: {}", part.string(), failed.message()), ""};
  return std::optional(incoming(what, folder_of(key), **std::move(lock)));
}

result<void> cache::finish(incoming& what) const {
  auto lock = what.finish();
  if (!lock) return lock.error();
  return lock->write(this_machines_name());
}

result<bool> disk_sync::advance() {
  if (file_ < what_.files.size()) {
    const auto last = sync_stretch(path_of(what_, file_, where_.path), offset_);
    if (!last) return last.error();
    offset_ += synced_at_once;
    if (*last) {
      ++file_;
      offset_ = 0;
    }
    return false;
  }
  if (what_.is_folder)
    if (auto synced = sync_folder(where_.path); !synced) return synced.error();
  const auto folder = where_.path.parent_path();
  for (const auto& one : {folder, folder.parent_path()})
    if (auto synced = sync_folder(one); !synced) return synced.error();
  if (auto marked = where_.hold->write_to_disk(on_the_disk); !marked) return marked.error();
  return true;
}

result<void> cache::make_room(const std::string& key, std::uint64_t bytes_needed) const {
  auto entries = entries_in(root_);
  std::uint64_t kept = 0;
  for (const auto& entry : entries) kept += entry.bytes;
  const auto own = bytes_under(part_of(folder_of(key)));
  if (own + bytes_needed > bytes_max_)
    return error{errc::no_memory,
                 fmt::format("{:.0f} MB are to be fetched, and {} may hold {:.0f} MB: raise "
                             "cluster.cache_bytes on this node",
                             megabytes(own + bytes_needed), root_.string(), megabytes(bytes_max_)),
                 "cluster.cache_bytes"};
  const auto fits = [&] {
    return kept + bytes_needed <= bytes_max_ && free_bytes(root_) >= bytes_needed + left_free;
  };
  for (const auto& entry : entries) {
    if (fits()) return {};
    if (entry.key == key || !throw_away(folder_of(entry.key))) continue;
    kept -= entry.bytes;
    log_info("{} of {:.0f} MB was used longest ago and is thrown away", entry.key,
             megabytes(entry.bytes));
  }
  if (fits()) return {};
  return error{errc::io,
               fmt::format("{:.0f} MB are to be fetched into {}: {:.0f} MB are free there, and "
                           "{:.0f} of the {:.0f} MB that it may hold are in use: make room, or "
                           "raise cluster.cache_bytes",
                           megabytes(bytes_needed), root_.string(), megabytes(free_bytes(root_)),
                           megabytes(kept), megabytes(bytes_max_)),
               "cluster.cache_bytes"};
}

}  // namespace tandem::shelf
