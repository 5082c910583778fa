#include "runtime/store/folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

namespace tandem::store {
namespace {

namespace fs = std::filesystem;

error refused(std::string_view doing, const fs::path& path, int code) {
  bool full = code == ENOSPC || code == EDQUOT;
  return {errc::io,
          fmt::format("{} {}: {}", doing, path.string(),
                      full ? "the disk is full: make room and try again" : std::strerror(code)),
          "store.url"};
}

result<void> sync(const fs::path& path, int flags) {
  int file = ::open(path.c_str(), flags | O_CLOEXEC);
  if (file < 0) return refused("opening", path, errno);
  int code = ::fsync(file) == 0 ? 0 : errno;
  ::close(file);
  if (code != 0) return refused("syncing", path, code);
  return {};
}

// From another disk: a copy beside `to` is what gets renamed.
result<void> copy_in_place(const fs::path& from, const fs::path& to) {
  auto part = to;
  part += ".part";
  std::error_code code;
  fs::copy_file(from, part, fs::copy_options::overwrite_existing, code);
  if (!code) {
    auto put = put_in_place(part, to);
    if (put) fs::remove(from, code);
    return put;
  }
  std::error_code ignored;
  fs::remove(part, ignored);
  return refused("copying to", to, code.value());
}

std::string holder_of(int file) {
  std::array<char, 32> text{};
  auto read = ::pread(file, text.data(), text.size() - 1, 0);
  std::string_view pid(text.data(), read > 0 ? static_cast<std::size_t>(read) : 0);
  return std::string(pid.substr(0, pid.find('\n')));
}

}  // namespace

result<folder_lock> folder_lock::take(const fs::path& folder) {
  auto path = folder / "lock";
  int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (file < 0) return refused("opening", path, errno);
  folder_lock lock(file);
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return refused("locking", path, errno);
    auto holder = holder_of(file);
    return error{errc::conflict,
                 fmt::format("{} is in use by another tandem{}: stop that one, or set another "
                             "TANDEM_HOME or store.url",
                             folder.string(), holder.empty() ? "" : " (process " + holder + ")"),
                 "store.url"};
  }
  // For people who look; the lock itself is the kernel's.
  auto text = fmt::format("{}\n", ::getpid());
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, text.data(), text.size(), 0) < 0)
    return refused("writing", path, errno);
  return lock;
}

folder_lock::~folder_lock() {
  if (file_ >= 0) ::close(file_);
}

result<void> put_in_place(const fs::path& from, const fs::path& to) {
  if (auto synced = sync(from, O_RDONLY); !synced) return synced;
  if (::rename(from.c_str(), to.c_str()) != 0) {
    if (errno == EXDEV) return copy_in_place(from, to);
    return refused("renaming to", to, errno);
  }
  return sync(to.parent_path(), O_RDONLY | O_DIRECTORY);
}

void remove_strays(const fs::path& folder, const std::function<bool(std::string_view)>& known) {
  std::error_code code;
  std::vector<fs::path> strays;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code))
    if (!known(at->path().filename().string())) strays.push_back(at->path());
  for (const auto& path : strays) fs::remove(path, code);  // if not, then at the next start
}

}  // namespace tandem::store
