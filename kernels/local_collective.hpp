// The ranks of one process meet: each on its own thread, its parts read by the others where they
// lie. A meeting costs two barriers of a microsecond or so; what moves is each rank's (k-1)/k of
// the result. Numbers are read from another device's memory by backend::copy_rows, so devices are
// all of one kind: cores, or GPUs of this process.
#pragma once

#include "kernels/collective.hpp"

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

namespace tandem::kernels {

// Thrown in a rank that waits for one that is lost.
struct rank_lost final : std::exception {
  const char* what() const noexcept override { return "another rank of this model is lost"; }
};

class local_group {
 public:
  // devices[r] is rank r's and must outlive the group; r is to be called from its thread alone.
  explicit local_group(std::vector<backend*> devices);
  ~local_group();
  local_group(const local_group&) = delete;
  local_group& operator=(const local_group&) = delete;

  collective& of(int rank);
  // A rank will not come any more: every wait, now and later, ends with rank_lost.
  void give_up();

 private:
  class member;

  void meet();

  std::vector<backend*> devices_;
  std::vector<std::unique_ptr<member>> members_;
  std::vector<rows_out> offered_;  // by each rank, between two barriers
  std::atomic<bool> lost_{false};
  // On lines of their own: all ranks spin on one while the last to come writes both.
  alignas(128) std::atomic<std::uint32_t> arrived_{0};
  alignas(128) std::atomic<std::uint32_t> phase_{0};
};

}  // namespace tandem::kernels
