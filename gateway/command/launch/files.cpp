#include "gateway/command/launch/files.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tandem::gateway::command {
namespace {

constexpr std::size_t record_bytes_max = 4 << 20;
constexpr int lock_tries_max = 10;
constexpr int lock_pause_ms = 20;

error cannot(std::string_view what, const std::filesystem::path& path, int why) {
  return {errc::io, fmt::format("cannot {} {}: {}", what, path.string(), std::strerror(why)), {}};
}

std::optional<std::string> whole(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

result<void> write_new(const std::filesystem::path& path, std::string_view contents) {
  const int file = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (file < 0) return cannot("write", path, errno);
  const auto count = ::write(file, contents.data(), contents.size());
  const int fault = errno;
  ::close(file);
  if (count != static_cast<ssize_t>(contents.size())) return cannot("write", path, fault);
  return {};
}

}  // namespace

launch_files::~launch_files() { unlock(); }

result<void> launch_files::make_folder() const {
  std::error_code failed;
  std::filesystem::create_directories(folder_, failed);
  if (failed) return cannot("make", folder_, failed.value());
  ::chmod(folder_.c_str(), 0700);
  return {};
}

result<void> launch_files::lock() {
  if (auto made = make_folder(); !made) return made;
  const auto path = folder_ / "lock";
  lock_ = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (lock_ < 0) return cannot("open", path, errno);
  // Whoever only looks whether somebody is there holds it for an instant.
  for (int tries = 0; tries < lock_tries_max; ++tries) {
    if (::flock(lock_, LOCK_EX | LOCK_NB) == 0) {
      const auto who = fmt::format("{}\n", ::getpid());  // for people
      if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, who.data(), who.size(), 0) < 0)
        return cannot("write", path, errno);
      return {};
    }
    ::poll(nullptr, 0, lock_pause_ms);
  }
  unlock();
  return error{errc::conflict,
               fmt::format("a cluster is launched from {} already: `tandem scale N` changes it, "
                           "`tandem scale 0` ends it",
                           folder_.string()),
               {}};
}

bool launch_files::has_launcher() const {
  const int file = ::open((folder_ / "lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool is_held = ::flock(file, LOCK_SH | LOCK_NB) != 0;
  ::close(file);
  return is_held;
}

void launch_files::unlock() {
  if (lock_ >= 0) ::close(std::exchange(lock_, -1));
}

result<std::optional<launch_record>> launch_files::read() const {
  const auto path = folder_ / "cluster.json";
  std::error_code failed;
  if (const auto size = std::filesystem::file_size(path, failed);
      failed || size > record_bytes_max) {
    if (failed) return std::optional<launch_record>();
    return error{
        errc::bad_file, fmt::format("{} has {} bytes: remove it", path.string(), size), {}};
  }
  const auto text = whole(path);
  if (!text) return cannot("read", path, errno);
  auto record = record_from(*text);
  if (!record)
    return error{errc::bad_file,
                 fmt::format("{} is no record of a cluster ({}): end what runs by hand and remove "
                             "it",
                             path.string(), record.error().detail),
                 {}};
  return std::optional<launch_record>(*std::move(record));
}

result<void> launch_files::write(const launch_record& record) const {
  return replace("cluster.json", to_json(record) + "\n");
}

// Another reader sees the old contents or the new ones.
result<void> launch_files::replace(const std::string& name, std::string_view contents) const {
  const auto path = folder_ / name;
  const auto next = folder_ / fmt::format("{}.{}", name, ::getpid());
  if (auto written = write_new(next, contents); !written) return written;
  std::error_code failed;
  std::filesystem::rename(next, path, failed);
  if (failed) return cannot("write", path, failed.value());
  return {};
}

std::vector<std::string> launch_files::running(const launch_record& record) const {
  std::vector<std::string> names;
  for (std::size_t n = 0; n < record.nodes.size(); ++n) {
    const auto& name = record.plan.nodes[n].name;
    if (node_process::find(record.nodes[n].process, log_of(name))) names.push_back(name);
  }
  return names;
}

std::optional<launch_wish> launch_files::wish() const {
  const auto text = whole(folder_ / "wanted");
  if (!text || text->find('\n') == std::string::npos) return std::nullopt;
  launch_wish wish;
  const auto* end = text->data() + text->size();
  const auto read = std::from_chars(text->data(), end, wish.count);
  if (read.ec != std::errc{} || wish.count < 0 || *read.ptr != ' ') return std::nullopt;
  wish.order = std::string(read.ptr + 1, end - 1);
  return wish;
}

result<std::string> launch_files::want(int count) const {
  std::random_device random;
  const auto order = fmt::format("{:08x}{:08x}", random(), random());
  if (auto written = replace("wanted", fmt::format("{} {}\n", count, order)); !written)
    return written.error();
  return order;
}

result<void> make_secret(const std::filesystem::path& path) {
  std::error_code failed;
  if (std::filesystem::exists(path, failed)) return {};
  std::filesystem::create_directories(path.parent_path(), failed);
  std::random_device random;
  std::string secret;
  while (secret.size() < 64) secret += fmt::format("{:08x}", random());
  secret += '\n';
  // Linked into its place when it is whole; whoever came first stays.
  const std::filesystem::path next = fmt::format("{}.{}", path.string(), ::getpid());
  if (auto written = write_new(next, secret); !written) return written;
  const bool linked = ::link(next.c_str(), path.c_str()) == 0 || errno == EEXIST;
  const int fault = errno;
  ::unlink(next.c_str());
  if (!linked) return cannot("write", path, fault);
  return {};
}

}  // namespace tandem::gateway::command
