#include "runtime/model/hub_part.hpp"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

namespace tandem::model {
namespace {

namespace fs = std::filesystem;

std::string reason(int code) {
  if (code == ENOSPC || code == EDQUOT) return "the disk is full: make room and pull again";
  return std::strerror(code);
}

result<std::string> digest_of(const fs::path& path, const EVP_MD* kind, std::string_view prefix) {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                  EVP_MD_CTX_free);
  ensure(context != nullptr && EVP_DigestInit_ex(context.get(), kind, nullptr) == 1,
         "no digest context");
  EVP_DigestUpdate(context.get(), prefix.data(), prefix.size());
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer(std::size_t{1} << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0)
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<std::size_t>(file.gcount()));
  if (!file.eof()) return error{errc::io, path.string() + " cannot be read", {}};
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  EVP_DigestFinal_ex(context.get(), digest.data(), &size);
  constexpr char hex[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += {hex[digest[i] >> 4], hex[digest[i] & 15]};
  return text;
}

error mismatch(const hub_file& expected, const char* what, const std::string& is,
               const std::string& wanted) {
  return {errc::bad_file,
          expected.name + " has " + what + " " + is + ", the hub says " + wanted +
              ": what was fetched is removed, pull again",
          {}};
}

}  // namespace

result<void> check_file(const fs::path& path, const hub_file& expected) {
  std::error_code code;
  auto bytes = fs::file_size(path, code);
  if (code) return error{errc::io, path.string() + ": " + code.message(), {}};
  if (expected.bytes && bytes != *expected.bytes)
    return mismatch(expected, "size", std::to_string(bytes), std::to_string(*expected.bytes));
  if (!expected.sha256.empty()) {
    auto digest = digest_of(path, EVP_sha256(), {});
    if (!digest) return digest.error();
    if (*digest != expected.sha256) return mismatch(expected, "sha256", *digest, expected.sha256);
  } else if (!expected.git_blob.empty()) {
    std::string head = "blob " + std::to_string(bytes) + '\0';
    auto digest = digest_of(path, EVP_sha1(), head);
    if (!digest) return digest.error();
    if (*digest != expected.git_blob)
      return mismatch(expected, "git blob", *digest, expected.git_blob);
  }
  return {};
}

error hub_part::failed(const std::string& doing) const {
  return {errc::io, doing + " " + part_path().string() + ": " + reason(errno), {}};
}

result<hub_part> hub_part::open(const fs::path& path) {
  std::error_code code;
  fs::create_directories(path.parent_path(), code);
  if (code) return error{errc::io, path.parent_path().string() + ": " + code.message(), {}};
  hub_part part(path);
  part.file_ = ::open(part.part_path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (part.file_ < 0) return part.failed("opening");
  if (::flock(part.file_, LOCK_EX | LOCK_NB) != 0)
    return error{errc::conflict, path.string() + " is being fetched by another pull", {}};
  struct stat status {};
  if (::fstat(part.file_, &status) != 0) return part.failed("looking at");
  part.bytes_ = static_cast<std::uint64_t>(status.st_size);
  if (::lseek(part.file_, 0, SEEK_END) < 0) return part.failed("seeking in");
  std::ifstream tag(part.etag_path());
  std::getline(tag, part.etag_);
  return part;
}

hub_part::hub_part(hub_part&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      bytes_(other.bytes_),
      etag_(std::move(other.etag_)) {}

hub_part::~hub_part() {
  if (file_ >= 0) ::close(file_);
}

result<void> hub_part::append(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return failed("writing");
    bytes.remove_prefix(static_cast<std::size_t>(written));
    bytes_ += static_cast<std::uint64_t>(written);
  }
  return {};
}

result<void> hub_part::restart(const std::string& etag) {
  if (::ftruncate(file_, 0) != 0 || ::lseek(file_, 0, SEEK_SET) < 0) return failed("emptying");
  bytes_ = 0;
  etag_ = etag;
  std::ofstream tag(etag_path(), std::ios::trunc);
  tag << etag << '\n';
  return {};
}

void hub_part::discard() {
  std::error_code ignored;  // what cannot be removed is found wrong again by the next pull
  fs::remove(part_path(), ignored);
  fs::remove(etag_path(), ignored);
  if (file_ >= 0) ::close(std::exchange(file_, -1));
}

result<void> hub_part::finish(const hub_file& expected) {
  if (auto good = check_file(part_path(), expected); !good) return good;
  if (::fsync(file_) != 0) return failed("writing");
  std::error_code code;
  fs::rename(part_path(), path_, code);
  if (code) return error{errc::io, path_.string() + ": " + code.message(), {}};
  fs::remove(etag_path(), code);
  int folder = ::open(path_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);  // the name itself survives a power cut
    ::close(folder);
  }
  return {};
}

}  // namespace tandem::model
