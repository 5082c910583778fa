// The book of weights versions that one base serves beside itself: which names mean which, who has
// it in memory, who runs on it. Pure state, held by the serve coordinator. A version leaves the
// book once no name means it, no request runs on it, and it is not being published; ids are never
// given twice.
#pragma once

#include "runtime/model/adapter.hpp"
#include "runtime/serve/request.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace tandem::serve {

class version_book {
 public:
  struct entry {
    variant_id id = 0;
    std::uint64_t version = 0;
    std::string job;
    std::string kind;               // "lora" | "full"
    std::int64_t published_at = 0;  // Unix seconds
    // How a device that lost it (or is new) gets it; with neither, it never does.
    std::shared_ptr<const model::adapter> adapter;
    std::string checkpoint;
    std::set<std::string> devices;  // that have it in memory
    int requests = 0;               // that run on it

    bool can_return() const { return adapter != nullptr || !checkpoint.empty(); }
  };

  // A version on its way to the devices: nobody can ask for it yet.
  variant_id add(entry version);
  // From now on these names mean this version, unless a newer one took a name meanwhile.
  void publish(variant_id id, const std::vector<std::string>& names);
  // Its publication failed.
  void give_up(variant_id id);
  void withdraw(const std::vector<std::string>& names);

  const entry* find(variant_id id) const;
  std::optional<variant_id> named(const std::string& name) const;
  const std::map<std::string, variant_id>& names() const { return names_; }
  const std::map<variant_id, entry>& entries() const { return entries_; }

  void arrived(variant_id id, const std::string& device);
  void device_lost(const std::string& device);
  void request_began(variant_id id);  // 0, the base, counts nothing
  void request_ended(variant_id id);

  // Versions that nobody can ask for or runs on any more: they leave the book.
  std::vector<entry> take_idle();

 private:
  std::map<variant_id, entry> entries_;
  std::map<std::string, variant_id> names_;
  std::set<variant_id> publishing_;
  variant_id newest_ = 0;
  bool may_have_idle_ = false;
};

}  // namespace tandem::serve
