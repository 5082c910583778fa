// Where the coordinator's book survives it. A lease is written before anybody hears of it.
#pragma once

#include "runtime/lease/lease_book.hpp"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace tandem::lease {

class lease_store {
 public:
  struct saved {
    std::vector<lease> leases;
    epoch newest = 0;
    std::vector<std::pair<std::string, role>> pins;  // by device
  };
  virtual ~lease_store() = default;
  virtual result<saved> load() const = 0;
  virtual result<void> save(const lease& now) = 0;
  virtual result<void> forget(std::string_view device, epoch newest) = 0;
  virtual result<void> pin(std::string_view device, std::optional<role> as) = 0;
};

}  // namespace tandem::lease
