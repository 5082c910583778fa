#include "runtime/shelf/listing.hpp"

#include "runtime/shelf/sha256.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>

namespace tandem::shelf {
namespace {

constexpr std::size_t name_bytes_max = 255;

bool is_sha256(std::string_view text) {
  return text.size() == sha256_hex_digits && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace

std::uint64_t listing::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& file : files) sum += file.bytes;
  return sum;
}

bool listing::is_hashed() const {
  return std::ranges::all_of(files, [](const auto& file) { return !file.sha256.empty(); });
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= name_bytes_max && name.front() != '.' &&
         name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}

bool is_wanted(std::string_view name, purpose what) {
  if (!is_plain_name(name)) return false;
  switch (what) {
    case purpose::model:
      return name.ends_with(".json") || name.ends_with(".safetensors") || name.ends_with(".jinja");
    case purpose::version:
      return name == "checkpoint.json" || name == "parameters.f32";
    case purpose::training:
      return name == "checkpoint.json" || name.ends_with(".f32");
  }
  return false;
}

result<void> check(const listing& what) {
  const auto bad = [&](const std::string& why) {
    return error{errc::bad_file, fmt::format("the listing of '{}' {}", what.name, why), ""};
  };
  if (!is_plain_name(what.name)) return bad("has no plain name");
  if (what.files.empty() || what.files.size() > listed_files_max)
    return bad(
        fmt::format("has {} files, 1 to {} are allowed", what.files.size(), listed_files_max));
  std::uint64_t left = std::numeric_limits<std::int64_t>::max();
  const std::string* before = nullptr;
  for (const auto& file : what.files) {
    if (!is_plain_name(file.name)) return bad(fmt::format("has a file '{}'", file.name));
    if (before != nullptr && file.name <= *before) return bad("is not in order");
    if (!file.sha256.empty() && !is_sha256(file.sha256)) return bad("has a SHA-256 that is none");
    if (file.bytes > left) return bad("has more bytes than there can be");
    left -= file.bytes;
    before = &file.name;
  }
  if (!what.is_folder && (what.files.size() != 1 || what.files.front().name != what.name))
    return bad("is one file and names another");
  return {};
}

std::string key_of(const listing& what) {
  sha256 digest;
  // Names hold no NUL, so no two listings give the same text.
  const auto add = [&](std::string_view text) {
    digest.add(text);
    digest.add(std::string_view("\0", 1));
  };
  add(what.name);
  add(what.is_folder ? "folder" : "file");
  for (const auto& file : what.files) {
    add(file.name);
    add(std::to_string(file.bytes));
    add(file.sha256);
  }
  return digest.finish();
}

std::string this_machines_name() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

std::filesystem::path path_of(const listing& what, std::size_t file,
                              const std::filesystem::path& copy) {
  return what.is_folder ? copy / what.files[file].name : copy;
}

likeness compare(const listing& there, const std::filesystem::path& here) {
  const auto machine = this_machines_name();
  bool is_same = !machine.empty() && machine == there.machine;
  for (std::size_t i = 0; i < there.files.size(); ++i) {
    const auto status = status_of(path_of(there, i, here));
    if (!status || status->bytes != there.files[i].bytes) return likeness::other;
    is_same = is_same && status->place == there.files[i].place;
  }
  return is_same ? likeness::same : likeness::same_sizes;
}

}  // namespace tandem::shelf
