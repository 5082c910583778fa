// The store in PostgreSQL: rows there, and the bytes of uploaded files in a folder here, which
// heads that are to follow each other share.
#pragma once

#include "runtime/store/leader_seat.hpp"
#include "runtime/store/store.hpp"

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace tandem::store {

struct postgres_store_options {
  std::string url;
  std::filesystem::path folder;  // files lie in a folder of this one, named by the database
  std::shared_ptr<leader_seat> seat;
  std::function<void(const error&)> lost;  // a write was refused: another head leads
};

// For the head that leads; the store keeps the seat.
result<std::shared_ptr<store>> open_postgres_store(const postgres_store_options& how);

}  // namespace tandem::store
