#include "tests/nccl/fake/fake_nccl.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

namespace {

fake_nccl here;

// Where the ranks of one id come together.
struct meeting {
  std::condition_variable changed;
  int size = 0;
  int arrived = 0;
  int round = 0;
  std::vector<const float*> sent;
};

std::map<std::string, std::shared_ptr<meeting>> meetings;
int ids = 0;

struct move {
  int root;  // -1: from all to all
  const float* from;
  float* to;
  std::size_t count;
};

}  // namespace

struct ncclComm {
  int rank = 0;
  int size = 1;
  std::shared_ptr<meeting> with;
  int busy = 0;
};

namespace {

thread_local int depth = 0;
thread_local std::vector<move> queued;
thread_local ncclComm* queued_for = nullptr;

bool meet(std::unique_lock<std::mutex>& lock, meeting& at) {
  const int round = at.round;
  if (++at.arrived == at.size) {
    at.arrived = 0;
    ++at.round;
    at.changed.notify_all();
    return true;
  }
  return at.changed.wait_for(lock, std::chrono::seconds(20), [&] { return at.round != round; });
}

ncclResult_t run(ncclComm& comm, const move& what) {
  std::unique_lock lock(here.mutex);
  auto& at = *comm.with;
  at.sent.resize(static_cast<std::size_t>(comm.size));
  at.sent[static_cast<std::size_t>(comm.rank)] = what.from;
  if (!meet(lock, at)) return ncclSystemError;
  for (int r = 0; r < comm.size; ++r) {
    if (what.root >= 0 && r != what.root) continue;
    float* const to = what.root >= 0 ? what.to : what.to + static_cast<std::size_t>(r) * what.count;
    std::memmove(to, at.sent[static_cast<std::size_t>(r)], what.count * sizeof(float));
  }
  return meet(lock, at) ? ncclSuccess : ncclSystemError;
}

ncclResult_t end(ncclComm& comm) {
  for (const auto& what : std::exchange(queued, {}))
    if (const auto result = run(comm, what); result != ncclSuccess) return result;
  const std::lock_guard lock(here.mutex);
  if (here.operates != ncclSuccess) return here.operates;
  comm.busy = here.busy_looks;
  return comm.busy > 0 ? ncclInProgress : ncclSuccess;
}

ncclResult_t ask(ncclComm& comm, const move& what, const std::string& words) {
  {
    const std::lock_guard lock(here.mutex);
    here.calls.push_back(words + " " + std::to_string(what.count));
  }
  queued.push_back(what);
  queued_for = &comm;
  return depth > 0 ? ncclSuccess : end(comm);
}

ncclResult_t gone(ncclComm* comm, const char* how) {
  const std::lock_guard lock(here.mutex);
  here.calls.emplace_back(how);
  delete comm;
  return ncclSuccess;
}

}  // namespace

extern "C" {

fake_nccl* fake_nccl_here() { return &here; }

ncclResult_t ncclGetVersion(int* version) {
  const char* const told = std::getenv("FAKE_NCCL_VERSION");
  *version = told == nullptr ? NCCL_VERSION_CODE : std::atoi(told);
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard lock(here.mutex);
  *id = {};
  const auto name = std::to_string(++ids);
  std::memcpy(id->internal, name.data(), name.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* made, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const std::lock_guard lock(here.mutex);
  here.calls.push_back(std::string("join ") + (config->blocking == 0 ? "freely" : "blocking"));
  auto& with = meetings[id.internal];
  if (with == nullptr) with = std::make_shared<meeting>();
  with->size = size;
  *made = new ncclComm{rank, size, with, here.busy_looks};
  return here.busy_looks > 0 ? ncclInProgress : here.joins;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  const std::lock_guard lock(here.mutex);
  *state = ncclInProgress;
  if (comm->busy > 0) {
    --comm->busy;
    return ncclSuccess;
  }
  *state = here.joins != ncclSuccess ? here.joins : here.found_later;
  return ncclSuccess;
}

#ifndef FAKE_NCCL_LACKS_FINALIZE
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const std::lock_guard lock(here.mutex);
  here.calls.emplace_back("finalize");
  comm->busy = here.busy_looks;
  return ncclInProgress;
}
#endif

ncclResult_t ncclCommDestroy(ncclComm_t comm) { return gone(comm, "destroy"); }
ncclResult_t ncclCommAbort(ncclComm_t comm) { return gone(comm, "abort"); }

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited" : "some error";
}
const char* ncclGetLastError(ncclComm_t) { return "socket closed\nby peer"; }

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() { return --depth == 0 ? end(*queued_for) : ncclSuccess; }

ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t,
                           ncclComm_t comm, cudaStream_t) {
  return ask(*comm, {-1, static_cast<const float*>(from), static_cast<float*>(to), count},
             "gather");
}

ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t, int root,
                           ncclComm_t comm, cudaStream_t) {
  return ask(*comm, {root, static_cast<const float*>(from), static_cast<float*>(to), count},
             "broadcast of " + std::to_string(root));
}
}
