#include "runtime/serve/version_book.hpp"

#include "kernels/ensure.hpp"

#include <utility>

namespace tandem::serve {

variant_id version_book::add(entry version) {
  const auto id = ++newest_;
  version.id = id;
  entries_.emplace(id, std::move(version));
  publishing_.insert(id);
  return id;
}

void version_book::publish(variant_id id, const std::vector<std::string>& names) {
  ensure(publishing_.erase(id) == 1, "a version is published once");
  for (const auto& name : names) {
    auto& means = names_[name];
    if (means < id) means = id;
  }
  may_have_idle_ = true;
}

void version_book::give_up(variant_id id) {
  publishing_.erase(id);
  may_have_idle_ = true;
}

void version_book::withdraw(const std::vector<std::string>& names) {
  for (const auto& name : names) names_.erase(name);
  may_have_idle_ = true;
}

const version_book::entry* version_book::find(variant_id id) const {
  const auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : &it->second;
}

std::optional<variant_id> version_book::named(const std::string& name) const {
  const auto it = names_.find(name);
  if (it == names_.end()) return std::nullopt;
  return it->second;
}

void version_book::arrived(variant_id id, const std::string& device) {
  entries_.at(id).devices.insert(device);
}

void version_book::device_lost(const std::string& device) {
  for (auto& [id, version] : entries_) version.devices.erase(device);
}

void version_book::request_began(variant_id id) {
  if (id != 0) ++entries_.at(id).requests;
}

void version_book::request_ended(variant_id id) {
  if (id == 0) return;
  auto& version = entries_.at(id);
  ensure(version.requests > 0, "more requests of a version ended than began");
  if (--version.requests == 0) may_have_idle_ = true;
}

std::vector<version_book::entry> version_book::take_idle() {
  std::vector<entry> idle;
  if (!std::exchange(may_have_idle_, false)) return idle;
  std::set<variant_id> wanted = publishing_;
  for (const auto& [name, id] : names_) wanted.insert(id);
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second.requests > 0 || wanted.contains(it->first)) {
      ++it;
      continue;
    }
    idle.push_back(std::move(it->second));
    it = entries_.erase(it);
  }
  return idle;
}

}  // namespace tandem::serve
