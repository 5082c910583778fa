#include "kernels/cuda/nccl_communicator.hpp"

#include "kernels/ensure.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace tandem::kernels::cuda {
namespace {

using steady = std::chrono::steady_clock;

std::string words_of(const nccl_functions& call, ncclComm_t comm, ncclResult_t result) {
  std::string words = call.error_text(result);
  const char* const more = call.last_error(comm);
  if (more == nullptr || *more == '\0') return words;
  words += ": ";
  for (const char* c = more; *c != '\0'; ++c) words += *c == '\n' ? ' ' : *c;
  return words;
}

}  // namespace

void end_process(const std::string& why) {
  std::fprintf(stderr, "tandem: %s\n", why.c_str());
  std::fflush(stderr);
  std::abort();
}

std::unique_ptr<nccl_communicator> nccl_communicator::join(
    const nccl_functions& call, const nccl_id& id, int rank, int size, std::string& why_not,
    const nccl_patience& patience, std::function<void(const std::string&)> lost) {
  ensure(size > 0 && rank >= 0 && rank < size, "a rank of the group");
  ncclUniqueId told{};
  static_assert(sizeof told == sizeof id);
  std::memcpy(&told, id.data(), sizeof told);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  auto made = std::unique_ptr<nccl_communicator>(new nccl_communicator(call, rank, size));
  made->patience_ = patience;
  made->lost_ = std::move(lost);
  auto result = call.init_rank(&made->comm_, size, told, rank, &config);
  if (made->comm_ != nullptr) result = made->settled(result);
  if (result != ncclSuccess) {
    why_not = "NCCL: rank " + std::to_string(rank) + " of " + std::to_string(size) + " ";
    why_not += result == ncclInProgress
                   ? "waited " + std::to_string(patience.for_others.count() / 1000) +
                         " s for the others: look whether they run"
                   : "cannot join: " + words_of(call, made->comm_, result) +
                         " (NCCL_DEBUG=INFO says more)";
    made->broken_ = true;
    return nullptr;
  }
  made->watcher_ = std::thread([all = made.get()] { all->watch(); });
  return made;
}

nccl_communicator::~nccl_communicator() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  ending_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  if (comm_ == nullptr) return;
  if (!broken_ && settled(call_.finalize(comm_)) == ncclSuccess)
    call_.destroy(comm_);
  else
    call_.abort(comm_);
}

ncclResult_t nccl_communicator::state() const {
  ncclResult_t state = ncclSuccess;
  const auto asked = call_.async_error(comm_, &state);
  return asked == ncclSuccess ? state : asked;
}

ncclResult_t nccl_communicator::settled(ncclResult_t result) const {
  const auto until = steady::now() + patience_.for_others;
  while (result == ncclInProgress && steady::now() < until) {
    std::this_thread::yield();
    result = state();
  }
  return result;
}

void nccl_communicator::begin(const char* operation, std::int64_t rows, std::int64_t columns) {
  const std::lock_guard lock(mutex_);
  operation_ = operation;
  rows_ = rows;
  columns_ = columns;
}

void nccl_communicator::settle(ncclResult_t result) {
  result = settled(result);
  if (result != ncclSuccess) fail(result);
}

void nccl_communicator::fail(ncclResult_t result) {
  std::string words;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(broken_, true)) return;
    words = "NCCL: " + std::string(operation_) + " (" + std::to_string(rows_) + " x " +
            std::to_string(columns_) + ") of rank " + std::to_string(rank_) + " of " +
            std::to_string(size_) + ": " +
            (result == ncclInProgress ? "the others do not come" : words_of(call_, comm_, result));
  }
  lost_(words);
}

void nccl_communicator::watch() {
  std::unique_lock lock(mutex_);
  while (!ending_.wait_for(lock, patience_.between_looks, [this] { return ends_; })) {
    if (broken_) return;
    lock.unlock();
    const auto now = state();
    if (now != ncclSuccess && now != ncclInProgress) fail(now);
    lock.lock();
  }
}

}  // namespace tandem::kernels::cuda
