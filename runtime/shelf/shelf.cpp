#include "runtime/shelf/shelf.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace tandem::shelf {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t path_bytes_max = 4096;
constexpr std::size_t held_open_max = 8;

error refuse(const std::string& path, const std::string& why) {
  return {errc::forbidden, fmt::format("'{}' is not given to other nodes: {}", path, why), "path"};
}

fs::path normal(const fs::path& path) {
  std::error_code failed;
  auto made = fs::absolute(path, failed).lexically_normal();
  return made.has_filename() ? made : made.parent_path();
}

result<fs::path> resolved(const fs::path& path) {
  std::error_code failed;
  auto made = fs::canonical(path, failed);
  if (failed)
    return error{errc::not_found, fmt::format("{}: {}", path.string(), failed.message()), "path"};
  return made;
}

bool climbs(const fs::path& path) {
  return std::any_of(path.begin(), path.end(), [](const auto& part) { return part == ".."; });
}

// JOB/checkpoints/step-N
bool names_checkpoint(const fs::path& below_jobs) {
  std::vector<std::string> parts;
  for (const auto& part : below_jobs) parts.push_back(part.string());
  return parts.size() == 3 && is_plain_name(parts[0]) && parts[1] == "checkpoints" &&
         is_plain_name(parts[2]) && parts[2].starts_with("step-");
}

// A wanted file of a folder, or why it cannot be given.
result<listed_file> look_at(const fs::path& folder, const std::string& name) {
  const auto there = resolved(folder / name);
  if (!there) return there.error();
  if (there->parent_path() != folder)
    return refuse((folder / name).string(),
                  fmt::format("it is a link out of its folder, to {}: put the file itself there",
                              there->string()));
  const auto status = status_of(*there);
  if (!status) return status.error();
  return listed_file{name, status->bytes, "", status->place};
}

result<std::vector<listed_file>> files_in(const fs::path& folder, purpose what) {
  std::vector<listed_file> files;
  std::error_code failed;
  for (fs::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed)) {
    const auto name = at->path().filename().string();
    if (!is_wanted(name, what)) continue;
    if (files.size() == listed_files_max)
      return error{
          errc::too_large,
          fmt::format("{} has more than {} files of a model", folder.string(), listed_files_max),
          "path"};
    auto file = look_at(folder, name);
    if (!file) return file.error();
    files.push_back(*std::move(file));
  }
  if (failed)
    return error{errc::io, fmt::format("{}: {}", folder.string(), failed.message()), "path"};
  if (files.empty())
    return error{errc::not_found, folder.string() + " has no file of a model", "path"};
  std::ranges::sort(files, {}, &listed_file::name);
  return files;
}

}  // namespace

result<fs::path> place_on_shelf(const shelf_roots& roots, const std::string& path, purpose what) {
  if (path.empty() || path.size() > path_bytes_max || path.find('\0') != path.npos)
    return refuse(path.substr(0, 64), "that is no path");
  if (climbs(path)) return refuse(path, "a path with '..'");
  const auto wanted = normal(path);
  if (what == purpose::model) {
    if (wanted == normal(roots.model)) return resolved(wanted);
    return refuse(path, fmt::format("the model that is served is {}", roots.model.string()));
  }
  const auto jobs = normal(roots.jobs);
  const auto below = wanted.lexically_relative(jobs);
  if (!names_checkpoint(below))
    return refuse(path, fmt::format("no checkpoint of a job under {}", jobs.string()));
  auto there = resolved(wanted);
  if (!there) return there;
  const auto root = resolved(jobs);
  if (!root) return root;
  if (*there != *root / below) return refuse(path, "it leads over a link to " + there->string());
  return there;
}

known_hashes::key known_hashes::key_of(const listed_file& file) {
  return {file.place.device, file.place.inode, file.place.changed_ns, file.bytes};
}

const std::string* known_hashes::find(const listed_file& file) const {
  const auto found = hashes_.find(key_of(file));
  return found == hashes_.end() ? nullptr : &found->second;
}

void known_hashes::add(const listed_file& file) {
  if (hashes_.size() >= kept_max) hashes_.clear();
  hashes_[key_of(file)] = file.sha256;
}

result<shelf_entry> shelf_entry::open(const shelf_roots& roots, const std::string& path,
                                      purpose what) {
  auto place = place_on_shelf(roots, path, what);
  if (!place) return place.error();
  shelf_entry entry;
  entry.place_ = *std::move(place);
  auto& facts = entry.facts_;
  facts.machine = this_machines_name();
  facts.name = normal(path).filename().string();
  std::error_code failed;
  facts.is_folder = fs::is_directory(entry.place_, failed);
  if (facts.is_folder) {
    auto files = files_in(entry.place_, what);
    if (!files) return files.error();
    facts.files = *std::move(files);
  } else {
    const auto status = status_of(entry.place_);
    if (!status) return status.error();
    facts.files = {{facts.name, status->bytes, "", status->place}};
  }
  if (facts.files.size() > held_open_max) return entry;
  for (std::size_t i = 0; i < facts.files.size(); ++i) {
    auto file = entry.open_listed(i);
    if (!file) return file.error();
    entry.held_.push_back(*std::move(file));
  }
  return entry;
}

result<open_file> shelf_entry::open_listed(std::size_t file) const {
  const auto& wanted = facts_.files[file];
  const auto path = resolved(path_of(facts_, file, place_));
  if (!path) return path.error();
  auto opened = open_file::open(*path);
  if (!opened) return opened;
  if (opened->place() != wanted.place || opened->bytes() != wanted.bytes)
    return error{errc::conflict, path->string() + " has changed since it was listed", "path"};
  return opened;
}

bool shelf_entry::is_current() const {
  for (std::size_t i = 0; i < facts_.files.size(); ++i) {
    const auto status = status_of(path_of(facts_, i, place_));
    const auto& listed = facts_.files[i];
    if (!status || status->place != listed.place || status->bytes != listed.bytes) return false;
  }
  return true;
}

result<bool> shelf_entry::hash_some(known_hashes& known) {
  auto& files = facts_.files;
  if (!hashing_) {
    for (auto& file : files)
      if (const auto* hash = known.find(file)) file.sha256 = *hash;
    const auto next = std::ranges::find(files, std::string(), &listed_file::sha256);
    if (next == files.end()) return true;
    const auto index = static_cast<std::size_t>(next - files.begin());
    auto opened = open_listed(index);
    if (!opened) return opened.error();
    hashing_.emplace(hashing{index, {*std::move(opened), next->bytes}});
  }
  const auto done = hashing_->hasher.advance();
  if (!done) return done.error();
  if (!*done) return false;
  auto& file = files[hashing_->file];
  file.sha256 = hashing_->hasher.take_digest().finish();
  known.add(file);
  hashing_.reset();
  return facts_.is_hashed();
}

result<void> shelf_entry::read(std::size_t file, std::uint64_t offset,
                               std::span<std::byte> into) const {
  if (file >= facts_.files.size() || offset > facts_.files[file].bytes ||
      into.size() > facts_.files[file].bytes - offset)
    return error{errc::bad_request,
                 fmt::format("{} bytes at {} of file {} of '{}': that lies beyond its end",
                             into.size(), offset, file, facts_.name),
                 "offset"};
  if (!held_.empty()) return held_[file].read(offset, into);
  const auto opened = open_listed(file);
  if (!opened) return opened.error();
  return opened->read(offset, into);
}

}  // namespace tandem::shelf
